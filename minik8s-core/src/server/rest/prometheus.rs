//! What Prometheus is served: the list of all that has metrics, for its `http_sd_configs`; each of them by itself, so that
//! nobody but this server needs to be reached; and all of them on one page.

use super::Shared;
use super::body::Body;
use super::status::{json_response, no_such_path, respond};
use crate::api::{ApiError, ApiResult, Gvr, Object, Reason, Target};
use crate::client::{CANDIDATE_LABEL, ListOptions, METRICS_ANNOTATION};
use crate::node::{ContainerUsage, NodeUsage};
use crate::server::rest::body::full;
use crate::server::scrape::{Door, append, fetch};
use futures::{StreamExt, stream};
use http::request::Parts;
use http::{Response, header};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

const PODS: Gvr = Gvr::new("", "v1", "pods");
const NODES: Gvr = Gvr::new("", "v1", "nodes");
const LEASES: Gvr = Gvr::new("coordination.k8s.io", "v1", "leases");
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const PREFIX: &str = "/minik8s/prometheus";
/// A node that has not answered by then is left out.
const ANSWER: Duration = Duration::from_secs(5);
const AT_ONCE: usize = 32;

pub(super) async fn serve(shared: &Shared, parts: &Parts, path: &[String]) -> ApiResult<Response<Body>> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["sd"] => Ok(json_response(200, discovery(shared, parts).await?.to_string())),
        ["federate"] => Ok(text(federate(shared).await?)),
        ["nodes", name] => Ok(text(node(shared, name).await?)),
        ["components", name] => Ok(text(component(shared, name).await?)),
        ["pods", namespace, name] => {
            let pod = shared.transport.get(&Target::object(PODS, namespace, *name)).await?;
            let none =
                || ApiError::new(Reason::NotFound, format!("pod {namespace}/{name} does not say that it has metrics"));
            let pages = shared.scraper.of(&Door::of(&pod).ok_or_else(none)?).await?;
            Ok(text(pages.now.1.to_string()))
        }
        _ => Ok(no_such_path()),
    }
}

fn text(page: String) -> Response<Body> {
    respond(200, TEXT, full(page))
}

async fn all(shared: &Shared, gvr: Gvr) -> ApiResult<Vec<Arc<Object>>> {
    let options = ListOptions { resource_version: Some(0), ..ListOptions::default() };
    Ok(shared.transport.list(&Target::all(gvr), &options).await?.items)
}

async fn doors(shared: &Shared) -> ApiResult<Vec<Door>> {
    Ok(all(shared, PODS).await?.iter().filter_map(|pod| Door::of(pod)).collect())
}

/// Everything is reached here, under the name by which the asker reached this server.
async fn discovery(shared: &Shared, parts: &Parts) -> ApiResult<Value> {
    let said = parts.headers.get(header::HOST).and_then(|h| h.to_str().ok()).map(str::to_owned);
    let host = said.or_else(|| parts.uri.authority().map(ToString::to_string));
    let host = host.ok_or_else(|| ApiError::bad_request("say which server is meant, in the header Host"))?;
    let target = |path: String, instance: String, more: Value| {
        let mut labels = json!({"__scheme__": "https", "__metrics_path__": path, "instance": instance});
        for (name, value) in more.as_object().into_iter().flatten() {
            labels[name] = value.clone();
        }
        json!({"targets": [host], "labels": labels})
    };
    let mut found = vec![target("/metrics".to_owned(), host.clone(), json!({"component": "apiserver"}))];
    for node in all(shared, NODES).await? {
        let name = &node.meta.name;
        let more = json!({"component": "node", "node": name});
        found.push(target(format!("{PREFIX}/nodes/{name}"), name.clone(), more));
    }
    for one in components(shared).await? {
        let path = format!("{PREFIX}/components/{}", one.name);
        found.push(target(path, one.name, json!({"component": one.component})));
    }
    for door in doors(shared).await? {
        let (namespace, pod) = (&door.pod.namespace, &door.pod.pod);
        let more = json!({"component": "pod", "namespace": namespace, "pod": pod, "node": door.node});
        let instance = format!("{namespace}/{pod}:{}", door.port);
        found.push(target(format!("{PREFIX}/pods/{namespace}/{pod}"), instance, more));
    }
    Ok(found.into())
}

/// All of it on one page. Who does not answer is left out, and counted.
async fn federate(shared: &Shared) -> ApiResult<String> {
    let mut page = String::new();
    let own = shared.metrics.render().map_err(|e| ApiError::internal(format!("metrics without a text form: {e}")))?;
    append(&mut page, &own, &[("component", "apiserver")]);
    let names: Vec<String> = all(shared, NODES).await?.iter().map(|node| node.meta.name.clone()).collect();
    let told = stream::iter(names).map(|name| async move {
        let told = node(shared, &name).await;
        (name, told)
    });
    let told: Vec<_> = told.buffered(AT_ONCE).collect().await;
    let mut silent = 0;
    for (name, told) in told {
        match told {
            Ok(told) => append(&mut page, &told, &[("component", "node"), ("node", &name)]),
            Err(_) => silent += 1,
        }
    }
    for one in components(shared).await? {
        match ask(&one).await {
            Ok(told) => append(&mut page, &told, &[("component", &one.component), ("instance", &one.name)]),
            Err(_) => silent += 1,
        }
    }
    let doors = doors(shared).await?;
    let asked = doors.len();
    let told = shared.scraper.of_all(doors).await;
    silent += asked - told.len();
    for (door, pages) in told {
        let labels =
            [("component", "pod"), ("namespace", &door.pod.namespace), ("pod", &door.pod.pod), ("node", &door.node)];
        append(&mut page, &pages.now.1, &labels);
    }
    let _ = writeln!(page, "minik8s_federate_silent_targets {silent}");
    Ok(page)
}

