//! What is done with a request, made ready: headers parsed, weights turned into a sequence, backends looked up.

use super::super::backend::{Cluster, Clusters};
use super::super::metrics::{Counted, GatewayMetrics, RouteCounters};
use super::super::split::Split;
use http::{HeaderMap, HeaderName, HeaderValue};
use minik8s_core::routing::{
    Backend, HeaderEdits, Hold, Owner, Plan as Wanted, Redirect, Retry, Rewrite, Speaks, Sticky,
};
use std::sync::Arc;
use std::time::Duration;

/// What is done with the requests of a rule.
pub(in crate::gateway) struct Plan {
    pub(in crate::gateway) request_headers: Edits,
    pub(in crate::gateway) response_headers: Edits,
    pub(in crate::gateway) redirect: Option<Redirect>,
    pub(in crate::gateway) rewrite: Rewrite,
    pub(in crate::gateway) mirrors: Vec<(Target, Split)>,
    pub(in crate::gateway) targets: Vec<Target>,
    pub(in crate::gateway) split: Split,
    pub(in crate::gateway) timeout: Option<Duration>,
    pub(in crate::gateway) try_timeout: Option<Duration>,
    pub(in crate::gateway) retry: Retry,
    pub(in crate::gateway) sticky: Option<Sticky>,
    pub(in crate::gateway) max_body: Option<u64>,
    pub(in crate::gateway) hold: Option<Hold>,
    pub(in crate::gateway) counters: RouteCounters,
}

/// Where requests go.
pub(in crate::gateway) struct Target {
    pub(in crate::gateway) to: To,
    pub(in crate::gateway) weight: u32,
    pub(in crate::gateway) request_headers: Edits,
    pub(in crate::gateway) response_headers: Edits,
    pub(in crate::gateway) counted: Arc<Counted>,
}

/// A backend, or the reason why there is none.
pub(in crate::gateway) enum To {
    Cluster { cluster: Arc<Cluster>, speaks: Speaks },
    Nowhere { status: u16, why: String },
}

impl Target {
    fn new(backend: &Backend, clusters: &mut Clusters, counted: impl Fn(&str) -> Arc<Counted>) -> Self {
        let mut service = String::new();
        let to = match backend {
            Backend::Service { namespace, name, port, speaks } => {
                service = format!("{namespace}/{name}");
                To::Cluster { cluster: clusters.get(namespace, name, *port), speaks: *speaks }
            }
            Backend::Broken { status, why } => To::Nowhere { status: *status, why: why.clone() },
        };
        let (request_headers, response_headers) = (Edits::default(), Edits::default());
        Self { to, weight: 1, request_headers, response_headers, counted: counted(&service) }
    }
}

impl Plan {
    pub(super) fn new(wanted: &Wanted, clusters: &mut Clusters, owner: &Owner, metrics: &GatewayMetrics) -> Self {
        let counted = |service: &str| metrics.counted(owner, service);
        let targets: Vec<Target> = wanted
            .backends
            .iter()
            .map(|weighted| Target {
                weight: weighted.weight,
                request_headers: Edits::new(&weighted.request_headers),
                response_headers: Edits::new(&weighted.response_headers),
                ..Target::new(&weighted.backend, clusters, counted)
            })
            .collect();
        let share = |(some, all): (u32, u32)| Split::new(&[some, all.saturating_sub(some)]);
        let mirrors =
            wanted.mirrors.iter().map(|m| (Target::new(&m.backend, clusters, |_| Arc::default()), share(m.share)));
        Self {
            request_headers: Edits::new(&wanted.request_headers),
            response_headers: Edits::new(&wanted.response_headers),
            redirect: wanted.redirect.clone(),
            rewrite: wanted.rewrite.clone(),
            mirrors: mirrors.collect(),
            split: Split::new(&targets.iter().map(|target| target.weight).collect::<Vec<_>>()),
            targets,
            timeout: wanted.timeout,
            try_timeout: wanted.try_timeout,
            retry: wanted.retry.clone(),
            sticky: wanted.sticky.clone(),
            max_body: wanted.max_body,
            hold: wanted.hold,
            counters: metrics.of(owner),
        }
    }
}

/// Changes of headers. What is no header was refused when it was written, and is left out here.
#[derive(Default)]
pub(in crate::gateway) struct Edits {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

impl Edits {
    fn new(edits: &HeaderEdits) -> Self {
        let name = |name: &String| HeaderName::from_bytes(name.as_bytes()).ok();
        let pairs = |list: &[(String, String)]| {
            list.iter().filter_map(|(n, v)| Some((name(n)?, HeaderValue::from_str(v).ok()?))).collect()
        };
        let remove = edits.remove.iter().filter_map(name).collect();
        Self { set: pairs(&edits.set), add: pairs(&edits.add), remove }
    }

    pub(in crate::gateway) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}
