//! One look at an autoscaler: its target's scale, its metrics, a decision, and what is done about it.

use super::behavior::Pace;
use super::decide::{Decision, Said, Situation, by_metrics, without_metrics};
use super::measure::Look;
use super::memory::{EVENTS, Memory};
use super::replicas::Tolerance;
use super::rivals::Rivals;
use super::sources::{Of, Sources};
use super::spec::{Amount, Rules, Spec};
use super::status::{Shown, status};
use super::tally::Patience;
use super::{AUTOSCALERS, HorizontalConfig};
use crate::api::{ApiError, ApiResult, Object, Selector, Target};
use crate::client::{EventType, Informer, PatchType, Payload, WriteOptions};
use crate::controllers::pods::select;
use crate::controllers::{ControllerContext, KindDirectory, Outcome, Reconciler};
use async_trait::async_trait;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Somebody else wrote the scale meanwhile.
const AGAIN: Duration = Duration::from_millis(50);
const ABLE: &str = "AbleToScale";
const ACTIVE: &str = "ScalingActive";

/// All autoscalers.
pub(super) struct Autoscalers {
    ctx: ControllerContext,
    config: HorizontalConfig,
    kinds: Arc<dyn KindDirectory>,
    autoscalers: Informer<Object>,
    pods: Informer<Pod>,
    sources: Sources,
    memory: Memory,
    rivals: Rivals,
}

/// An autoscaler as it is now.
struct Autoscaler {
    key: String,
    object: Arc<Object>,
    spec: Spec,
    status: Value,
    about: ObjectReference,
}

#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Value,
}

/// The scale of a target.
struct Scale {
    at: Target,
    object: Value,
    /// Replicas it is told to have, and has.
    current: i32,
    present: i32,
    selector: String,
}

/// Why an autoscaler cannot go on: a condition and an event.
struct Stop {
    said: Said,
    event: &'static str,
    note: String,
}

impl Stop {
    fn new(kind: &'static str, reason: &'static str, message: String, event: &'static str, note: String) -> Self {
        Self { said: Said::new(kind, false, reason, message), event, note }
    }
}

#[async_trait]
impl Reconciler for Autoscalers {
    type Key = String;

    async fn reconcile(&self, key: &String) -> ApiResult<Outcome> {
        let Some(object) = self.autoscalers.get(key) else {
            self.memory.remove(key);
            self.rivals.remove(key);
            return Ok(Outcome::Done);
        };
        let parts: Parts = object.decode()?;
        let about = reference(&object);
        let one = Autoscaler { key: key.clone(), spec: parts.spec, status: parts.status, about, object };
        match self.look(&one).await {
            Err(error) if error.is_conflict() => Ok(Outcome::After(AGAIN)),
            Err(error) if error.is_not_found() => Ok(Outcome::After(self.config.sync_period)),
            Err(error) => {
                tracing::warn!(%key, %error, "an autoscaler could not be looked at");
                Ok(Outcome::After(self.config.sync_period))
            }
            Ok(()) => Ok(Outcome::After(self.config.sync_period)),
        }
    }
}

impl Autoscalers {
    pub(super) fn new(
        ctx: &ControllerContext,
        config: HorizontalConfig,
        kinds: Arc<dyn KindDirectory>,
        autoscalers: Informer<Object>,
        pods: Informer<Pod>,
    ) -> Self {
        let (sources, memory, rivals) = (Sources(ctx.client.clone()), Memory::default(), Rivals::default());
        Self { ctx: ctx.clone(), config, kinds, autoscalers, pods, sources, memory, rivals }
    }

    async fn look(&self, one: &Autoscaler) -> ApiResult<()> {
        let scale = match self.scale(one).await {
            Ok(scale) => scale,
            Err(stop) => {
                // Whose target is not there lays claim to no pods.
                self.rivals.remove(&one.key);
                return self.stop(one, stop, Shown { current: one.current(), ..Shown::default() }).await;
            }
        };
        let mut shown = Shown { current: scale.current, ..Shown::default() };
        shown.said.push(Said::new(
            ABLE,
            true,
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
        ));
        let now = self.ctx.clock.now();
        let pace = Pace::new(one.spec.behavior.as_ref(), self.config.downscale_stabilization);
        let known = self.memory.of(&one.key, &one.object, scale.current, now);
        let decision = match without_metrics(scale.current, one.spec.min(), one.spec.max_replicas) {
            Some(decision) => decision,
            None => {
                let pods = match self.pods_of(one, &scale) {
                    Ok(pods) => pods,
                    Err(stop) => return self.stop(one, stop, shown).await,
                };
                let look = self.look_at(one, &scale, &pods);
                let measured = join_all(one.spec.metrics.iter().map(|metric| look.measure(metric))).await;
                let (voices, statuses): (Vec<_>, Vec<_>) = measured.into_iter().unzip();
                shown.metrics = statuses;
                for failure in voices.iter().filter_map(|v| v.as_ref().err()) {
                    self.warn(one, failure.reason, &failure.message);
                }
                let situation = Situation {
                    current: scale.current,
                    min: one.spec.min(),
                    max: one.spec.max_replicas,
                    pace: &pace,
                    recent: &known.recent,
                    events: &known.events,
                    now,
                    moment: Instant::now(),
                };
                by_metrics(&situation, &voices)
            }
        };
        if let Some(recommended) = decision.recommended {
            self.memory.recommended(&one.key, recommended, &pace);
        }
        self.act(one, &scale, decision, &pace, shown).await
    }

