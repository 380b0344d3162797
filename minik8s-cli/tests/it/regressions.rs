//! What the system this one follows got wrong: each must stay right.

use super::harness::{Kind, Up, until};

fn names(up: &Up, args: &[&str]) -> Vec<String> {
    let all = [&["get"], args, &["-o", "name"]].concat();
    up.minik8s(&all).ok().lines().map(str::to_owned).collect()
}

fn pod(name: &str, namespace: &str, labels: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}\nspec: {{containers: [{{name: main, image: 'example.org/x:1', ports: [{{containerPort: 80}}]}}]}}\n---\n"
    )
}

fn service(name: &str, namespace: &str, selector: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{selector: {{{selector}}}, ports: [{{port: 80}}]}}\n---\n"
    )
}

fn addresses(up: &Up, service: &str, namespace: &str) -> Vec<String> {
    let path = "jsonpath={.subsets[*].addresses[*].targetRef.name}";
    let found = up.minik8s(&["get", "endpoints", service, "-n", namespace, "-o", path]);
    let mut all: Vec<String> = found.out.split_whitespace().map(str::to_owned).collect();
    all.sort();
    all
}

#[test]
fn names_and_labels_with_common_prefixes_do_not_meet() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    let text = pod("web", "default", "app: web")
        + &pod("web2", "default", "app: web2")
        + &service("svc", "default", "app: web")
        + &service("svc2", "default", "app: web2");
    up.apply("all.yaml", &text);
    until("svc has its endpoint", 60, || addresses(&up, "svc", "default") == ["web"]);
    until("svc2 has its endpoint", 60, || addresses(&up, "svc2", "default") == ["web2"]);
    assert_eq!(names(&up, &["pods", "-l", "app=web"]), ["pod/web"]);
    up.minik8s(&["delete", "svc", "svc"]).ok();
    assert_eq!(addresses(&up, "svc2", "default"), ["web2"]);
    up.minik8s(&["delete", "pod", "web"]).ok();
    assert_eq!(names(&up, &["pods"]), ["pod/web2"]);
}

#[test]
fn two_namespaces_with_the_same_names_are_strangers() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    let mut text = String::new();
    for namespace in ["red", "blue"] {
        text += &format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n---\n");
        text += &pod("web", namespace, "app: web");
        text += &service("web", namespace, "app: web");
    }
    up.apply("all.yaml", &text);
    for namespace in ["red", "blue"] {
        until("the service has its endpoint", 60, || addresses(&up, "web", namespace) == ["web"]);
    }
    let address = |ns: &str| up.minik8s(&["get", "pod", "web", "-n", ns, "-o", "jsonpath={.status.podIP}"]).ok();
    assert_ne!(address("red"), address("blue"));
    up.minik8s(&["delete", "namespace", "red"]).ok();
    assert!(up.minik8s(&["get", "pod", "web", "-n", "red"]).refused().contains("not found"));
    assert_eq!(names(&up, &["pods", "-n", "blue"]), ["pod/web"]);
    assert_eq!(addresses(&up, "web", "blue"), ["web"]);
}

#[test]
fn selectors_of_two_labels_need_both() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    let text = pod("both", "default", "app: web, tier: front")
        + &pod("one", "default", "app: web")
        + &pod("other", "default", "tier: front")
        + &service("svc", "default", "app: web, tier: front");
    up.apply("all.yaml", &text);
    until("all run", 60, || names(&up, &["pods", "--field-selector", "status.phase=Running"]).len() == 3);
    until("the service has its endpoint", 60, || addresses(&up, "svc", "default") == ["both"]);
    assert_eq!(names(&up, &["pods", "-l", "app=web,tier=front"]), ["pod/both"]);
}

#[test]
fn deleting_the_last_replica_set_removes_its_pods() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    let text = "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: last}\nspec:\n  replicas: 2\n  selector: {matchLabels: {app: last}}\n  template:\n    metadata: {labels: {app: last}}\n    spec: {containers: [{name: c, image: 'example.org/x:1'}]}\n";
    up.apply("rs.yaml", text);
    until("both run", 60, || names(&up, &["pods", "--field-selector", "status.phase=Running"]).len() == 2);
    up.minik8s(&["delete", "rs", "last"]).ok();
    until("both are gone", 60, || names(&up, &["pods"]).is_empty());
    up.apply("rs.yaml", text);
    until("both run again", 60, || names(&up, &["pods", "--field-selector", "status.phase=Running"]).len() == 2);
}

#[test]
fn dead_endpoints_go_within_a_second() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    let text =
        pod("a", "default", "app: web") + &pod("b", "default", "app: web") + &service("svc", "default", "app: web");
    up.apply("all.yaml", &text);
    until("both are endpoints", 60, || addresses(&up, "svc", "default") == ["a", "b"]);
    up.minik8s(&["delete", "pod", "a", "--grace-period", "0", "--no-wait"]).ok();
    until("the dead one is gone", 1, || addresses(&up, "svc", "default") == ["b"]);
}
