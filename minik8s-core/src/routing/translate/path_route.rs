//! `PathRoute`: a path that leads to Services whatever the host.

use super::{Problem, RouteState, World, key_of, owner};
use crate::api::{PathRoute, PathRouteSpec};
use crate::routing::translate::Translation;
use crate::routing::{Backend, Hold, NewPath, PathRule, Plan, Rewrite, Rule, Speaks, Weighted};
use std::sync::Arc;
use std::time::Duration;

/// Below it, the first part of a path is a namespace, and the path is that namespace's.
const BY_NAMESPACE: &str = "/function";

pub(super) fn translate(world: &World, made: &mut Translation) {
    for route in &world.path_routes {
        let mut state = RouteState::default();
        match of_another(route) {
            Some(problem) => state.problems.push(problem),
            None => made.routes.rules.push(one(route)),
        }
        made.path_routes.insert(key_of(&route.metadata), state);
    }
}

/// Why a route must not have its path, where that belongs to another namespace.
fn of_another(route: &PathRoute) -> Option<Problem> {
    let path = &route.spec.path;
    let below = path.strip_prefix(BY_NAMESPACE).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
    let own = route.metadata.namespace.as_deref().unwrap_or_default();
    let whose = below.trim_start_matches('/').split('/').next().unwrap_or_default();
    let fine = below.starts_with('/') && !below.starts_with("//") && whose == own;
    let whose = if whose.is_empty() { "all namespaces".to_owned() } else { format!("namespace {whose}") };
    let message =
        || format!("path {path} belongs to {whose}: paths of namespace {own} begin with {BY_NAMESPACE}/{own}/");
    (!fine).then(|| Problem::new("Reserved", message()))
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

    #[test]
    fn a_path_of_another_namespace_is_refused_by_name() {
        let refused = |namespace: &str, path: &str| {
            let mut route = PathRoute::default();
            (route.metadata.namespace, route.metadata.name) = (Some(namespace.into()), Some("r".into()));
            route.spec.path = path.into();
            let world = World { path_routes: vec![Arc::new(route)], ..World::default() };
            let made = translate(&world);
            let problems = made.path_routes.into_values().flat_map(|state| state.problems).collect::<Vec<_>>();
            assert_eq!(made.routes.rules.is_empty(), !problems.is_empty(), "{path}");
            problems.first().map(|problem| problem.message.clone()).unwrap_or_default()
        };
        for fine in ["/function/a/f", "/function/a", "/functional", "/x/function/b/f", "/"] {
            assert_eq!(refused("a", fine), "", "{fine}");
        }
        let told = refused("a", "/function/b/f");
        assert_eq!(told, "path /function/b/f belongs to namespace b: paths of namespace a begin with /function/a/");
        for path in ["/function", "/function/", "/function//a", "/function/b", "/function/ab/f/x"] {
            assert!(refused("a", path).contains("belongs to"), "{path}");
        }
    }
}
