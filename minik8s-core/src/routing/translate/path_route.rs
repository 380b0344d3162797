//! `PathRoute`: a path that leads to Services whatever the host.

use super::{Problem, RouteState, World, key_of, owner};
use crate::api::{FOR_ALL_NAMESPACES, PathBackend, PathRoute, PathRouteSpec};
use crate::routing::translate::Translation;
use crate::routing::{Backend, Hold, NewPath, PathRule, Plan, Rewrite, Rule, Speaks, Wanted, Weighted};
use k8s_openapi::api::core::v1::Service;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Below it, the first part of a path is a namespace, and the path is that namespace's.
const BY_NAMESPACE: &str = "/function";
/// Where Services of the cluster itself are.
const SYSTEM: &str = "kube-system";
/// Paths that are that namespace's.
const OF_SYSTEM: [&str; 2] = ["/invocation", "/trigger"];
/// What a `Prefer` says of a request that need not be waited for (RFC 7240).
const RESPOND_ASYNC: &str = r"(?i)(.*[,\s])?respond-async\s*([,;].*)?";
/// How requests that need not be waited for wait until they are taken.
const DEFERRED: Hold = Hold { queue: 1000, patience: Duration::from_secs(15), concurrency: None };
/// And how long for the word that they are.
const TAKING: Duration = Duration::from_secs(30);

pub(super) fn translate(world: &World, made: &mut Translation) {
    let open: BTreeSet<&str> = world.services.iter().filter_map(|service| for_all(service)).collect();
    for route in &world.path_routes {
        let mut state = RouteState::default();
        if let Some(problem) = of_another(route) {
            state.problems.push(problem);
        } else {
            let later = deferred(route, &open);
            made.routes.rules.push(one(route));
            match later {
                Some(Ok(rule)) => made.routes.rules.push(rule),
                // Its requests are waited for then.
                Some(Err(problem)) => state.problems.push(problem),
                None => {}
            }
        }
        made.path_routes.insert(key_of(&route.metadata), state);
    }
}