/// A component in a process of its own.
struct Component {
    /// That of its Lease.
    name: String,
    /// What it is: `kube-scheduler`.
    component: String,
    /// Where it tells what it counts.
    at: String,
    identity: String,
}

/// Components of their own process, those that lead and those that would: each says so in a Lease of its own.
async fn components(shared: &Shared) -> ApiResult<Vec<Component>> {
    let (label_selector, resource_version) = (CANDIDATE_LABEL.to_owned(), Some(0));
    let options = ListOptions { label_selector, resource_version, ..ListOptions::default() };
    let leases = shared.transport.list(&Target::in_namespace(LEASES, "kube-system"), &options).await?.items;
    let said = |lease: &Arc<Object>| {
        let at = lease.meta.annotations.get(METRICS_ANNOTATION)?.clone();
        let component = lease.meta.labels.get(CANDIDATE_LABEL)?.clone();
        Some(Component { name: lease.meta.name.clone(), component, at, identity: holder(lease)? })
    };
    Ok(leases.iter().filter_map(said).collect())
}

fn holder(lease: &Object) -> Option<String> {
    Some(lease.value().ok()?.pointer("/spec/holderIdentity")?.as_str()?.to_owned())
}

/// The component of a name, or the one that leads what is called so.
async fn component(shared: &Shared, name: &str) -> ApiResult<String> {
    let all = components(shared).await?;
    let none = || ApiError::new(Reason::NotFound, format!("no component {name:?} says that it has metrics"));
    let found = match all.iter().find(|one| one.name == name) {
        Some(one) => Some(one),
        None => {
            let lease = shared.transport.get(&Target::object(LEASES, "kube-system", name)).await.map_err(|_| none())?;
            let leads = holder(&lease);
            all.iter().find(|one| one.component == name && leads.as_ref() == Some(&one.identity))
        }
    };
    ask(found.ok_or_else(none)?).await
}

async fn ask(Component { name, at, .. }: &Component) -> ApiResult<String> {
    let failed = |why: String| ApiError::new(Reason::ServiceUnavailable, format!("{name} at {at}: {why}"));
    let asked = async {
        let io = TcpStream::connect(at).await.map_err(|e| failed(e.to_string()))?;
        fetch::get(io, at, "/metrics").await.map_err(failed)
    };
    tokio::time::timeout(ANSWER, asked).await.map_err(|_| failed(format!("no answer in {ANSWER:?}")))?
}

/// What a node has used, in the words of a kubelet's `/metrics/resource`, and what it counts besides.
async fn node(shared: &Shared, name: &str) -> ApiResult<String> {
    let late = |_| ApiError::new(Reason::ServiceUnavailable, format!("node {name:?} did not answer in {ANSWER:?}"));
    let access = shared.nodes.find(name)?;
    let both = async { tokio::join!(access.stats(), access.metrics()) };
    let (usage, more) = tokio::time::timeout(ANSWER, both).await.map_err(late)?;
    // An agent of before counts nothing.
    Ok(page_of(&usage?) + &more.unwrap_or_default())
}

fn page_of(usage: &NodeUsage) -> String {
    let mut page = String::new();
    let head = |page: &mut String, name: &str, kind: &str| {
        let _ = writeln!(page, "# TYPE {name} {kind}");
    };
    if let Some(machine) = &usage.machine {
        head(&mut page, "node_cpu_usage_seconds_total", "counter");
        let _ = writeln!(page, "node_cpu_usage_seconds_total {}", machine.cpu_ns as f64 / 1e9);
        head(&mut page, "node_memory_working_set_bytes", "gauge");
        let _ = writeln!(page, "node_memory_working_set_bytes {}", machine.memory_working_set);
    }
    type Series<'a> = (&'a str, &'a str, fn(&ContainerUsage) -> f64);
    let series: [Series<'_>; 3] = [
        ("container_cpu_usage_seconds_total", "counter", |c| c.stats.cpu_ns as f64 / 1e9),
        ("container_memory_working_set_bytes", "gauge", |c| c.stats.memory_working_set as f64),
        ("container_start_time_seconds", "gauge", |c| c.started_at as f64 / 1e3),
    ];
    for (name, kind, value) in series {
        head(&mut page, name, kind);
        for one in &usage.containers {
            let of = &one.container;
            let labels = format!("container={:?},namespace={:?},pod={:?}", of.container, of.namespace, of.pod);
            let _ = writeln!(page, "{name}{{{labels}}} {}", value(one));
        }
    }
    page
}
