//! What happens to a request: the route is looked up, its filters are applied, and it is sent to an endpoint.

mod answers;
mod attempts;
mod ending;
mod headers;
mod mirror;
mod request_id;
mod rewrite;
mod sticky;
mod upgrade;

pub(super) use ending::Ending;
pub(super) use headers::Came;

use super::body::{Answer, Outgoing, promised};
use super::front::Shared;
use super::spelling::normal_path;
use super::table::{Asked, Found, Plan, Route, Target};
use answers::Refusal;
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body_util::Full;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Answers one request.
pub(super) async fn handle(shared: &Arc<Shared>, came: &Came, request: &mut Request<Outgoing>) -> Response<Answer> {
    let (began, mut about) = (Instant::now(), About::default());
    let line = shared.config.access_log.then(|| format!("{} {}", request.method(), request.uri()));
    let grpc = answers::is_grpc(request.headers());
    let id = request_id::give(request.headers_mut());
    let mut response = match serve(shared, came, request, began, &mut about).await {
        Ok(response) => response,
        Err(refusal) => refusal.answer(grpc),
    };
    let turns = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if shared.ending.load(Ordering::Relaxed) && came.version_one && !turns {
        response.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
    }
    let took = about.took.unwrap_or_else(|| began.elapsed());
    match &about.route {
        Some(route) => route.plan.counters.answered(response.status(), took),
        None => drop(shared.metrics.refused.inc()),
    }
    if let Some(line) = line {
        let status = response.status().as_u16();
        let id = id.to_str().unwrap_or_default();
        tracing::info!(target: "minik8s::access", client = %came.peer, request = line, id, status, ?took);
    }
    response.headers_mut().insert(request_id::REQUEST_ID, id);
    response
}

/// What became known of a request on its way.
#[derive(Default)]
struct About {
    route: Option<Arc<Route>>,
    /// Until its answer began.
    took: Option<Duration>,
}

async fn serve(
    shared: &Arc<Shared>,
    came: &Came,
    request: &mut Request<Outgoing>,
    began: Instant,
    about: &mut About,
) -> Result<Response<Answer>, Refusal> {
    check(request)?;
    let host = host_of(request)?;
    let route = find(shared, came, request, &host)?;
    let Route { plan, path: rule, .. } = &**about.route.insert(route);
    if let Some(redirect) = &plan.redirect {
        return Ok(rewrite::redirect(redirect, rule, &host, came, request.uri()));
    }
    let limit = plan.max_body.or(shared.config.max_body);
    if let (Some(limit), Some(length)) = (limit, promised(request.headers()))
        && length > limit
    {
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {limit} bytes")));
    }
    request.body_mut().limit(limit);
    let chosen = sticky::choose(plan, request.headers())?;
    let upgrade = upgrade::wanted(request);
    let authority = plan.rewrite.host.as_deref().unwrap_or(&host);
    came.prepare(request, plan.rewrite.host.as_deref())?;
    if let Some(path) = &plan.rewrite.path {
        rewrite::path(path, rule, request)?;
    }
    plan.request_headers.apply(request.headers_mut());
    let target = &plan.targets[chosen.target];
    target.request_headers.apply(request.headers_mut());
    let answered = match upgrade {
        Some(protocol) => upgrade::pass(shared, (target, plan.hold.as_ref()), chosen, protocol, request).await,
        None => {
            if !plan.mirrors.is_empty() {
                mirror::copies(shared, plan, request).await?;
            }
            relay(shared, plan, target, chosen, request, authority).await
        }
    };
    let failed = answered.as_ref().map_or_else(|refusal| refusal.status().is_server_error(), ending::failed);
    target.counted.answered(failed, *about.took.insert(began.elapsed()));
    let mut response = answered?;
    target.response_headers.apply(response.headers_mut());
    plan.response_headers.apply(response.headers_mut());
    Ok(response)
}

