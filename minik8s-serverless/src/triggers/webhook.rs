//! Takes events that others send: `POST /trigger/NAMESPACE/NAME`. What was answered with 202 is written and will be
//! delivered; nothing else is.

use super::cloud_event::events;
use super::config::TriggersConfig;
use super::emit::Emitter;
use super::objects::Trigger;
use crate::front::{self, Answer, Asked, Refused, say, whole};
use async_trait::async_trait;
use http::{Method, StatusCode, header};
use k8s_openapi::api::core::v1::Secret;
use minik8s_core::client::{Informer, object_key};
use minik8s_core::controllers::{Controller, ControllerContext};
use minik8s_core::random;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Where events are sent.
pub(crate) const WEBHOOKS: &str = "/trigger";

pub(super) struct WebhookAttendant {
    pub(super) address: SocketAddr,
    pub(super) config: TriggersConfig,
}

/// Takes events. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Hooks {
    triggers: Informer<Trigger>,
    emitter: Emitter,
    limit: usize,
}

#[async_trait]
impl Controller for WebhookAttendant {
    fn name(&self) -> &str {
        "trigger-webhooks"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let hooks = Hooks::new(&ctx, &self.config);
        if !hooks.synced().await {
            return;
        }
        let listener = match TcpListener::bind(self.address).await {
            Ok(listener) => listener,
            // Ending is trying again, after a pause.
            Err(error) => return tracing::error!(%error, address = %self.address, "webhooks cannot be listened for"),
        };
        let answer = move |request| {
            let hooks = hooks.clone();
            async move { hooks.served(request).await.unwrap_or_else(Refused::answer) }
        };
        front::accept(&ctx.stop, listener, true, answer).await;
    }
}

impl Hooks {
    pub(crate) fn new(ctx: &ControllerContext, config: &TriggersConfig) -> Self {
        let emitter = Emitter { client: ctx.client.clone(), events: ctx.events.clone() };
        Self { triggers: ctx.informers.of(), emitter, limit: config.body_limit() }
    }

    /// True once the triggers are known.
    pub(crate) async fn synced(&self) -> bool {
        self.triggers.synced().await
    }

    /// Takes what was sent.
    pub(crate) async fn served(&self, request: Asked) -> Result<Answer, Refused> {
        let place = front::below(request.uri().path(), WEBHOOKS);
        let trigger = place.and_then(|(namespace, name)| self.triggers.get(&object_key(&namespace, &name)));
        let none = || Refused::new(StatusCode::NOT_FOUND, "there is no such webhook: POST /trigger/NAMESPACE/NAME");
        let trigger = trigger.filter(|t| t.spec.webhook.is_some() && !t.spec.suspend).ok_or_else(none)?;
        if request.method() != Method::POST {
            let why = "events are sent with POST";
            return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, why).with(header::ALLOW, "POST"));
        }
        if !self.may_send(&trigger, &request).await {
            return Err(Refused::new(StatusCode::UNAUTHORIZED, "the trigger wants Authorization: Bearer TOKEN"));
        }
        let (head, body) = request.into_parts();
        let body = whole(body, self.limit).await?;
        let own = random::word(20);
        let found = events(&head.headers, &body, &own);
        let found = found.map_err(|error| Refused::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        let mut names = Vec::new();
        for event in found {
            names.extend(self.emitter.emit(&trigger, event).await?);
        }
        Ok(say(StatusCode::ACCEPTED, &json!({"deliveries": names})))
    }

    async fn may_send(&self, trigger: &Trigger, request: &Asked) -> bool {
        let Some(secret) = trigger.spec.webhook.as_ref().map(|w| &w.secret_name).filter(|name| !name.is_empty()) else {
            return true;
        };
        let namespace = trigger.metadata.namespace.as_deref().unwrap_or_default();
        let secret = self.emitter.client.api::<Secret>(namespace).get_opt(secret).await.ok().flatten();
        let token = secret.and_then(|secret| secret.data?.remove("token")).map(|token| token.0);
        let sent = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let sent = sent.and_then(|value| value.strip_prefix("Bearer "));
        match (token, sent) {
            // Digests are compared, so that the time it takes tells nothing.
            (Some(token), Some(sent)) => {
                !token.is_empty() && Sha256::digest(token.trim_ascii()) == Sha256::digest(sent.trim())
            }
            _ => false,
        }
    }
}
