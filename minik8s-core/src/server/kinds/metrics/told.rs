//! `custom.metrics.k8s.io` and `external.metrics.k8s.io`: numbers that pods tell themselves, and those of an adapter.
//!
//! These groups have no resources of their own: what is asked about stands where others have a resource, and a metric
//! where others have a sub-resource. One kind of each group and version answers to all of them, and to its own name with
//! what there is to be asked for.

use super::super::cells::NAME;
use super::super::util::names;
use super::known;
use crate::api::{ApiError, ApiResult, Gvr, Object, Reason, Selector, Target};
use crate::client::{ListOptions, Transport};
use crate::clock::rfc3339;
use crate::server::scrape::{Door, Pages, Sample, samples};
use crate::server::{ANYTHING, ApiServer, Column, Computed, Kind, KindNames};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const CUSTOM: (&str, &str) = ("custom.metrics.k8s.io", "v1beta2");
/// The older words for the same.
const CUSTOM_BEFORE: (&str, &str) = ("custom.metrics.k8s.io", "v1beta1");
const EXTERNAL: (&str, &str) = ("external.metrics.k8s.io", "v1beta1");
const PODS: Gvr = Gvr::new("", "v1", "pods");
/// A metric of this name that pods do not tell is how fast the one without it grows.
pub(super) const RATE: &str = "_per_second";
/// Over less, a rate says nothing.
const SHORTEST: f64 = 0.2;

static COLUMNS: [Column; 1] = [NAME];

fn kind(of: (&'static str, &'static str), name: &'static str) -> KindNames {
    KindNames { singular: "".into(), ..names(Gvr::new(of.0, of.1, ANYTHING), name, &[], false, true) }
}

pub(crate) struct CustomMetricKind(KindNames);

impl CustomMetricKind {
    pub(crate) fn new() -> Self {
        Self(kind(CUSTOM, "MetricValue"))
    }

    pub(crate) fn v1beta1() -> Self {
        Self(kind(CUSTOM_BEFORE, "MetricValue"))
    }

    fn is_old(&self) -> bool {
        self.0.gvr.version == CUSTOM_BEFORE.1
    }
}

impl Kind for CustomMetricKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        match self.is_old() {
            true => "io.k8s.metrics.pkg.apis.custom_metrics.v1beta1.MetricValue",
            false => "io.k8s.metrics.pkg.apis.custom_metrics.v1beta2.MetricValue",
        }
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn computed(&self) -> Option<&dyn Computed> {
        Some(self)
    }
}

#[async_trait]
impl Computed for CustomMetricKind {
    async fn objects(&self, server: &ApiServer, target: &Target, options: &ListOptions) -> ApiResult<Vec<Value>> {
        if target.gvr.resource == ANYTHING {
            let mut names = known::of_pods(server).await?;
            match known::of_adapter(server, CUSTOM).await {
                Ok(more) => names.extend(more),
                Err(error) => tracing::warn!(%error, "what the metrics adapter knows is left out"),
            }
            return Ok(known::objects(names, "MetricValue", (CUSTOM.0, self.0.gvr.version.as_ref())));
        }
        let mut values = values(server, target, options).await?;
        if self.is_old() {
            values.iter_mut().for_each(in_older_words);
        }
        Ok(values)
    }
}

/// A metric as v1beta1 has it: its name and selector are fields of the value.
fn in_older_words(value: &mut Value) {
    value["apiVersion"] = format!("{}/{}", CUSTOM_BEFORE.0, CUSTOM_BEFORE.1).into();
    let Some(fields) = value.as_object_mut() else { return };
    let Some(mut metric) = fields.remove("metric") else { return };
    fields.insert("metricName".to_owned(), metric["name"].take());
    if !metric["selector"].is_null() {
        fields.insert("selector".to_owned(), metric["selector"].take());
    }
}

async fn values(server: &ApiServer, target: &Target, options: &ListOptions) -> ApiResult<Vec<Value>> {
    let missing = || ApiError::bad_request("say of what and which: …/namespaces/NS/pods/*/METRIC");
    let (namespace, name) = target.namespace.as_deref().zip(target.name.as_deref()).ok_or_else(missing)?;
    let asked = target.subresource.as_deref().ok_or_else(missing)?;
    let (metric, series) = asked.split_once('?').unwrap_or((asked, ""));
    if target.gvr.resource == "pods" {
        let told = of_pods(server, namespace, name, (metric, series), options).await?;
        if !told.is_empty() || server.adapter.is_none() {
            return if told.is_empty() { Err(untold(metric)) } else { Ok(told) };
        }
    }
    let adapter = server.adapter.as_ref().ok_or_else(|| no_adapter(&target.gvr.resource))?;
    let (group, version) = CUSTOM;
    let path = format!("/apis/{group}/{version}/namespaces/{namespace}/{}/{name}/{metric}", target.gvr.resource);
    let query = [("labelSelector", options.label_selector.as_str()), ("metricLabelSelector", series)];
    Ok(typed(adapter.items(&path, &query).await?, "MetricValue", CUSTOM))
}

