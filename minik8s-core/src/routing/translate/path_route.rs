//! `PathRoute`: a path that leads to Services whatever the host.

use super::{World, owner};
use crate::api::{PathRoute, PathRouteSpec};
use crate::routing::translate::Translation;
use crate::routing::{Backend, Hold, NewPath, PathRule, Plan, Rewrite, Rule, Speaks, Weighted};
use std::sync::Arc;
use std::time::Duration;

pub(super) fn translate(world: &World, made: &mut Translation) {
    made.routes.rules.extend(world.path_routes.iter().map(|route| one(route)));
}

fn one(route: &PathRoute) -> Rule {
    let owner = owner("PathRoute", &route.metadata);
    let spec = &route.spec;
    let plan = Plan {
        backends: spec.backends.iter().map(|b| weighted(&owner.namespace, b)).collect(),
        rewrite: Rewrite {
            host: None,
            path: (!spec.rewrite.is_empty()).then(|| NewPath::Prefix(spec.rewrite.clone())),
        },
        timeout: seconds(spec.timeout_seconds),
        try_timeout: seconds(spec.timeout_seconds),
        max_body: u64::try_from(spec.max_body_bytes).ok().filter(|n| *n > 0),
        hold: hold(spec),
        ..Plan::default()
    };
    Rule { owner, path: PathRule::prefix(&spec.path), plan: Arc::new(plan), ..Rule::default() }
}

/// A Service that is not there yet is one without endpoints: who waits may as well wait for it.
fn weighted(namespace: &str, backend: &crate::api::PathBackend) -> Weighted {
    let service = Backend::Service {
        namespace: namespace.to_owned(),
        name: backend.service.clone(),
        port: u16::try_from(backend.port).unwrap_or(0),
        speaks: Speaks::Http,
    };
    Weighted { weight: u32::try_from(backend.weight).unwrap_or(0), ..Weighted::whole(service) }
}

fn seconds(seconds: i64) -> Option<Duration> {
    u64::try_from(seconds).ok().filter(|n| *n > 0).map(Duration::from_secs)
}

fn hold(spec: &PathRouteSpec) -> Option<Hold> {
    let hold = spec.hold.as_ref()?;
    Some(Hold {
        queue: usize::try_from(hold.queue).unwrap_or(0),
        patience: seconds(hold.patience_seconds).unwrap_or_default(),
        concurrency: usize::try_from(hold.concurrency).ok().filter(|n| *n > 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{Host, translate};
    use serde_json::json;

    #[test]
    fn a_path_leads_to_services_by_weight_and_holds_what_nobody_can_take() {
        let route: PathRoute = serde_json::from_value(json!({"metadata": {"name": "f", "namespace": "ns"}, "spec": {
            "path": "/function/ns/f", "rewrite": "/", "timeoutSeconds": 30, "maxBodyBytes": 1000,
            "backends": [{"service": "f-1", "port": 80, "weight": 90}, {"service": "f-2", "port": 80, "weight": 10}],
            "hold": {"queue": 5, "patienceSeconds": 30, "concurrency": 2}}}))
        .unwrap();
        let world = World { path_routes: vec![Arc::new(route)], ..World::default() };
        let rules = translate(&world).routes.rules;
        let [rule] = &rules[..] else { panic!("{rules:?}") };
        assert_eq!((&rule.host, &rule.path), (&Host::Any, &PathRule::Prefix("/function/ns/f".into())));
        assert_eq!(rule.plan.backends.iter().map(|b| b.weight).collect::<Vec<_>>(), [90, 10]);
        let hold = Hold { queue: 5, patience: Duration::from_secs(30), concurrency: Some(2) };
        assert_eq!((rule.plan.hold, rule.plan.max_body), (Some(hold), Some(1000)));
        assert_eq!(rule.plan.rewrite.path, Some(NewPath::Prefix("/".into())));
    }
}
