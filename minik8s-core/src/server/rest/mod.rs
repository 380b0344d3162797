//! The HTTP front: a [`tower::Service`] that turns requests into calls on a [`Transport`](crate::client::Transport).
//!
//! Nothing here knows a kind or checks an object: paths, queries, media types and bodies are translated, and the
//! transport decides. The service runs over sockets behind [`listen`](super::listen), and without them, say under
//! `kube::Client::new(service.acting_as(user), "default")`.

mod body;
mod delete;
mod documents;
mod encode;
mod exec;
mod media;
mod nodes;
mod openapi;
mod pods;
mod portforward;
mod prometheus;
mod query;
mod readable;
mod route;
mod spdy;
mod status;
mod verbs;
mod watch;
mod websocket;

pub(crate) use body::answers;
pub use body::{Body, BoxError};
pub(crate) use status::error_response;

use super::auth::{AllowAuthenticated, Attributes, ClusterAuthorizer, SharedAuthorizer, User, unauthorized};
use super::scrape::Scraper;
use super::{ANYTHING, ApiServer, Health, HttpDoor, Metrics, Registry};
use crate::api::{ApiError, ApiResult, Gvr, Schemas, Target};
use crate::client::SharedTransport;
use crate::clock::{SharedClock, SystemClock};
use crate::node::NodeDirectory;
use futures::FutureExt;
use http::request::Parts;
use http::{Method, Request, Response};
use query::Query;
use route::Route;
use status::{no_such_method, no_such_path, no_such_resource, text_response};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use verbs::Verb;

/// What the front stands before. Everything but transport and registry has a default.
pub struct RestConfig {
    /// Who answers.
    pub transport: SharedTransport,
    /// The kinds there are.
    pub registry: Registry,
    /// The types behind the kinds, for OpenAPI.
    pub schemas: Schemas,
    /// The nodes that can be reached, for logs and commands.
    pub nodes: NodeDirectory,
    /// Where the time of day comes from.
    pub clock: SharedClock,
    /// Who may do what.
    pub authorizer: SharedAuthorizer,
    /// Metrics, shown at `/metrics`.
    pub metrics: Metrics,
    /// Health checks.
    pub health: Health,
    /// Paths that extensions serve.
    pub doors: Vec<Arc<dyn HttpDoor>>,
    /// Ends every watch and stream when it is cancelled.
    pub shutdown: CancellationToken,
    /// True while what is behind it cannot be relied on; who speaks gRPC is sent elsewhere then.
    pub lost: tokio::sync::watch::Receiver<bool>,
}

impl RestConfig {
    /// The defaults around a transport and its registry.
    pub fn new(transport: SharedTransport, registry: Registry) -> Self {
        Self {
            transport,
            registry,
            schemas: Schemas::builtin(),
            nodes: NodeDirectory::default(),
            clock: Arc::new(SystemClock),
            authorizer: Arc::new(AllowAuthenticated),
            metrics: Metrics::default(),
            health: Health::default(),
            doors: Vec::new(),
            shutdown: CancellationToken::new(),
            lost: tokio::sync::watch::channel(false).1,
        }
    }

    /// A front for this server, with its registry, nodes, clock and metrics.
    pub fn of(server: &Arc<ApiServer>) -> Self {
        let health = Health::default();
        let follows = server.follows_store();
        health.add("store", move || {
            follows().then_some(()).ok_or_else(|| "the watch of the store is broken, trying again".to_owned())
        });
        Self {
            health,
            schemas: server.schemas().clone(),
            nodes: server.nodes().clone(),
            clock: server.clock().clone(),
            authorizer: Arc::new(ClusterAuthorizer::of(server)),
            metrics: server.metrics().clone(),
            lost: server.store_lost(),
            ..Self::new(server.clone(), server.registry().clone())
        }
    }
}

const CUSTOM_KINDS: Gvr = Gvr::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");

/// In a request's extensions: the end of what carries it, which ends its watches and streams.
#[derive(Clone)]
pub(crate) struct Ending(pub(crate) CancellationToken);

