//! What the kinds come to, and what is said of those that come to nothing.

use super::*;
use crate::routing::{At, Backend, Host, PathRule, Rule, Sticky};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn make<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn service(namespace: &str, name: &str) -> Arc<Service> {
    make(json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"ports": [
        {"name": "http", "port": 80}, {"name": "grpc", "port": 81, "appProtocol": "kubernetes.io/h2c"}]}}))
}

fn world() -> World {
    World {
        services: vec![service("d", "web"), service("d", "api"), service("other", "web")],
        ingress_classes: vec![make(
            json!({"metadata": {"name": "minik8s"}, "spec": {"controller": INGRESS_CONTROLLER}}),
        )],
        gateway_classes: vec![make(
            json!({"metadata": {"name": "minik8s"}, "spec": {"controllerName": CONTROLLER_NAME}}),
        )],
        ..World::default()
    }
}

/// Port, host, path and backend of a rule, in short.
fn short(rule: &Rule) -> String {
    let at = match rule.at {
        At::Usual => "usual".to_owned(),
        At::Port(port) => port.to_string(),
    };
    let path = match &rule.path {
        PathRule::Exact(path) => format!("={path}"),
        PathRule::Prefix(path) => path.clone(),
        PathRule::Regex(path) => format!("~{path}"),
    };
    let to = rule.plan.backends.iter().map(|weighted| match &weighted.backend {
        Backend::Service { namespace, name, port, .. } => format!("{namespace}/{name}:{port}"),
        Backend::Broken { status, .. } => status.to_string(),
    });
    format!("{at} {}{path} {}", rule.host, to.collect::<Vec<_>>().join(" "))
}

fn rules(made: &Translation) -> Vec<String> {
    made.routes.rules.iter().map(short).collect()
}

#[test]
fn ingresses_of_our_class_become_rules_and_what_is_missing_is_named() {
    let path = |path: &str, kind: &str, backend: Value| json!({"path": path, "pathType": kind, "backend": {"service": backend}});
    let ingress = |class: &str| {
        make(json!({"metadata": {"namespace": "d", "name": class}, "spec": {"ingressClassName": class,
        "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}},
        "tls": [{"hosts": ["a.example"], "secretName": "cert"}],
        "rules": [{"host": "a.example", "http": {"paths": [
            path("/x/", "Prefix", json!({"name": "web", "port": {"name": "http"}})),
            path("/y", "Exact", json!({"name": "gone", "port": {"number": 80}})),
            path("/z", "Prefix", json!({"name": "web", "port": {"number": 99}})),
        ]}}]}}))
    };
    let world =
        World { ingresses: vec![ingress("minik8s"), ingress("nginx")], certificates: Some(BTreeMap::new()), ..world() };
    let made = translate(&world);
    let want = ["usual a.example/x d/web:80", "usual a.example=/y 503", "usual a.example/z 503", "usual */ d/web:80"];
    assert_eq!(rules(&made), want);
    let problems: Vec<&str> =
        made.ingresses[&("d".into(), "minik8s".into())].problems.iter().map(|p| p.message.as_str()).collect();
    assert_eq!(problems, ["there is no Service d/gone", "Service d/web has no port 99", "there is no Secret d/cert"]);
    assert_eq!(made.ingresses.len(), 1);
    assert_eq!(made.routes.certificates[0].secret, "cert");
}

fn gateway(listeners: Value) -> Arc<Gateway> {
    make(
        json!({"metadata": {"namespace": "d", "name": "gw"}, "spec": {"gatewayClassName": "minik8s", "listeners": listeners}}),
    )
}

fn route(namespace: &str, spec: Value) -> Arc<HttpRoute> {
    make(json!({"metadata": {"namespace": namespace, "name": "r"}, "spec": spec}))
}

/// The rules, and reasons why the route did not attach or not resolve.
fn attached(listeners: Value, routes: Vec<Arc<HttpRoute>>, more: World) -> (Vec<String>, Vec<String>) {
    let world = World { gateways: vec![gateway(listeners)], http_routes: routes, ..more };
    let made = translate(&world);
    let reasons = made.http_routes.values().flatten().map(|attached| {
        let reason = |problem: &Option<Problem>| problem.as_ref().map_or("ok", |p| p.reason);
        format!("{} {}", reason(&attached.refused), reason(&attached.unresolved))
    });
    (rules(&made), reasons.collect())
}

