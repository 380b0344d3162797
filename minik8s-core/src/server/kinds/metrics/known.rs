//! Names of metrics, for discovery: those that pods tell now, and those that an adapter says it knows.

use super::super::util::text;
use crate::api::{ApiResult, Gvr, Object, Target};
use crate::client::{ListOptions, Transport};
use crate::server::ApiServer;
use crate::server::scrape::{Door, samples};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

const PODS: Gvr = Gvr::new("", "v1", "pods");
/// So many pods are asked at most, and one of those that have the same owner.
const ASKED: usize = 64;
/// How many of them at a time.
const AT_ONCE: usize = 32;
/// Who has not answered by then is left out: discovery waits for nobody.
const PATIENCE: Duration = Duration::from_secs(2);
/// No more are named.
const NAMES: usize = 1_000;
/// How a counter ends, whose rate is a metric too.
const TOTAL: &str = "_total";

/// The names of this group and version, as objects of a kind: `pods/http_requests`, or the bare metric.
pub(super) fn objects(names: BTreeSet<String>, kind: &str, (group, version): (&str, &str)) -> Vec<Value> {
    let one =
        |name: String| json!({"kind": kind, "apiVersion": format!("{group}/{version}"), "metadata": {"name": name}});
    names.into_iter().take(NAMES).map(one).collect()
}

/// What pods tell.
pub(super) async fn of_pods(server: &ApiServer) -> ApiResult<BTreeSet<String>> {
    let options = ListOptions { resource_version: Some(0), ..ListOptions::default() };
    let pods = server.list(&Target::all(PODS), &options).await?.items;
    let ask = |door: Door| async move { server.scraper.of(&door).await.ok() };
    let told = stream::iter(unlike(&pods)).map(ask).buffer_unordered(AT_ONCE);
    let told = told.take_until(tokio::time::sleep(PATIENCE)).filter_map(std::future::ready);
    Ok(told.fold(BTreeSet::new(), |names, pages| std::future::ready(with(names, &pages.now.1))).await)
}

/// The doors of pods that have one, no two of the same owner.
fn unlike(pods: &[Arc<Object>]) -> Vec<Door> {
    let mut seen = HashSet::new();
    let owner =
        |pod: &Object| pod.meta.owner_references.iter().find(|o| o.controller == Some(true)).map(|o| o.uid.clone());
    let doors =
        pods.iter().filter_map(|pod| Some((owner(pod).unwrap_or_else(|| pod.meta.uid.clone()), Door::of(pod)?)));
    doors.filter(|(kin, _)| seen.insert(kin.clone())).map(|(_, door)| door).take(ASKED).collect()
}

/// The names on a page, and what follows from counters.
fn with(mut names: BTreeSet<String>, page: &str) -> BTreeSet<String> {
    for sample in samples(page) {
        if names.len() >= NAMES {
            break;
        }
        if let Some(base) = sample.name.strip_suffix(TOTAL) {
            names.insert(format!("pods/{base}{}", super::told::RATE));
        }
        names.insert(format!("pods/{}", sample.name));
    }
    names
}

/// What an adapter says it knows of a group and version; nothing where there is no adapter.
pub(super) async fn of_adapter(server: &ApiServer, (group, version): (&str, &str)) -> ApiResult<BTreeSet<String>> {
    let Some(adapter) = &server.adapter else { return Ok(BTreeSet::new()) };
    let said = adapter.list(&format!("/apis/{group}/{version}"), &[], "resources").await?;
    Ok(said.iter().map(|resource| text(resource, "/name").to_owned()).filter(|name| !name.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn pod(name: &str, owner: Option<&str>) -> Arc<Object> {
        let owners =
            owner.map(|uid| json!([{"apiVersion": "v1", "kind": "K", "name": "o", "uid": uid, "controller": true}]));
        let value = json!({"kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": name, "uid": name, "resourceVersion": "1", "ownerReferences": owners.unwrap_or(json!([])),
                "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "80"}},
            "spec": {"nodeName": "n", "containers": []}, "status": {"phase": "Running"}});
        Arc::new(Object::from_json(PODS, Bytes::from(value.to_string())).unwrap())
    }

    #[test]
    fn of_pods_that_are_alike_one_is_asked_and_never_too_many() {
        let names = |pods: &[Arc<Object>]| unlike(pods).into_iter().map(|door| door.pod.pod).collect::<Vec<_>>();
        let pods = [pod("a", Some("x")), pod("b", Some("x")), pod("c", None), pod("d", None), pod("e", Some("y"))];
        assert_eq!(names(&pods), ["a", "c", "d", "e"]);
        let many: Vec<_> = (0..200).map(|n| pod(&n.to_string(), None)).collect();
        assert_eq!(names(&many).len(), ASKED);
    }

    #[test]
    fn names_of_pages_are_bounded_and_rates_among_them() {
        let page = "# HELP hits_total h\nhits_total{a=\"b\"} 3\nhits_total{a=\"c\"} 4\nwaiting 1\nno line\n";
        let names = with(BTreeSet::new(), page);
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["pods/hits_per_second", "pods/hits_total", "pods/waiting"]);
        let long: String = (0..3_000).map(|n| format!("m{n} 1\n")).collect();
        let names = with(BTreeSet::new(), &long);
        assert_eq!(objects(names, "MetricValue", ("g", "v")).len(), NAMES);
    }
}
