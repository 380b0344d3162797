//! Requests on objects: which verb a method means, and its way through the transport and back.

use super::encode::Encoder;
use super::media::{self, Shape};
use super::query::Query;
use super::status::{no_such_method, no_such_resource};
use super::watch::{EventWriter, respond_expired, respond_with};
use super::{Shared, body, body::Body, delete, nodes, readable};
use crate::api::{ApiError, ApiResult, Reason, Target};
use crate::client::{WriteOptions, Written};
use crate::server::auth::User;
use crate::server::kind::Kind;
use crate::server::printing::Include;
use http::{HeaderMap, HeaderValue, Method, Response, header};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What is to be done with objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// Streams of a pod (`log`, `exec`, …), what a node is asked, and what a kind has to read.
    Connect,
}

impl Verb {
    /// The verb's name in authorization and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verb::Get | Verb::Connect => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }
}

/// Sub-resources of pods that are streams.
const STREAMS: [&str; 4] = ["log", "exec", "attach", "portforward"];

/// What a method means for a target of this kind.
///
/// # Errors
/// `NotFound` where the kind has no such place, `MethodNotAllowed` where nothing can be done there in this way.
pub(crate) fn verb(method: &Method, target: &Target, kind: &dyn Kind, watch: bool) -> ApiResult<Verb> {
    let namespaced = kind.names().namespaced;
    if target.namespace.is_some() != namespaced && (target.namespace.is_some() || target.name.is_some()) {
        return Err(no_such_resource());
    }
    if watch && target.subresource.is_none() && method == Method::GET {
        // What is computed when it is asked for says nothing of its own accord.
        return if kind.computed().is_none() { Ok(Verb::Watch) } else { Err(no_such_method()) };
    }
    if kind.computed().is_some() {
        return computed_verb(method, target);
    }
    if let Some(sub) = &target.subresource {
        return subresource_verb(method, target, kind, sub);
    }
    let everywhere = namespaced && target.namespace.is_none();
    match (method.as_str(), target.name.is_some()) {
        ("GET" | "HEAD", false) => Ok(Verb::List),
        ("POST", false) if !everywhere => Ok(Verb::Create),
        ("DELETE", false) if !everywhere => Ok(Verb::DeleteCollection),
        ("GET" | "HEAD", true) => Ok(Verb::Get),
        ("PUT", true) => Ok(Verb::Update),
        ("PATCH", true) => Ok(Verb::Patch),
        ("DELETE", true) => Ok(Verb::Delete),
        _ => Err(no_such_method()),
    }
}

/// What is not stored is only read.
fn computed_verb(method: &Method, target: &Target) -> ApiResult<Verb> {
    match (method.as_str(), target.name.is_some() && target.subresource.is_none()) {
        ("GET" | "HEAD", true) => Ok(Verb::Get),
        ("GET" | "HEAD", false) => Ok(Verb::List),
        _ => Err(no_such_method()),
    }
}

fn subresource_verb(method: &Method, target: &Target, kind: &dyn Kind, sub: &str) -> ApiResult<Verb> {
    if nodes::is_proxy(target) {
        return if method == Method::GET { Ok(Verb::Connect) } else { Err(no_such_method()) };
    }
    if readable::is_read(kind, sub) {
        return if method == Method::GET { Ok(Verb::Connect) } else { Err(no_such_method()) };
    }
    let plain: &[&str] = &["get", "patch", "update"];
    let allowed = match sub {
        "status" if kind.has_status() => plain,
        "scale" if kind.scale().is_some() => plain,
        sub => kind.actions().iter().find(|a| a.name == sub).map(|a| a.verbs).ok_or_else(no_such_resource)?,
    };
    if target.gvr.group.is_empty() && target.gvr.resource == "pods" && STREAMS.contains(&sub) {
        return Ok(Verb::Connect);
    }
    let verb = match method.as_str() {
        "GET" | "HEAD" => Verb::Get,
        "PUT" => Verb::Update,
        "PATCH" => Verb::Patch,
        "POST" => Verb::Create,
        _ => return Err(no_such_method()),
    };
    if allowed.contains(&verb.as_str()) { Ok(verb) } else { Err(no_such_method()) }
}

/// A request on objects, read as far as its head.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) verb: Verb,
    pub(crate) target: Target,
    pub(crate) query: Query,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) user: &'a User,
    pub(crate) kind: Arc<dyn Kind>,
    /// Ends streams when the server or the connection is shut down.
    pub(crate) ending: CancellationToken,
}

