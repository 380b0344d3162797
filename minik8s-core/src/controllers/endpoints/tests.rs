//! Tables of the decisions.

use super::decide::{Backend, Family, Port, groups};
use super::slices::{Diff, MOST, diff};
use super::*;
use serde_json::{Value, json};

fn service(extra: Value) -> Service {
    let mut value = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "ns", "uid": "s1", "labels": {"team": "a"}},
        "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.5",
            "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]}});
    json_patch::merge(&mut value, &extra);
    serde_json::from_value(value).unwrap()
}

fn backend(name: &str, ready: bool, extra: Value) -> Backend {
    let number: u32 = name.bytes().map(u32::from).sum();
    let status = if ready { "True" } else { "False" };
    let mut value = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "ns", "uid": format!("u-{name}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [
            {"name": "c", "ports": [{"name": "web", "containerPort": 8080, "protocol": "TCP"}]}]},
        "status": {"phase": "Running", "podIP": format!("10.1.{}.{}", number / 250, number % 250),
            "conditions": [{"type": "Ready", "status": status}]}});
    json_patch::merge(&mut value, &extra);
    Backend { pod: Arc::new(serde_json::from_value(value).unwrap()), lost: false, zone: Some("z".into()) }
}

fn named(i: usize) -> Backend {
    let ip = format!("10.2.{}.{}", i / 250, i % 250);
    backend(&format!("p{i:04}"), true, json!({"status": {"podIP": ip}}))
}

fn stored(diff: Diff, next: &mut usize) -> Vec<Arc<EndpointSlice>> {
    let mut out: Vec<_> = diff.update;
    for mut slice in diff.create {
        *next += 1;
        slice.metadata.name = Some(format!("web-{next}"));
        out.push(slice);
    }
    out.into_iter().map(Arc::new).collect()
}