/// Why a route must not have its path, where that belongs to another namespace.
fn of_another(route: &PathRoute) -> Option<Problem> {
    let path = &route.spec.path;
    let below = |prefix| path.strip_prefix(prefix).filter(|rest: &&str| rest.is_empty() || rest.starts_with('/'));
    let own = route.metadata.namespace.as_deref().unwrap_or_default();
    if own != SYSTEM && OF_SYSTEM.into_iter().any(|prefix| below(prefix).is_some()) {
        return Some(Problem::new("Reserved", format!("path {path} belongs to namespace {SYSTEM}")));
    }
    let below = below(BY_NAMESPACE)?;
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

/// The name of a Service that requests of all namespaces' routes may be led to.
fn for_all(service: &Service) -> Option<&str> {
    let meta = &service.metadata;
    let says = meta.labels.as_ref()?.get(FOR_ALL_NAMESPACES)? == "true";
    (says && meta.namespace.as_deref() == Some(SYSTEM)).then_some(meta.name.as_deref()?)
}

/// What is done with requests that need not be waited for, where they may be led there.
fn deferred(route: &PathRoute, open: &BTreeSet<&str>) -> Option<Result<Rule, Problem>> {
    let spec = &route.spec;
    let backend = PathBackend { weight: 1, ..spec.deferred.clone()? };
    if !open.contains(backend.service.as_str()) {
        let why = format!(
            "deferred: no Service {SYSTEM}/{} takes requests of other namespaces (label {FOR_ALL_NAMESPACES})",
            backend.service
        );
        return Some(Err(Problem::new("RefNotPermitted", why)));
    }
    let plan = Plan {
        backends: vec![weighted(SYSTEM, &backend)],
        max_body: u64::try_from(spec.max_body_bytes).ok().filter(|n| *n > 0),
        timeout: Some(TAKING),
        try_timeout: Some(TAKING),
        hold: Some(DEFERRED),
        ..Plan::default()
    };
    Some(Ok(Rule {
        owner: owner("PathRoute", &route.metadata),
        place: (0, 1),
        path: PathRule::Exact(spec.path.clone()),
        method: Some("POST".to_owned()),
        headers: vec![("prefer".to_owned(), Wanted::Regex(RESPOND_ASYNC.to_owned()))],
        plan: Arc::new(plan),
        ..Rule::default()
    }))
}

/// A Service that is not there yet is one without endpoints: who waits may as well wait for it.
fn weighted(namespace: &str, backend: &PathBackend) -> Weighted {
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

    fn service(namespace: &str, name: &str, label: Option<&str>) -> Arc<Service> {
        let labels = label.map(|value| json!({FOR_ALL_NAMESPACES: value}));
        let meta = json!({"namespace": namespace, "name": name, "labels": labels});
        Arc::new(serde_json::from_value(json!({"metadata": meta})).unwrap())
    }

    #[test]
    fn only_services_that_say_so_are_led_to_from_other_namespaces() {
        let services = vec![
            service(SYSTEM, "open", Some("true")),
            service(SYSTEM, "dns", None),
            service(SYSTEM, "shut", Some("false")),
            service("ns", "own", Some("true")),
        ];
        for (name, fine) in [("open", true), ("dns", false), ("shut", false), ("own", false), ("none", false)] {
            let route: PathRoute =
                serde_json::from_value(json!({"metadata": {"name": "f", "namespace": "ns"}, "spec": {
                "path": "/function/ns/f", "backends": [{"service": "f-1", "port": 80, "weight": 1}],
                "deferred": {"service": name, "port": 80}}}))
                .unwrap();
            let made = translate(&World {
                path_routes: vec![Arc::new(route)],
                services: services.clone(),
                ..World::default()
            });
            assert_eq!(made.routes.rules.len(), if fine { 2 } else { 1 }, "{name}: what is waited for is served");
            let problems = &made.path_routes[&("ns".to_owned(), "f".to_owned())].problems;
            let told = problems.iter().map(|p| (p.reason, p.message.contains(&format!("kube-system/{name} ")))).next();
            assert_eq!(told, (!fine).then_some(("RefNotPermitted", true)), "{name}");
        }
    }

    #[test]
    fn what_need_not_be_waited_for_goes_to_the_cluster_itself() {
        let route: PathRoute = serde_json::from_value(json!({"metadata": {"name": "f", "namespace": "ns"}, "spec": {
            "path": "/function/ns/f", "maxBodyBytes": 7, "backends": [{"service": "f-1", "port": 80, "weight": 1}],
            "deferred": {"service": "later", "port": 80}}}))
        .unwrap();
        let services = vec![service(SYSTEM, "later", Some("true"))];
        let rules = translate(&World { path_routes: vec![Arc::new(route)], services, ..World::default() }).routes.rules;
        let [_, rule] = &rules[..] else { panic!("{rules:?}") };
        assert_eq!((&rule.path, rule.method.as_deref()), (&PathRule::Exact("/function/ns/f".into()), Some("POST")));
        let backend = &rule.plan.backends[0];
        assert!(
            matches!(&backend.backend, Backend::Service { namespace, name, .. } if namespace == SYSTEM && name == "later")
        );
        assert_eq!((backend.weight, rule.plan.max_body, rule.plan.rewrite.path.is_some()), (1, Some(7), false));
        let [(header, Wanted::Regex(pattern))] = &rule.headers[..] else { panic!("{:?}", rule.headers) };
        assert_eq!(header, "prefer");
        let pattern = crate::routing::whole_regex(pattern).unwrap();
        let table = [
            ("respond-async", true),
            ("Respond-Async", true),
            ("respond-async, wait=10", true),
            ("return=minimal,respond-async", true),
            ("handling=lenient, respond-async;x", true),
            ("respond-asynchronously", false),
            ("no-respond-async", false),
            ("wait=10", false),
            ("", false),
        ];
        for (value, want) in table {
            assert_eq!(pattern.is_match(value), want, "{value}");
        }
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
        for fine in ["/function/a/f", "/function/a", "/functional", "/x/function/b/f", "/", "/triggers"] {
            assert_eq!(refused("a", fine), "", "{fine}");
        }
        let told = refused("a", "/function/b/f");
        assert_eq!(told, "path /function/b/f belongs to namespace b: paths of namespace a begin with /function/a/");
        for path in ["/function", "/function/", "/function//a", "/function/b", "/function/ab/f/x", "/trigger/a/b"] {
            assert!(refused("a", path).contains("belongs to"), "{path}");
        }
        for path in ["/invocation", "/trigger"] {
            assert_eq!(refused(SYSTEM, path), "", "{path}");
        }
    }
}