fn untold(metric: &str) -> ApiError {
    let why = format!(
        "no pod tells the metric {metric:?}: annotate pods with prometheus.io/scrape: \"true\" and prometheus.io/port, or \
         start the API server with --metrics-adapter"
    );
    ApiError::new(Reason::NotFound, why)
}

fn no_adapter(what: &str) -> ApiError {
    let why = format!("there is no source of metrics of {what}: start the API server with --metrics-adapter URL");
    ApiError::new(Reason::NotFound, why)
}

/// Items as they are kept here: with their type, first.
fn typed(mut items: Vec<Value>, kind: &str, of: (&str, &str)) -> Vec<Value> {
    for item in &mut items {
        item["kind"] = kind.into();
        item["apiVersion"] = format!("{}/{}", of.0, of.1).into();
    }
    items
}

async fn of_pods(
    server: &ApiServer,
    namespace: &str,
    name: &str,
    (metric, series): (&str, &str),
    options: &ListOptions,
) -> ApiResult<Vec<Value>> {
    let series = Selector::parse(series)?;
    let pods = if name == "*" {
        let label_selector = options.label_selector.clone();
        let options = ListOptions { label_selector, resource_version: Some(0), ..ListOptions::default() };
        server.list(&Target::in_namespace(PODS, namespace), &options).await?.items
    } else {
        vec![server.get(&Target::object(PODS, namespace, name)).await?]
    };
    let doors: Vec<Door> = pods.iter().filter_map(|pod: &std::sync::Arc<Object>| Door::of(pod)).collect();
    let told = server.scraper.of_all(doors).await;
    let now = rfc3339(server.clock().now());
    let one = |(door, pages): (Door, Pages)| {
        let value = value(&pages, metric, &series)?;
        Some(json!({
            "kind": "MetricValue", "apiVersion": format!("{}/{}", CUSTOM.0, CUSTOM.1),
            "describedObject": {"kind": "Pod", "apiVersion": "v1", "namespace": namespace, "name": door.pod.pod},
            "metric": {"name": metric}, "timestamp": now, "value": quantity(value),
        }))
    };
    Ok(told.into_iter().filter_map(one).collect())
}

/// The sum of a metric's series on a page, or how fast it grows from the page before to this one.
fn value(pages: &Pages, metric: &str, series: &Selector) -> Option<f64> {
    if let Some(found) = sum(&pages.now.1, metric, series) {
        return Some(found);
    }
    let base = metric.strip_suffix(RATE)?;
    let (before, past) = pages.before.as_ref()?;
    let seconds = pages.now.0.duration_since(*before).as_secs_f64();
    if seconds < SHORTEST {
        return None;
    }
    let grown = |name: &str| Some((sum(&pages.now.1, name, series)? - sum(past, name, series)?).max(0.0));
    grown(&format!("{base}_total")).or_else(|| grown(base)).map(|grown| grown / seconds)
}

fn sum(page: &str, metric: &str, series: &Selector) -> Option<f64> {
    let fits = |sample: &Sample<'_>| {
        let labels = || sample.labels.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect::<BTreeMap<_, _>>();
        sample.name == metric && sample.value.is_finite() && (series.is_everything() || series.matches(&labels()))
    };
    samples(page).filter(fits).map(|s| s.value).reduce(|a, b| a + b)
}

fn quantity(value: f64) -> String {
    crate::api::Quantity::from_milli((value * 1000.0).round() as i64).to_string()
}

pub(crate) struct ExternalMetricKind(KindNames);

impl ExternalMetricKind {
    pub(crate) fn new() -> Self {
        Self(kind(EXTERNAL, "ExternalMetricValue"))
    }
}

impl Kind for ExternalMetricKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.metrics.pkg.apis.external_metrics.v1beta1.ExternalMetricValue"
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn computed(&self) -> Option<&dyn Computed> {
        Some(self)
    }
}

#[async_trait]
impl Computed for ExternalMetricKind {
    async fn objects(&self, server: &ApiServer, target: &Target, options: &ListOptions) -> ApiResult<Vec<Value>> {
        let metric = &target.gvr.resource;
        if metric == ANYTHING {
            return Ok(known::objects(known::of_adapter(server, EXTERNAL).await?, "ExternalMetricValue", EXTERNAL));
        }
        let adapter = server.adapter.as_ref().ok_or_else(|| no_adapter("the world outside"))?;
        let namespace = target.namespace.as_deref().unwrap_or_default();
        let path = format!("/apis/{}/{}/namespaces/{namespace}/{metric}", EXTERNAL.0, EXTERNAL.1);
        let found = adapter.items(&path, &[("labelSelector", options.label_selector.as_str())]).await?;
        Ok(typed(found, "ExternalMetricValue", EXTERNAL))
    }
}