    /// Does what was decided, and shows it.
    async fn act(
        &self,
        one: &Autoscaler,
        scale: &Scale,
        decision: Decision,
        pace: &Pace,
        mut shown: Shown,
    ) -> ApiResult<()> {
        if let Some(error) = decision.error.as_ref().filter(|_| decision.desired.is_none()) {
            self.warn(one, "FailedComputeMetricsReplicas", error);
        }
        shown.said.extend(decision.conditions);
        shown.desired = decision.desired;
        let desired = decision.desired.unwrap_or(scale.current);
        if desired != scale.current {
            let note = format!("New size: {desired}; reason: {}", decision.reason);
            if let Err(error) = self.rescale(scale, desired).await {
                if error.is_conflict() {
                    return Err(error);
                }
                let why = format!("the HPA controller was unable to update the target scale: {error}");
                shown.desired = None;
                let note = format!("{note}; error: {error}");
                return self.stop(one, Stop::new(ABLE, "FailedUpdateScale", why, "FailedRescale", note), shown).await;
            }
            let why = format!("the HPA controller was able to update the target scale to {desired}");
            shown.said.push(Said::new(ABLE, true, "SucceededRescale", why));
            shown.scaled = true;
            self.ctx.events.event(&one.about, EventType::Normal, "SuccessfulRescale", note);
            self.remember(one, desired - scale.current, pace).await;
        }
        self.show(one, shown).await
    }

    /// The scale of the target.
    async fn scale(&self, one: &Autoscaler) -> Result<Scale, Stop> {
        let to = &one.spec.scale_target_ref;
        let failed = |why: String| {
            let message = format!("the HPA controller was unable to get the target's current scale: {why}");
            Stop::new(ABLE, "FailedGetScale", message, "FailedGetScale", why)
        };
        let found = self.kinds.find(&to.api_version, &to.kind);
        let kind = found
            .ok_or_else(|| failed(format!("no matches for kind {:?} in version {:?}", to.kind, to.api_version)))?;
        let at = Target::object(kind.gvr, &one.object.meta.namespace, to.name.clone()).sub("scale");
        let asked = self.ctx.client.transport().get(&at).await;
        let object = asked.and_then(|scale| scale.value()).map_err(|e| failed(e.message))?;
        let number = |pointer: &str| {
            let found = object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
            i32::try_from(found).unwrap_or(i32::MAX)
        };
        let selector = object.pointer("/status/selector").and_then(Value::as_str).unwrap_or_default().to_owned();
        let (current, present) = (number("/spec/replicas"), number("/status/replicas"));
        Ok(Scale { at, current, present, selector, object })
    }

    /// The pods of the target, which must be no other autoscaler's.
    fn pods_of(&self, one: &Autoscaler, scale: &Scale) -> Result<Vec<Arc<Pod>>, Stop> {
        let invalid = |event, message: String| Stop::new(ACTIVE, "InvalidSelector", message.clone(), event, message);
        if scale.selector.is_empty() {
            let mut stop = invalid("SelectorRequired", "selector is required".to_owned());
            stop.said.message = "the HPA target's scale is missing a selector".to_owned();
            return Err(stop);
        }
        let selector = Selector::parse(&scale.selector).map_err(|e| {
            let why = format!("couldn't convert selector into a corresponding internal selector object: {e}");
            invalid("InvalidSelector", why)
        })?;
        let namespace = &one.object.meta.namespace;
        let pods = select(&self.pods, namespace, &selector);
        self.rivals.put(&one.key, namespace, &selector);
        let claimed: Vec<String> = self.rivals.of(namespace, &pods).into_iter().collect();
        if claimed.len() > 1 {
            let all = claimed.join(" ");
            let why = format!("pods by selector {} are controlled by multiple HPAs: [{all}]", scale.selector);
            return Err(Stop::new(ACTIVE, "AmbiguousSelector", why.clone(), "AmbiguousSelector", why));
        }
        Ok(pods)
    }

