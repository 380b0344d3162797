//! Follows what triggers watch: one task for each trigger of objects or files, for as long as its spec stays the same.

use super::config::TriggersConfig;
use super::emit::{Emitter, is_hopeless, slim};
use super::objects::{Trigger, TriggerStatus};
use super::{WEBHOOKS, files, watch};
use crate::front;
use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use minik8s_core::api::{ApiError, ApiResult, Object, PathRoute};
use minik8s_core::client::PatchType;
use minik8s_core::controllers::{Controller, ControllerContext};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Wait before a source that does not work is tried again.
const AGAIN: Duration = Duration::from_secs(10);

pub(super) struct SourceController {
    pub(super) config: TriggersConfig,
}

#[async_trait]
impl Controller for SourceController {
    fn name(&self) -> &str {
        "trigger-source-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let triggers = ctx.informers.of::<Trigger>();
        let mut changes = triggers.subscribe();
        if !triggers.synced().await {
            return;
        }
        // Tasks by the trigger's uid and generation.
        let mut running: HashMap<(String, i64), DropGuard> = HashMap::new();
        loop {
            let mut wanted = HashMap::new();
            for trigger in triggers.list() {
                let watches =
                    trigger.spec.object.is_some() || trigger.spec.file.is_some() || trigger.spec.webhook.is_some();
                if watches && !trigger.spec.suspend && trigger.metadata.deletion_timestamp.is_none() {
                    let meta = &trigger.metadata;
                    wanted.insert((meta.uid.clone().unwrap_or_default(), meta.generation.unwrap_or_default()), trigger);
                }
            }
            running.retain(|key, _| wanted.contains_key(key));
            for (key, trigger) in wanted {
                running.entry(key).or_insert_with(|| {
                    let stop = ctx.stop.child_token();
                    tokio::spawn(follow(ctx.clone(), self.config.clone(), (*trigger).clone(), stop.clone()));
                    stop.drop_guard()
                });
            }
            tokio::select! {
                biased;
                () = ctx.stop.cancelled() => return,
                change = changes.next() => if change.is_none() { return },
            }
            while changes.try_next().is_some() {}
        }
    }
}

/// What a source works with.
pub(super) struct Source {
    pub(super) ctx: ControllerContext,
    pub(super) config: TriggersConfig,
    pub(super) trigger: Trigger,
    pub(super) emitter: Emitter,
}

/// Why a source does not work, as a condition has it.
pub(super) struct Broken {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

async fn follow(ctx: ControllerContext, config: TriggersConfig, trigger: Trigger, stop: CancellationToken) {
    let emitter = Emitter { client: ctx.client.clone(), events: ctx.events.clone() };
    let source = Source { ctx, config, trigger, emitter };
    let work = async {
        loop {
            let Err(broken) = work(&source).await else { return };
            source.say("False", broken.reason, broken.message).await;
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = work => {}
    }
}

async fn work(source: &Source) -> Result<(), Broken> {
    match (&source.trigger.spec.object, &source.trigger.spec.file) {
        (Some(object), _) => watch::run(source, object).await,
        (None, Some(file)) => files::run(source, file).await,
        (None, None) if source.config.webhooks.is_none() && !source.is_led_to().await => {
            let message =
                "webhooks are listened for nowhere: start the control plane with an address for them".to_owned();
            Err(Broken { reason: "NotConfigured", message })
        }
        (None, None) => {
            source.say("True", "Listening", String::new()).await;
            Ok(())
        }
    }
}

impl Source {
    /// True where gateways lead events of webhooks to somebody: this process says so, or an API server elsewhere does.
    async fn is_led_to(&self) -> bool {
        let routes = self.ctx.client.api::<PathRoute>(front::NAMESPACE);
        self.config.at_gateways || routes.get_opt(front::name(WEBHOOKS)).await.is_ok_and(|route| route.is_some())
    }

    fn place(&self) -> (&str, &str) {
        let meta = &self.trigger.metadata;
        (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }

    /// Says whether the source works.
    pub(super) async fn say(&self, status: &str, reason: &str, message: String) {
        let condition = Condition {
            type_: "Ready".to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: self.trigger.metadata.generation,
            last_transition_time: Time(self.ctx.clock.now()),
        };
        if let Err(error) = self.patch(json!({"conditions": [condition]})).await {
            tracing::debug!(%error, "the state of a trigger cannot be written");
        }
    }

    /// Changes fields of the trigger's status.
    pub(super) async fn patch(&self, status: serde_json::Value) -> ApiResult<()> {
        let (namespace, name) = self.place();
        let body = json!({"metadata": {"uid": self.trigger.metadata.uid}, "status": status});
        self.emitter.client.api::<Trigger>(namespace).patch_status(name, PatchType::Merge, &body).await.map(|_| ())
    }

    /// What the trigger's status says now.
    pub(super) async fn status(&self) -> Result<TriggerStatus, Broken> {
        let (namespace, name) = self.place();
        let trigger = self.emitter.client.api::<Trigger>(namespace).get(name).await;
        let broken =
            |e: ApiError| Broken { reason: "CannotWatch", message: format!("the trigger cannot be read: {e}") };
        Ok(trigger.map_err(broken)?.status.unwrap_or_default())
    }

    /// Objects of the trigger's own namespace are its business, and those of none.
    pub(super) fn is_near(&self, object: &Object) -> bool {
        object.meta.namespace.is_empty() || object.meta.namespace == self.place().0
    }

    /// Writes a delivery, however long that takes: what was seen is not seen again. What is too large is told without the
    /// states of the object; what can never be written is told to whoever looks at the trigger.
    pub(super) async fn emit(&self, mut event: serde_json::Value) {
        let mut failures = 0;
        while let Err(error) = self.emitter.emit(&self.trigger, event.clone()).await {
            if is_hopeless(&error) {
                if !slim(&mut event) {
                    return self.emitter.dropped(&self.trigger, &event, &error);
                }
                continue;
            }
            failures += 1;
            let backoff = minik8s_core::client::Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
            tracing::debug!(%error, "an event cannot be written now");
            tokio::time::sleep(backoff.jittered(failures, minik8s_core::random::fraction())).await;
        }
    }
}