#[test]
fn conditions_tell_ready_serving_and_terminating_apart() {
    let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let anyway = json!({"spec": {"publishNotReadyAddresses": true}});
    // name, ready, extra, lost, service -> ready, serving, terminating; None where it is left out
    let table = [
        ("ready", true, json!({}), false, json!({}), Some((true, true, false))),
        ("not ready", false, json!({}), false, json!({}), Some((false, false, false))),
        ("leaving", true, deleted.clone(), false, json!({}), Some((false, true, true))),
        ("on a lost node", true, json!({}), true, json!({}), Some((false, false, false))),
        ("published anyway", false, json!({}), false, anyway.clone(), Some((true, false, false))),
        ("leaving, published anyway", true, deleted, false, anyway, Some((true, true, true))),
        ("without address", true, json!({"status": {"podIP": null}}), false, json!({}), None),
        ("finished", true, json!({"status": {"phase": "Succeeded"}}), false, json!({}), None),
        ("failed", true, json!({"status": {"phase": "Failed"}}), false, json!({}), None),
        ("without the port", true, json!({"spec": {"containers": [{"name": "c"}]}}), false, json!({}), None),
    ];
    for (name, ready, extra, lost, change, want) in table {
        let backend = Backend { lost, ..backend("a", ready, extra) };
        let groups = groups(&service(change), &[backend]);
        let got = groups.values().next().map(|g| (g[0].ready, g[0].serving, g[0].terminating));
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn ports_are_resolved_per_pod_and_hostnames_belong_to_their_service() {
    let other = json!({"spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 9000}]}]}});
    let mine = json!({"spec": {"hostname": "db-0", "subdomain": "web"}});
    let foreign = json!({"spec": {"hostname": "db-0", "subdomain": "web2"}});
    let pods = [backend("a", true, mine), backend("b", true, other), backend("c", true, foreign)];
    let groups = groups(&service(json!({})), &pods);
    let port = |n| vec![Port { name: "http".into(), protocol: "TCP".into(), port: n, app_protocol: None }];
    assert_eq!(groups[&(Family::V4, port(9000))][0].target.name.as_deref(), Some("b"));
    let rest = &groups[&(Family::V4, port(8080))];
    assert_eq!(rest.iter().map(|a| a.hostname.as_deref()).collect::<Vec<_>>(), [Some("db-0"), None]);
    let numeric =
        json!({"spec": {"ports": [{"port": 80, "targetPort": 1234}, {"name": "d", "port": 53, "protocol": "UDP"}]}});
    let keys: Vec<_> = super::decide::groups(&service(numeric), &pods).into_keys().collect();
    assert_eq!(
        keys[0].1.iter().map(|p| (p.port, p.protocol.as_str())).collect::<Vec<_>>(),
        [(1234, "TCP"), (53, "UDP")]
    );
}

#[test]
fn both_families_get_their_own_slices() {
    let dual = json!({"spec": {"ipFamilies": ["IPv4", "IPv6"]}});
    let ips = json!({"status": {"podIPs": [{"ip": "10.0.0.9"}, {"ip": "fd00::9"}]}});
    let diff = diff(&service(dual.clone()), &groups(&service(dual), &[backend("a", true, ips)]), &[]);
    let seen: Vec<_> =
        diff.create.iter().map(|s| (s.address_type.as_str(), s.endpoints[0].addresses[0].as_str())).collect();
    assert_eq!(seen, [("IPv4", "10.0.0.9"), ("IPv6", "fd00::9")]);
}

#[test]
fn slices_hold_a_hundred_and_change_as_little_as_can_be() {
    let (service, mut next) = (service(json!({})), 0);
    let mut pods: Vec<_> = (0..250).map(named).collect();
    let mut slices = stored(diff(&service, &groups(&service, &pods), &[]), &mut next);
    assert_eq!(slices.iter().map(|s| s.endpoints.len()).collect::<Vec<_>>(), [100, 100, 50]);
    let labels = slices[0].metadata.labels.as_ref().unwrap();
    assert_eq!((labels["kubernetes.io/service-name"].as_str(), labels["team"].as_str()), ("web", "a"));
    assert_eq!(slices[0].metadata.owner_references.as_ref().unwrap()[0].uid, "s1");

    let same = diff(&service, &groups(&service, &pods), &slices);
    assert!(same.create.is_empty() && same.update.is_empty() && same.delete.is_empty());

    pods[120] = Backend { lost: true, ..pods[120].clone() };
    let one = diff(&service, &groups(&service, &pods), &slices);
    assert_eq!((one.create.len(), one.update.len(), one.delete.len()), (0, 1, 0));
    assert_eq!(one.update[0].endpoints.len(), MOST);

    pods.remove(5);
    pods.push(named(900));
    let moved = diff(&service, &groups(&service, &pods), &slices);
    assert!(
        moved.create.is_empty() && moved.delete.is_empty() && moved.update.len() == 2,
        "filled where there is room"
    );

    slices.truncate(2);
    let again = diff(&service, &groups(&service, &pods[..1]), &slices);
    assert_eq!((again.update.len(), again.delete.len()), (1, 1), "the empty one goes");
}

#[test]
fn a_service_without_endpoints_has_one_empty_slice() {
    let (service, mut next) = (service(json!({"spec": {"clusterIP": "None"}})), 0);
    let first = diff(&service, &groups(&service, &[]), &[]);
    assert_eq!((first.create.len(), first.create[0].endpoints.len()), (1, 0));
    assert!(first.create[0].metadata.labels.as_ref().unwrap().contains_key("service.kubernetes.io/headless"));
    let empty = stored(first, &mut next);
    let stays = diff(&service, &groups(&service, &[]), &empty);
    assert!(stays.create.is_empty() && stays.update.is_empty() && stays.delete.is_empty());
    let filled = diff(&service, &groups(&service, &[named(1)]), &empty);
    assert_eq!((filled.create.len(), filled.delete.len()), (1, 1));
    let full = stored(Diff { delete: vec![], ..filled }, &mut next);
    let emptied = diff(&service, &groups(&service, &[]), &full);
    assert_eq!((emptied.create.len(), emptied.update.len(), emptied.delete.len()), (0, 1, 0));
}

#[test]
fn the_older_form_knows_ready_and_not_ready() {
    let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let pods = [backend("a", true, json!({})), backend("b", false, json!({})), backend("c", true, deleted)];
    let service = service(json!({}));
    let endpoints = legacy::endpoints(&service, &groups(&service, &pods));
    let subset = &endpoints.subsets.as_ref().unwrap()[0];
    let names = |a: &Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| {
        let name =
            |a: &k8s_openapi::api::core::v1::EndpointAddress| a.target_ref.as_ref().unwrap().name.clone().unwrap();
        a.iter().flatten().map(name).collect::<Vec<_>>()
    };
    assert_eq!((names(&subset.addresses), names(&subset.not_ready_addresses)), (vec!["a".into()], vec!["b".into()]));
    assert!(legacy::same(&endpoints, &endpoints));
    let many: Vec<_> = (0..1100).map(named).collect();
    let cut = legacy::endpoints(&service, &groups(&service, &many));
    assert_eq!(cut.subsets.as_ref().unwrap()[0].addresses.as_ref().unwrap().len(), 1000);
    assert!(cut.metadata.annotations.is_some() && !legacy::same(&endpoints, &cut));
}

#[test]
fn services_without_selector_are_their_users_affair() {
    assert!(decide::selector(&service(json!({"spec": {"selector": null}}))).is_none());
    assert!(decide::selector(&service(json!({"spec": {"type": "ExternalName"}}))).is_none());
    let two = decide::selector(&service(json!({"spec": {"selector": {"tier": "front"}}}))).unwrap();
    let labels =
        |text: &str| text.split(',').map(|p| p.split_once('=').unwrap()).map(|(k, v)| (k.into(), v.into())).collect();
    assert!(two.matches(&labels("app=web,tier=front")));
    assert!(!two.matches(&labels("app=web,tier=back")) && !two.matches(&labels("tier=front")));
    assert!(!two.matches(&labels("app=web2,tier=front")));
}