#[test]
fn routes_attach_where_hosts_and_namespaces_agree() {
    let all = json!([{"name": "a", "port": 80, "protocol": "HTTP", "hostname": "*.example.com"},
        {"name": "b", "port": 8080, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}]);
    let backend = json!([{"backendRefs": [{"name": "web", "port": 80}]}]);
    let spec = |parent: Value, hosts: Value| json!({"parentRefs": [parent], "hostnames": hosts, "rules": backend});
    let gw = json!({"name": "gw", "namespace": "d"});
    let section = |name: &str| json!({"name": "gw", "namespace": "d", "sectionName": name});
    let table: [(&str, Value, &[&str], &str); 6] = [
        (
            "d",
            spec(gw.clone(), json!(["x.example.com"])),
            &["80 x.example.com/ d/web:80", "8080 x.example.com/ d/web:80"],
            "ok ok",
        ),
        ("d", spec(section("a"), json!([])), &["80 *.example.com/ d/web:80"], "ok ok"),
        ("d", spec(section("a"), json!(["x.org"])), &[], "NoMatchingListenerHostname ok"),
        ("d", spec(section("c"), json!([])), &[], "NoMatchingParent ok"),
        ("other", spec(section("a"), json!([])), &[], "NotAllowedByListeners ok"),
        ("other", spec(gw, json!(["x.example.com"])), &["8080 x.example.com/ other/web:80"], "ok ok"),
    ];
    for (namespace, spec, want, reason) in table {
        let (rules, reasons) = attached(all.clone(), vec![route(namespace, spec.clone())], world());
        assert_eq!(
            (rules, reasons),
            (want.iter().map(ToString::to_string).collect(), vec![reason.to_owned()]),
            "{spec}"
        );
    }
}

#[test]
fn references_are_told_apart_as_the_gateway_api_says() {
    let listeners = json!([{"name": "a", "port": 80, "protocol": "HTTP"}]);
    let grant: Arc<ReferenceGrant> = make(json!({"metadata": {"namespace": "other", "name": "g"}, "spec": {
        "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "d"}],
        "to": [{"group": "", "kind": "Service"}]}}));
    let table = [
        (json!({"name": "web", "port": 80}), "ok", "d/web:80"),
        (json!({"name": "gone", "port": 80}), "BackendNotFound", "500"),
        (json!({"name": "web", "port": 82}), "BackendNotFound", "500"),
        (json!({"name": "web", "port": 80, "kind": "Bucket", "group": "x.y"}), "InvalidKind", "500"),
        (json!({"name": "web", "port": 80, "namespace": "other"}), "RefNotPermitted", "500"),
    ];
    for (backend, reason, to) in table {
        let spec = json!({"parentRefs": [{"name": "gw"}], "rules": [{"backendRefs": [backend]}]});
        let (rules, reasons) = attached(listeners.clone(), vec![route("d", spec)], world());
        assert_eq!((rules, reasons), (vec![format!("80 */ {to}")], vec![format!("ok {reason}")]), "{backend}");
    }
    let spec = json!({"parentRefs": [{"name": "gw"}], "rules": [{"backendRefs": [{"name": "web", "port": 80, "namespace": "other"}]}]});
    let (rules, reasons) = attached(listeners, vec![route("d", spec)], World { grants: vec![grant], ..world() });
    assert_eq!((rules[0].as_str(), reasons[0].as_str()), ("80 */ other/web:80", "ok ok"));
}