    fn look_at<'a>(&'a self, one: &'a Autoscaler, scale: &'a Scale, pods: &'a [Arc<Pod>]) -> Look<'a> {
        let own = |rules: fn(&super::spec::Behavior) -> Option<&Rules>| {
            let said = one.spec.behavior.as_ref().and_then(rules).and_then(|rules| rules.tolerance);
            said.map_or(self.config.tolerance, |Amount(milli)| milli as f64 / 1000.0)
        };
        Look {
            sources: &self.sources,
            kinds: self.kinds.as_ref(),
            of: Of { namespace: &one.object.meta.namespace, selector: &scale.selector },
            pods,
            current: scale.current,
            present: scale.present,
            tolerance: Tolerance { up: own(|b| b.scale_up.as_ref()), down: own(|b| b.scale_down.as_ref()) },
            patience: Patience {
                cpu_initialization: self.config.cpu_initialization_period,
                initial_readiness: self.config.initial_readiness_delay,
            },
            now: self.ctx.clock.now(),
            resources: OnceCell::new(),
        }
    }

    /// Sets the number, unless somebody else has changed the target since.
    async fn rescale(&self, scale: &Scale, desired: i32) -> ApiResult<()> {
        let mut new = scale.object.clone();
        new["spec"]["replicas"] = desired.into();
        self.ctx.client.transport().update(&scale.at, body(&new)?, &WriteOptions::default()).await.map(drop)
    }

    /// What a restart would forget, written down. Where that fails, only a restart would notice.
    async fn remember(&self, one: &Autoscaler, change: i32, pace: &Pace) {
        let Some(events) = self.memory.changed(&one.key, change, pace, self.ctx.clock.now()) else { return };
        let patch = json!({"metadata": {"annotations": {EVENTS: events}}});
        if let Err(error) = self.patch(one.target(), &patch).await {
            tracing::debug!(key = one.key, %error, "the change could not be noted at the autoscaler");
        }
    }

    async fn stop(&self, one: &Autoscaler, stop: Stop, mut shown: Shown) -> ApiResult<()> {
        self.warn(one, stop.event, &stop.note);
        shown.said.push(stop.said);
        self.show(one, shown).await
    }

    fn warn(&self, one: &Autoscaler, reason: &str, note: &str) {
        self.ctx.events.event(&one.about, EventType::Warning, reason, note);
    }

    async fn show(&self, one: &Autoscaler, shown: Shown) -> ApiResult<()> {
        let new = status(&one.status, one.object.meta.generation, shown, self.ctx.clock.now());
        if new == one.status {
            return Ok(());
        }
        // What is no longer said must be taken back by name in a merge.
        let gone = one.status.as_object().into_iter().flatten().map(|(field, _)| field);
        let mut patch = new.clone();
        for field in gone.filter(|field| new.get(field.as_str()).is_none()) {
            patch[field.as_str()] = Value::Null;
        }
        self.patch(one.target().sub("status"), &json!({ "status": patch })).await
    }

    async fn patch(&self, target: Target, patch: &Value) -> ApiResult<()> {
        let options = WriteOptions::default();
        let transport = self.ctx.client.transport();
        transport.patch(&target, PatchType::Merge, body(patch)?, &options).await.map(drop)
    }
}

impl Autoscaler {
    fn target(&self) -> Target {
        Target::object(AUTOSCALERS, &self.object.meta.namespace, self.object.meta.name.clone())
    }

    /// What status says there is.
    fn current(&self) -> i32 {
        i32::try_from(self.status["currentReplicas"].as_i64().unwrap_or_default()).unwrap_or_default()
    }
}

fn body(value: &Value) -> ApiResult<Payload> {
    let bytes = serde_json::to_vec(value).map_err(|e| ApiError::internal(e.to_string()))?;
    Ok(Payload::Json(bytes.into()))
}

fn reference(object: &Object) -> ObjectReference {
    ObjectReference {
        api_version: Some(AUTOSCALERS.api_version()),
        kind: Some("HorizontalPodAutoscaler".to_owned()),
        name: Some(object.meta.name.clone()),
        namespace: Some(object.meta.namespace.clone()),
        resource_version: Some(object.meta.resource_version.clone()),
        uid: Some(object.meta.uid.clone()),
        field_path: None,
    }
}