/// Sends the request, and makes the answer ready to be passed on.
async fn relay(
    shared: &Arc<Shared>,
    plan: &Plan,
    target: &Target,
    chosen: sticky::Chosen,
    request: &mut Request<Outgoing>,
    authority: &str,
) -> Result<Response<Answer>, Refusal> {
    let token = chosen.cookie;
    let attempt = attempts::send(shared, plan, target, chosen.lease, request, authority);
    let sent = match plan.timeout {
        None => attempt.await?,
        Some(limit) => tokio::time::timeout(limit, attempt).await.map_err(|_| Refusal::late(limit))??,
    };
    let (mut head, body) = sent.response.into_parts();
    headers::without_hops(&mut head.headers);
    head.version = Version::HTTP_11;
    if let Some(cookie) = token {
        cookie.set(&mut head.headers, sent.address);
    }
    let ending = Ending::new(target.counted.clone(), &head.headers);
    Ok(Response::from_parts(head, Answer::Relayed(body.watched(ending))))
}

/// The answer to what is no request at all.
pub(super) fn refuse(shared: &Shared, status: StatusCode, why: &str) -> Response<Answer> {
    shared.metrics.refused.inc();
    Refusal::new(status, why.to_owned()).closing().answer(false)
}

/// Refuses what no gateway passes on.
fn check(request: &Request<Outgoing>) -> Result<(), Refusal> {
    if *request.method() == Method::CONNECT {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not served here".into()));
    }
    Ok(())
}

/// The host that is asked for: without a port, in lower case.
fn host_of(request: &Request<Outgoing>) -> Result<Cow<'static, str>, Refusal> {
    let bad = |why: &str| Refusal::new(StatusCode::BAD_REQUEST, why.to_owned());
    let mut named = request.headers().get_all(header::HOST).iter();
    let header = named.next();
    if named.next().is_some() {
        return Err(bad("more than one Host"));
    }
    let text = match (request.uri().authority(), header) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(value)) => value.to_str().map_err(|_| bad("a Host that is no name"))?,
        (None, None) if request.version() < Version::HTTP_11 => "",
        (None, None) => return Err(bad("no Host")),
    };
    let text = text.rsplit_once('@').map_or(text, |(_, host)| host);
    let host = match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => text,
    };
    Ok(host.trim_end_matches('.').to_ascii_lowercase().into())
}

/// True for a path with `.` or `..` as an element, in any spelling.
fn leaves(path: &str) -> bool {
    let dots = |element: &str| matches!(element.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    (path.contains('.') || path.contains('%')) && path.split('/').any(dots)
}

fn find(shared: &Shared, came: &Came, request: &Request<Outgoing>, host: &str) -> Result<Arc<Route>, Refusal> {
    let uri = request.uri();
    let (path, query) = (uri.path(), uri.query());
    if leaves(path) {
        let why =
            "the path has elements that lead out of it: what it is matched by would not be what the Service reads";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, why.to_owned()));
    }
    let normal = normal_path(path);
    let asked = Asked { host, path: &normal, query, method: request.method(), headers: request.headers() };
    let table = shared.table.load();
    match table.find(came.port, &asked) {
        Found::Route(route) => Ok(route.clone()),
        Found::Nothing { host_known: true } => {
            Err(Refusal::new(StatusCode::NOT_FOUND, format!("no route for path {path} at host {host}")))
        }
        Found::Nothing { host_known: false } => {
            Err(Refusal::new(StatusCode::NOT_FOUND, format!("no route for host {host:?} (path {path})")))
        }
    }
}

/// An answer of the gateway's own.
fn own(status: StatusCode, text: String) -> Response<Answer> {
    let mut response = Response::new(Answer::Own(Full::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, http::HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::leaves;

    #[test]
    fn only_whole_elements_of_dots_lead_out_of_a_path() {
        for path in ["/a/../b", "/..", "/./", "/a/%2e%2E/b", "/a/.%2e", "/."] {
            assert!(leaves(path), "{path}");
        }
        for path in ["/", "/a.b", "/...", "/.well-known/x", "/a/..b", "/%2e%2e%2e", "/a%2f..", "/v1.2/x"] {
            assert!(!leaves(path), "{path}");
        }
    }
}
