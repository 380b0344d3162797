//! What a gateway counts. Each route's counters are looked up when the table is compiled, so that a request costs no
//! more than adding to them.

use minik8s_core::routing::{Owner, Tally};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabels {
    kind: &'static str,
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AnswerLabels {
    kind: &'static str,
    namespace: String,
    name: String,
    code: &'static str,
}

/// `wait` until there was an endpoint, `first_byte` from there until the answer began.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WakeLabels {
    part: &'static str,
}

/// What a gateway counts. Cheap to clone.
#[derive(Clone)]
pub struct GatewayMetrics {
    answers: Family<AnswerLabels, Counter>,
    times: Family<RouteLabels, Histogram>,
    wakes: Family<WakeLabels, Histogram>,
    pub(super) retries: Counter,
    pub(super) ejections: Counter,
    pub(super) connections: Gauge,
    pub(super) refused: Counter,
    tallies: Arc<Mutex<HashMap<Key, Arc<Counted>>>>,
    /// Routes that are counted, and who still counts.
    routes: Arc<Mutex<HashMap<RouteLabels, Arc<()>>>>,
}

/// Kind, namespace and name of a route, and the Service.
type Key = (&'static str, String, String, String);

/// What was counted of one backend of a route.
#[derive(Default)]
pub(super) struct Counted(Mutex<Tally>);

impl Counted {
    pub(super) fn answered(&self, failed: bool, took: Duration) {
        let mut tally = self.0.lock();
        tally.requests += 1;
        tally.errors += u64::from(failed);
        let class = Tally::place(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        tally.times[class] += 1;
    }
}

impl Counted {
    /// An answer that looked well at its beginning was none.
    pub(super) fn broke(&self) {
        self.0.lock().errors += 1;
    }
}

impl Default for GatewayMetrics {
    fn default() -> Self {
        Self {
            answers: Family::default(),
            times: Family::new_with_constructor(histogram),
            wakes: Family::new_with_constructor(histogram),
            retries: Counter::default(),
            ejections: Counter::default(),
            connections: Gauge::default(),
            refused: Counter::default(),
            tallies: Arc::default(),
            routes: Arc::default(),
        }
    }
}

fn histogram() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl GatewayMetrics {
    /// Adds them to a page.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("gateway_requests", "Requests by route and class of the answer", self.answers.clone());
        registry.register("gateway_request_duration_seconds", "Time until the answer began", self.times.clone());
        let help = "Requests that came where no endpoint was and waited for one, in their parts";
        registry.register("gateway_woken_seconds", help, self.wakes.clone());
        registry.register("gateway_retries", "Requests that were sent to another endpoint", self.retries.clone());
        registry.register("gateway_ejections", "Endpoints that were left out for a while", self.ejections.clone());
        registry.register("gateway_connections", "Connections of clients", self.connections.clone());
        registry.register("gateway_unroutable", "Requests for which there is no route", self.refused.clone());
    }

    /// A request has waited for an endpoint where there was none, and then for the beginning of its answer.
    pub(super) fn woke(&self, waited: Duration, first_byte: Duration) {
        for (part, took) in [("wait", waited), ("first_byte", first_byte)] {
            self.wakes.get_or_create(&WakeLabels { part }).observe(took.as_secs_f64());
        }
    }

    /// What is counted of a backend of a route.
    pub(super) fn counted(&self, owner: &Owner, service: &str) -> Arc<Counted> {
        let key = (owner.kind, owner.namespace.clone(), owner.name.clone(), service.to_owned());
        self.tallies.lock().entry(key).or_default().clone()
    }

    /// Forgets routes that are no more, and backends that none leads to.
    pub(super) fn forget_unused(&self) {
        self.tallies.lock().retain(|_, counted| Arc::strong_count(counted) > 1);
        self.routes.lock().retain(|route, counting| {
            let used = Arc::strong_count(counting) > 1;
            if !used {
                self.times.remove(route);
                let RouteLabels { kind, namespace, name } = route;
                for code in CLASSES {
                    let (namespace, name) = (namespace.clone(), name.clone());
                    self.answers.remove(&AnswerLabels { kind, namespace, name, code });
                }
            }
            used
        });
    }

    /// What was counted of the backends of an `HTTPRoute`.
    pub(super) fn tally(&self, route: &minik8s_core::routing::Key) -> BTreeMap<String, Tally> {
        let tallies = self.tallies.lock();
        let of = |(kind, namespace, name, _): &Key| (*kind, namespace, name) == ("HTTPRoute", &route.0, &route.1);
        let found = tallies.iter().filter(|(key, _)| of(key));
        found.map(|(key, counted)| (key.3.clone(), counted.0.lock().clone())).collect()
    }

    pub(super) fn of(&self, owner: &Owner) -> RouteCounters {
        let (kind, namespace, name) = (owner.kind, owner.namespace.clone(), owner.name.clone());
        let classes = CLASSES.map(|code| {
            let labels = AnswerLabels { kind, namespace: namespace.clone(), name: name.clone(), code };
            self.answers.get_or_create_owned(&labels)
        });
        let labels = RouteLabels { kind, namespace, name };
        let time = self.times.get_or_create_owned(&labels);
        let counting = self.routes.lock().entry(labels).or_default().clone();
        RouteCounters { classes, time, _counting: counting }
    }
}

/// The counters of one route.
#[derive(Clone)]
pub(super) struct RouteCounters {
    classes: [Counter; 5],
    time: Histogram,
    /// Keeps the route among those that are counted.
    _counting: Arc<()>,
}

impl RouteCounters {
    pub(super) fn answered(&self, status: http::StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.classes[class].inc();
        self.time.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_that_are_no_more_leave_the_page() {
        let (metrics, mut page) = (GatewayMetrics::default(), Registry::default());
        metrics.register(&mut page);
        let owner = |name: &str| Owner { name: name.into(), kind: "Test", ..Owner::default() };
        let (gone, stays) = (metrics.of(&owner("gone")), metrics.of(&owner("stays")));
        gone.answered(http::StatusCode::OK, Duration::ZERO);
        stays.answered(http::StatusCode::OK, Duration::ZERO);
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &page).unwrap();
            text
        };
        metrics.forget_unused();
        assert!(text().contains("name=\"gone\""));
        drop(gone);
        metrics.forget_unused();
        assert!(!text().contains("name=\"gone\"") && text().contains("name=\"stays\""), "{}", text());
    }
}
