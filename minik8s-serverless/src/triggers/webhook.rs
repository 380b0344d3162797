//! Listens for events that others send: `POST /trigger/NAMESPACE/NAME`. What was answered with 202 is written and will be
//! delivered; nothing else is.

use super::cloud_event::events;
use super::config::TriggersConfig;
use super::emit::Emitter;
use super::objects::Trigger;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::api::core::v1::Secret;
use minik8s_core::api::{ApiError, Reason};
use minik8s_core::client::Informer;
use minik8s_core::controllers::{Controller, ControllerContext};
use minik8s_core::random;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at once.
const CONNECTIONS: usize = 256;
/// A request is sent within this time.
const SLOWEST: Duration = Duration::from_secs(30);

pub(super) struct WebhookController {
    pub(super) address: SocketAddr,
    pub(super) config: TriggersConfig,
}

#[derive(Clone)]
struct Hooks {
    triggers: Informer<Trigger>,
    emitter: Emitter,
    limit: usize,
}

#[async_trait]
impl Controller for WebhookController {
    fn name(&self) -> &str {
        "trigger-webhook-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let triggers = ctx.informers.of::<Trigger>();
        if !triggers.synced().await {
            return;
        }
        let listener = match TcpListener::bind(self.address).await {
            Ok(listener) => listener,
            // Ending is trying again, after a pause.
            Err(error) => return tracing::error!(%error, address = %self.address, "webhooks cannot be listened for"),
        };
        let emitter = Emitter { client: ctx.client.clone(), events: ctx.events.clone() };
        let hooks = Hooks { triggers, emitter, limit: self.config.body_limit() };
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                biased;
                () = ctx.stop.cancelled() => return,
                accepted = async {
                    let place = places.clone().acquire_owned().await;
                    (listener.accept().await, place)
                } => accepted,
            };
            let (Ok((stream, _)), Ok(place)) = accepted else { continue };
            let (hooks, stop) = (hooks.clone(), ctx.stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = serve(stream, hooks) => {}
                }
                drop(place);
            });
        }
    }
}

async fn serve(stream: TcpStream, hooks: Hooks) {
    let service = service_fn(move |request| {
        let hooks = hooks.clone();
        async move { Ok::<_, Infallible>(hooks.answer(request).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(SLOWEST);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection of a webhook ended");
    }
}

fn say(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_string())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    answer
}

fn refuse(status: StatusCode, why: impl Into<String>) -> Response<Full<Bytes>> {
    say(status, &json!({"error": why.into()}))
}

/// What the sender is told of a delivery that cannot be written: that it may try again, or need not.
fn status_of(error: &ApiError) -> StatusCode {
    match error.reason {
        Reason::RequestEntityTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::Invalid | Reason::BadRequest => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl Hooks {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let place = path.strip_prefix("/trigger/").and_then(|rest| rest.split_once('/'));
        let trigger = place.and_then(|(namespace, name)| self.triggers.get(&format!("{namespace}/{name}")));
        let Some(trigger) = trigger.filter(|t| t.spec.webhook.is_some() && !t.spec.suspend) else {
            return refuse(StatusCode::NOT_FOUND, "there is no such webhook: POST /trigger/NAMESPACE/NAME");
        };
        if request.method() != Method::POST {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "events are sent with POST");
        }
        if !self.may_send(&trigger, &request).await {
            return refuse(StatusCode::UNAUTHORIZED, "the trigger wants Authorization: Bearer TOKEN");
        }
        let (head, body) = request.into_parts();
        let body = match tokio::time::timeout(SLOWEST, Limited::new(body, self.limit).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                return refuse(StatusCode::PAYLOAD_TOO_LARGE, format!("an event has at most {} bytes", self.limit));
            }
            Ok(Err(_)) => return refuse(StatusCode::BAD_REQUEST, "the body broke off"),
            Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, "the body came too slowly"),
        };
        let own = random::word(20);
        let found = match events(&head.headers, &body, &own) {
            Ok(found) => found,
            Err(error) => return refuse(StatusCode::BAD_REQUEST, error.to_string()),
        };
        let mut names = Vec::new();
        for event in found {
            match self.emitter.emit(&trigger, event).await {
                Ok(name) => names.extend(name),
                Err(error) => return refuse(status_of(&error), error.to_string()),
            }
        }
        say(StatusCode::ACCEPTED, &json!({"deliveries": names}))
    }

    async fn may_send(&self, trigger: &Trigger, request: &Request<Incoming>) -> bool {
        let Some(secret) = trigger.spec.webhook.as_ref().map(|w| &w.secret_name).filter(|name| !name.is_empty()) else {
            return true;
        };
        let namespace = trigger.metadata.namespace.as_deref().unwrap_or_default();
        let secret = self.emitter.client.api::<Secret>(namespace).get_opt(secret).await.ok().flatten();
        let token = secret.and_then(|secret| secret.data?.remove("token")).map(|token| token.0);
        let sent = request.headers().get(http::header::AUTHORIZATION).and_then(|v| v.to_str().ok());
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