#[test]
fn listeners_that_do_not_go_together_are_told() {
    let http = |name: &str, port: i32| json!({"name": name, "port": port, "protocol": "HTTP"});
    let https = |name: &str, port: i32, secret: &str| json!({"name": name, "port": port, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": secret}]}});
    let listeners = json!([http("a", 80), https("b", 80, "good"), http("c", 81), http("d", 81), https("e", 443, "good"),
        https("f", 444, "gone"), {"name": "g", "port": 90, "protocol": "TCP"}]);
    let certificates = Some(BTreeMap::from([(("d".to_owned(), "good".to_owned()), Ok(()))]));
    let made = translate(&World { gateways: vec![gateway(listeners)], certificates, ..world() });
    let states = &made.gateways[&("d".into(), "gw".into())];
    let short = |state: &ListenerState| {
        let reasons =
            [&state.refused, &state.conflict, &state.unresolved].map(|p| p.as_ref().map_or("-", |p| p.reason));
        format!("{} {}", state.name, reasons.join(" "))
    };
    let want = [
        "a - ProtocolConflict -",
        "b - ProtocolConflict -",
        "c - HostnameConflict -",
        "d - HostnameConflict -",
        "e - - -",
        "f - - InvalidCertificateRef",
        "g UnsupportedProtocol - -",
    ];
    assert_eq!(states.iter().map(short).collect::<Vec<_>>(), want);
    assert_eq!(made.routes.ports, BTreeMap::from([(443, true), (444, true)]));
    assert_eq!(made.routes.certificates.len(), 1);
}

#[test]
fn a_dns_leads_paths_to_services_and_of_two_for_one_place_the_older_is_named() {
    let dns = |name: &str, created: &str, service: &str| {
        make(
            json!({"metadata": {"namespace": "d", "name": name, "creationTimestamp": created}, "spec": {"host": "shop.example",
            "paths": [{"path": "/a", "serviceName": service, "servicePort": 80}]}}),
        )
    };
    let dns = vec![dns("young", "2024-01-02T00:00:00Z", "web"), dns("old", "2024-01-01T00:00:00Z", "api")];
    let made = translate(&World { dns, ..world() });
    assert_eq!(rules(&made), ["usual shop.example/a d/web:80", "usual shop.example/a d/api:80"]);
    let (loser, problems) = made.conflicts.first_key_value().unwrap();
    assert_eq!((loser.name.as_str(), made.conflicts.len()), ("young", 1));
    assert_eq!(problems[0].message, "host shop.example and path /a belong to the older Dns d/old");
    assert_eq!(made.routes.rules[0].host, Host::Exact("shop.example".into()));
}

#[test]
fn durations_are_those_of_the_gateway_api() {
    let millis = |text: &str| duration(text).map(|d| d.as_millis());
    for (text, want) in [("500ms", Some(500)), ("10s", Some(10_000)), ("1h30m", Some(5_400_000)), ("0s", Some(0))] {
        assert_eq!(millis(text), want, "{text}");
    }
    assert!(["", "1", "s", "1d", "1.5s", "-1s", "1s1s1s1s1s", "100000s"].iter().all(|text| millis(text).is_none()));
}

#[test]
fn sessions_have_a_cookie_of_their_own_and_what_goes_too_far_is_limited_and_told() {
    let backend = json!({"name": "web", "port": 80});
    let rule = json!({"backendRefs": [backend], "sessionPersistence": {}});
    let named = json!({"backendRefs": [backend], "sessionPersistence": {"sessionName": "mine"}});
    let wild = json!({"backendRefs": [{"name": "web", "port": 80, "weight": 0}], "retry": {"attempts": 50, "backoff": "1h"},
        "timeouts": {"request": "0s"}, "filters": [{"type": "RequestMirror", "requestMirror":
        {"backendRef": backend, "fraction": {"numerator": 1, "denominator": 1000}}}]});
    let route = |name: &str| {
        make(json!({"metadata": {"namespace": "d", "name": name, "uid": format!("uid-{name}")},
            "spec": {"parentRefs": [{"name": "gw"}], "rules": [rule, rule, named, wild]}}))
    };
    let gateway = make(json!({"metadata": {"namespace": "d", "name": "gw"}, "spec": {"gatewayClassName": "minik8s",
        "listeners": [{"name": "http", "port": 8080, "protocol": "HTTP"}]}}));
    let made = translate(&World { gateways: vec![gateway], http_routes: vec![route("a"), route("b")], ..world() });
    let cookie = |rule: &Rule| match rule.plan.sticky.clone()? {
        Sticky::Cookie { name, key, .. } => Some((name, key)),
        Sticky::Header { .. } => None,
    };
    let cookies: Vec<(String, String)> = made.routes.rules.iter().filter_map(cookie).collect();
    let names: std::collections::BTreeSet<&str> = cookies.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((cookies.len(), names.len()), (6, 5), "{cookies:?}");
    assert!(cookies.iter().any(|(_, key)| key == "uid-a") && names.contains("mine"));
    let plan = &made.routes.rules[3].plan;
    assert_eq!((plan.retry.attempts, plan.retry.backoff.as_secs()), (10, 10));
    assert_eq!((plan.timeout, plan.try_timeout), (None, Some(std::time::Duration::ZERO)));
    assert_eq!(plan.mirrors[0].share, (1, 1000));
    let said = &made.http_routes[&("d".to_owned(), "a".to_owned())][0];
    assert!(said.refused.is_none());
    let said: Vec<&str> = said.limited.iter().map(|problem| problem.message.as_str()).collect();
    let said = said.join("; ");
    for part in ["rule 3 has no backend with a weight above 0", "retry.attempts 50", "retry.backoff 3600s"] {
        assert!(said.contains(part), "{said}");
    }
}
