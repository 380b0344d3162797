//! What the server counts. There are no globals: whoever serves `/metrics` renders this handle.

use crate::api::{ApiError, Target};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;

/// What requests are counted by.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    group: String,
    resource: String,
    subresource: String,
    code: u32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResourceLabels {
    group: String,
    resource: String,
}

/// Counters of the API server. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    requests: Family<RequestLabels, Counter>,
    watches: Family<ResourceLabels, Gauge>,
    cut: Family<ResourceLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let (requests, watches, cut) = (Family::default(), Family::default(), Family::default());
        registry.register("apiserver_request", "Requests by verb, resource and code", Clone::clone(&requests));
        registry.register("apiserver_longrunning_requests", "Watches that run now", Clone::clone(&watches));
        registry.register("apiserver_watch_cut", "Watches that fell too far behind and were cut", Clone::clone(&cut));
        Self { registry: Arc::new(Mutex::new(registry)), requests, watches, cut }
    }
}

impl Metrics {
    /// Adds further metrics to the same page; `add` must not block.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock());
    }

    /// The page in the OpenMetrics text format.
    ///
    /// # Errors
    /// Where a metric cannot be written as text.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry.lock())?;
        Ok(page)
    }

    /// Counts a request.
    pub(crate) fn request(&self, verb: &'static str, target: &Target, code: u16) {
        let labels = RequestLabels {
            verb,
            group: target.gvr.group.to_string(),
            resource: target.gvr.resource.to_string(),
            subresource: target.subresource.clone().unwrap_or_default(),
            code: u32::from(code),
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts a running watch until the guard goes.
    pub(crate) fn watch(&self, target: &Target) -> WatchGuard {
        let labels = ResourceLabels { group: target.gvr.group.to_string(), resource: target.gvr.resource.to_string() };
        self.watches.get_or_create(&labels).inc();
        WatchGuard { metrics: self.clone(), labels }
    }
}

/// A running watch.
pub(crate) struct WatchGuard {
    metrics: Metrics,
    labels: ResourceLabels,
}

impl WatchGuard {
    /// Counts the watch's error.
    pub(crate) fn failed(&self, error: &ApiError) {
        if error.is_gone() {
            self.metrics.cut.get_or_create(&self.labels).inc();
        }
    }
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.metrics.watches.get_or_create(&self.labels).dec();
    }
}