/// The HTTP front. Cheap to clone. A request belongs to the [`User`] in its extensions, where the listener puts it;
/// without one, all but health and version is refused.
#[derive(Clone)]
pub struct RestService {
    shared: Arc<Shared>,
    acting_as: Option<User>,
}

/// What all requests share.
struct Shared {
    transport: SharedTransport,
    registry: Registry,
    nodes: NodeDirectory,
    clock: SharedClock,
    authorizer: SharedAuthorizer,
    metrics: Metrics,
    health: Health,
    doors: Vec<Arc<dyn HttpDoor>>,
    shutdown: CancellationToken,
    lines: Arc<watch::LineCache>,
    documents: documents::Documents,
    scraper: Scraper,
    lost: tokio::sync::watch::Receiver<bool>,
}

impl RestService {
    /// True while who speaks gRPC is sent elsewhere.
    pub(crate) fn lost(&self) -> tokio::sync::watch::Receiver<bool> {
        self.shared.lost.clone()
    }

    /// Who says what users may do here.
    pub fn authorizer(&self) -> SharedAuthorizer {
        self.shared.authorizer.clone()
    }

    /// A front.
    pub fn new(config: RestConfig) -> Self {
        let shared = Shared {
            documents: documents::Documents::new(config.registry.clone(), config.schemas),
            scraper: Scraper::new(config.nodes.clone()),
            transport: config.transport,
            registry: config.registry,
            nodes: config.nodes,
            clock: config.clock,
            authorizer: config.authorizer,
            metrics: config.metrics,
            health: config.health,
            doors: config.doors,
            shutdown: config.shutdown,
            lost: config.lost,
            lines: Arc::default(),
        };
        Self { shared: Arc::new(shared), acting_as: None }
    }

    /// The same front, where requests that bring no user are this one's. For callers inside the process.
    #[must_use]
    pub fn acting_as(&self, user: User) -> Self {
        Self { shared: self.shared.clone(), acting_as: Some(user) }
    }

    /// A kube-rs client of this front, without sockets.
    #[cfg(feature = "kube")]
    pub fn kube_client(&self, user: User, namespace: &str) -> kube::Client {
        kube::Client::new(self.acting_as(user), namespace)
    }

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let user = parts.extensions.remove::<User>().or(self.acting_as);
        let method = parts.method.clone();
        let work = AssertUnwindSafe(self.shared.route(&mut parts, body, user));
        let response = match work.catch_unwind().await {
            Ok(answer) => answer.unwrap_or_else(|e| error_response(&e)),
            Err(_) => {
                tracing::error!(%method, path = parts.uri.path(), "a request handler panicked");
                error_response(&ApiError::internal("this request panicked the server; its log says where"))
            }
        };
        tracing::trace!(%method, path = parts.uri.path(), code = response.status().as_u16(), "answered");
        response
    }
}

impl Shared {
    async fn route(self: &Arc<Self>, parts: &mut Parts, body: Body, user: Option<User>) -> ApiResult<Response<Body>> {
        if let Some(door) = self.doors.iter().find(|door| parts.uri.path().starts_with(door.prefix())) {
            return Ok(door.call(user, Request::from_parts(parts.clone(), body)).await);
        }
        let route = route::route(parts.uri.path());
        let reading = matches!(parts.method, Method::GET | Method::HEAD);
        match &route {
            Route::Health(check) if reading => return Ok(self.health_report(parts, check.as_deref())),
            Route::Version if reading => return Ok(documents::version()),
            _ => {}
        }
        let user = user.ok_or_else(unauthorized)?;
        if let Route::Objects { target, watch } = route {
            return self.objects(parts, body, &user, target, watch).await;
        }
        let verb = parts.method.as_str().to_ascii_lowercase();
        let attributes = Attributes { user: &user, verb: &verb, target: None, fields: "", path: parts.uri.path() };
        self.authorizer.authorize(&attributes).await?;
        if !reading && route != Route::Nowhere {
            return Err(no_such_method());
        }
        if let Route::Resources(group, version) = &route
            && let Some((any, kind)) = self.open_version(group, version)
        {
            return documents::open(self.transport.as_ref(), any, &kind).await;
        }
        Ok(match route {
            Route::Metrics => self.metrics_page()?,
            Route::Prometheus(path) => prometheus::serve(self, parts, &path).await?,
            route => self.documents.serve(&route, &parts.headers).unwrap_or_else(no_such_path),
        })
    }

