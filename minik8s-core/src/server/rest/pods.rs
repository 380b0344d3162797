//! Streams of pods: finding the container and the node that a log, a command, an attachment or a port is asked of.

use super::body::{Body, BoxError};
use super::query::Query;
use super::status::respond;
use super::verbs::Request;
use super::{Shared, exec, portforward};
use crate::api::{ApiError, ApiResult, Object, Reason};
use crate::node::{ContainerRef, LogOptions, NodeAccess, PodRef};
use futures::StreamExt;
use http::request::Parts;
use http::{Method, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::Value;
use std::sync::Arc;

/// Where a stream leads.
pub(crate) struct Place {
    /// The container.
    pub(crate) container: ContainerRef,
    /// The way to its node.
    pub(crate) node: Arc<dyn NodeAccess>,
}

/// Answers `log`, `exec`, `attach` and `portforward`.
pub(crate) async fn connect(shared: &Shared, request: Request<'_>, parts: &mut Parts) -> ApiResult<Response<Body>> {
    let mut target = request.target.clone();
    let subresource = target.subresource.take().unwrap_or_default();
    let pod = shared.transport.get(&target).await?;
    match subresource.as_str() {
        "log" if request.method == Method::GET => logs(shared, &request, &pod).await,
        "log" => Err(super::status::no_such_method()),
        "exec" | "attach" => {
            let place = place(shared, &request.query, &pod)?;
            exec::upgrade(place, subresource == "exec", &request, parts)
        }
        "portforward" => portforward::upgrade(way(shared, &pod)?, &request, parts),
        _ => Err(ApiError::new(Reason::NotFound, format!("pods/{subresource} is not served by this server yet"))),
    }
}

fn place(shared: &Shared, query: &Query, pod: &Object) -> ApiResult<Place> {
    let value = pod.value()?;
    let container = container(&value, &pod.meta.name, query.get("container"))?;
    Ok(Place {
        container: ContainerRef {
            namespace: pod.meta.namespace.clone(),
            pod: pod.meta.name.clone(),
            uid: pod.meta.uid.clone(),
            container,
        },
        node: node_of(shared, &value, pod)?,
    })
}

fn way(shared: &Shared, pod: &Object) -> ApiResult<portforward::Way> {
    let node = node_of(shared, &pod.value()?, pod)?;
    let meta = &pod.meta;
    let pod = PodRef { namespace: meta.namespace.clone(), pod: meta.name.clone(), uid: meta.uid.clone() };
    Ok(portforward::Way { pod, node })
}

fn node_of(shared: &Shared, value: &Value, pod: &Object) -> ApiResult<Arc<dyn NodeAccess>> {
    let node = value["spec"]["nodeName"].as_str().filter(|n| !n.is_empty());
    let unbound = || ApiError::bad_request(format!("pod {} does not have a host assigned", pod.meta.name));
    shared.nodes.find(node.ok_or_else(unbound)?)
}

/// The container that is meant: the one named, or the only one there is.
fn container(pod: &Value, name: &str, wanted: Option<&str>) -> ApiResult<String> {
    let names = |field: &str| -> Vec<String> {
        let list = pod["spec"][field].as_array().into_iter().flatten();
        list.filter_map(|c| c["name"].as_str()).map(str::to_owned).collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    match wanted {
        Some(wanted) => {
            let known = main.iter().chain(&init).chain(&names("ephemeralContainers")).any(|c| c == wanted);
            let unknown = || ApiError::bad_request(format!("container {wanted} is not valid for pod {name}"));
            known.then(|| wanted.to_owned()).ok_or_else(unknown)
        }
        None if main.len() == 1 => Ok(main.into_iter().next().unwrap_or_default()),
        None => {
            let mut why =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", main.join(" "));
            if !init.is_empty() {
                why.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(ApiError::bad_request(why))
        }
    }
}

async fn logs(shared: &Shared, request: &Request<'_>, pod: &Object) -> ApiResult<Response<Body>> {
    let options = log_options(&request.query, shared.clock.now())?;
    let place = place(shared, &request.query, pod)?;
    let stream = place.node.logs(&place.container, options).await?;
    let ended = stream.take_until(request.ending.clone().cancelled_owned());
    let frames = ended.map(|piece| piece.map(Frame::data).map_err(BoxError::from));
    Ok(respond(200, "text/plain", StreamBody::new(frames).boxed_unsync()))
}

fn log_options(query: &Query, now: jiff::Timestamp) -> ApiResult<LogOptions> {
    let seconds: Option<i64> = query.number("sinceSeconds")?;
    let time: Option<jiff::Timestamp> = query.number("sinceTime")?;
    if seconds.is_some() && time.is_some() {
        return Err(ApiError::bad_request("at most one of sinceTime or sinceSeconds may be specified"));
    }
    let since = match seconds {
        Some(seconds) if seconds < 1 => return Err(ApiError::bad_request("sinceSeconds must be greater than 0")),
        Some(seconds) => Some(now.as_second().saturating_sub(seconds).saturating_mul(1_000_000_000)),
        None => time.and_then(|t| i64::try_from(t.as_nanosecond()).ok()),
    };
    Ok(LogOptions {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        tail_lines: query.number("tailLines")?,
        since,
        timestamps: query.flag("timestamps"),
        limit_bytes: query.number("limitBytes")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_is_named_or_the_only_one() {
        let one = json!({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}});
        let two = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&one, "p", None).unwrap(), "a");
        assert_eq!(container(&two, "p", Some("i")).unwrap(), "i");
        assert_eq!(
            container(&two, "p", None).unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(container(&one, "p", Some("x")).unwrap_err().message, "container x is not valid for pod p");
    }

    #[test]
    fn log_options_are_read() {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let read = |q: &str| log_options(&Query::parse(q), now);
        let options = read("follow=true&tailLines=5&timestamps=true&limitBytes=9&previous=false").unwrap();
        let expected = LogOptions {
            follow: true,
            tail_lines: Some(5),
            timestamps: true,
            limit_bytes: Some(9),
            ..LogOptions::default()
        };
        assert_eq!(options, expected);
        let start = Some(1_767_225_600_000_000_000);
        assert_eq!(read("sinceSeconds=60").unwrap().since, start);
        assert_eq!(read("sinceTime=2026-01-01T00:00:00Z").unwrap().since, start);
        for wrong in
            ["sinceSeconds=0", "sinceTime=soon", "tailLines=-1", "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z"]
        {
            assert_eq!(read(wrong).unwrap_err().reason, Reason::BadRequest, "{wrong}");
        }
    }
}