impl Request<'_> {
    /// Options of a write by whoever asks.
    fn options(&self, agent: Option<&str>) -> ApiResult<WriteOptions> {
        Ok(WriteOptions { user: Some(self.user.clone()), ..self.query.write(agent)? })
    }

    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    fn encoder(&self, shared: &Shared) -> ApiResult<Encoder> {
        Ok(Encoder {
            shape: media::negotiate(&accept(self.headers))?,
            include: Include::parse(self.query.get("includeObject")),
            now: shared.clock.now(),
            kind: self.kind.clone(),
            plain_columns: self.target.subresource.as_deref().is_some_and(|s| s != "status"),
        })
    }
}

/// All `Accept` headers as one.
pub(crate) fn accept(headers: &HeaderMap) -> String {
    headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(",")
}

/// Answers a request on objects; [`Verb::Connect`] is not for here.
pub(crate) async fn serve(shared: &Shared, request: Request<'_>, body: Body) -> ApiResult<Response<Body>> {
    let encoder = request.encoder(shared)?;
    let transport = &shared.transport;
    match request.verb {
        Verb::Get => encoder.object(200, &*transport.get(&request.target).await?),
        Verb::List => encoder.list(transport.list(&request.target, &request.query.list()?).await?),
        Verb::Watch => watch(shared, request, encoder).await,
        Verb::Create | Verb::Update | Verb::Patch => write(shared, request, encoder, body).await,
        Verb::Delete => {
            let content_type = request.header(header::CONTENT_TYPE);
            let options = delete::options(&request.query, content_type, body::read(body).await?)?;
            delete::respond(&encoder, &transport.delete(&request.target, &options).await?)
        }
        Verb::DeleteCollection => {
            let content_type = request.header(header::CONTENT_TYPE);
            let options = delete::options(&request.query, content_type, body::read(body).await?)?;
            let list = request.query.list()?;
            encoder.list(transport.delete_collection(&request.target, &list, &options).await?)
        }
        Verb::Connect => Err(no_such_method()),
    }
}

async fn write(shared: &Shared, request: Request<'_>, encoder: Encoder, body: Body) -> ApiResult<Response<Body>> {
    let (transport, target) = (&shared.transport, &request.target);
    let content_type = request.header(header::CONTENT_TYPE);
    let agent = Some(request.header(header::USER_AGENT));
    let written = match request.verb {
        Verb::Patch => {
            let force = request.query.flag("force");
            let (kind, payload) = media::patch(content_type, force, body::read(body).await?)?;
            let applies = matches!(kind, crate::client::PatchType::Apply { .. });
            let options = request.query.write(agent.filter(|_| !applies))?;
            transport.patch(target, kind, payload, &options).await?
        }
        Verb::Update => {
            let payload = media::payload(content_type, body::read(body).await?)?;
            transport.update(target, payload, &request.options(agent)?).await?
        }
        _ => {
            let payload = media::payload(content_type, body::read(body).await?)?;
            transport.create(target, payload, &request.options(agent)?).await?
        }
    };
    respond_written(&encoder, &written)
}

fn respond_written(encoder: &Encoder, written: &Written) -> ApiResult<Response<Body>> {
    let mut response = encoder.object(if written.created { 201 } else { 200 }, &written.object)?;
    for warning in &written.warnings {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\r', '\n'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    Ok(response)
}

async fn watch(shared: &Shared, mut request: Request<'_>, encoder: Encoder) -> ApiResult<Response<Body>> {
    if encoder.shape == Shape::Yaml {
        return Err(ApiError::new(Reason::NotAcceptable, "406: Not Acceptable\n\na watch cannot be written as YAML"));
    }
    let mut options = request.query.watch()?;
    if let Some(name) = request.target.name.take() {
        let more = if options.field_selector.is_empty() { "" } else { "," };
        options.field_selector.push_str(&format!("{more}metadata.name={name}"));
    }
    match shared.transport.watch(&request.target, &options).await {
        Ok(stream) => {
            let writer = EventWriter::new(encoder, shared.lines.clone(), shared.clock.clone());
            Ok(respond_with(stream, writer, request.ending))
        }
        Err(e) if e.is_gone() => Ok(respond_expired(&e)),
        Err(e) => Err(e),
    }
}