    /// The kind of a version that answers to anything, where this is one.
    fn open_version(&self, group: &str, version: &str) -> Option<(Gvr, String)> {
        let gvr = Gvr { group: group.to_owned().into(), version: version.to_owned().into(), resource: ANYTHING.into() };
        let kind = self.registry.get(&gvr)?;
        Some((gvr, kind.names().kind.to_string()))
    }

    async fn objects(
        self: &Arc<Self>,
        parts: &mut Parts,
        body: Body,
        user: &User,
        target: Target,
        watch: bool,
    ) -> ApiResult<Response<Body>> {
        let table = self.registry.snapshot();
        let Some(kind) = table.get(&target.gvr).cloned() else {
            return unserved(&target, table.has_version(&target.gvr.group, &target.gvr.version));
        };
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let mut target = target;
        let metric = target.subresource.as_mut().filter(|_| kind.computed().is_some());
        if let (Some(series), Some(metric)) = (query.get("metricLabelSelector"), metric) {
            metric.push_str(&format!("?{series}"));
        }
        // Asking for a watch of one object by its name is answered with the object.
        let watch = watch || (target.name.is_none() && query.flag("watch"));
        let verb = verbs::verb(&parts.method, &target, kind.as_ref(), watch)?;
        let path = parts.uri.path();
        let asks = match verb {
            // A stream is made by either method; one who may only read must not get in by the other.
            Verb::Connect if parts.method == Method::POST => Verb::Create,
            verb => verb,
        };
        let fields = query.get("fieldSelector").unwrap_or_default();
        let asked = nodes::asked(&target);
        let attributes = Attributes { user, verb: asks.as_str(), target: Some(&asked), fields, path };
        self.authorizer.authorize(&attributes).await?;
        let ending = parts.extensions.get::<Ending>().map_or_else(|| self.shutdown.clone(), |e| e.0.clone());
        let (method, headers) = (parts.method.clone(), parts.headers.clone());
        let request = verbs::Request { method, verb, target, query, headers: &headers, user, kind, ending };
        match verb {
            Verb::Connect if nodes::is_proxy(&request.target) => nodes::proxy(self, &request).await,
            Verb::Connect if readable::is_asked(&request) => readable::serve(self, request).await,
            Verb::Connect => pods::connect(self, request, parts).await,
            _ => verbs::serve(self, request, body).await,
        }
    }

    fn metrics_page(&self) -> ApiResult<Response<Body>> {
        let page =
            self.metrics.render().map_err(|e| ApiError::internal(format!("metrics without a text form: {e}")))?;
        Ok(text_response(200, page))
    }

    fn health_report(&self, parts: &Parts, check: Option<&str>) -> Response<Body> {
        let endpoint = parts.uri.path().split('/').find(|s| !s.is_empty()).unwrap_or_default();
        let verbose = Query::parse(parts.uri.query().unwrap_or_default()).flag("verbose");
        match self.health.report(endpoint, check) {
            None => no_such_path(),
            Some((true, report)) => text_response(200, if verbose { report } else { "ok".to_owned() }),
            Some((false, report)) => text_response(500, report),
        }
    }
}

/// What is said of a resource that is not served, in a version that is or is not.
fn unserved(target: &Target, known_version: bool) -> ApiResult<Response<Body>> {
    // kubectl asks for the custom kinds before it says that a kind is unknown. There are none.
    if *target == Target::all(CUSTOM_KINDS) {
        let list = r#"{"kind":"CustomResourceDefinitionList","apiVersion":"apiextensions.k8s.io/v1","metadata":{"resourceVersion":"0"},"items":[]}"#;
        return Ok(status::json_response(200, list));
    }
    if known_version { Err(no_such_resource()) } else { Ok(no_such_path()) }
}

answers!(RestService, |service, request| service.clone().answer(request));
