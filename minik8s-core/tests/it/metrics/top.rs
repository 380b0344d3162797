use super::{BOUND, World, by_name, nodes, pods};
use minik8s_core::api::{Gvr, Reason, Target};
use minik8s_core::runtime::RuntimeError;
use minik8s_core::testkit::need::{self, Need};
use minik8s_core::testkit::{FakeOp, wait};
use serde_json::{Value, json};

fn names(items: &[Value]) -> Vec<&str> {
    items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

/// Cores of a quantity in billionths.
fn cores(usage: &Value) -> f64 {
    usage["cpu"].as_str().and_then(|text| text.strip_suffix('n')?.parse::<f64>().ok()).unwrap() / 1e9
}

/// Waits until all these pods have metrics: a container that has just started has none.
async fn measured(world: &World, count: usize) -> Vec<Value> {
    wait::until("the pods have metrics", BOUND, || async {
        let found = world.list(&pods(), "").await.unwrap();
        (found.len() == count).then_some(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_and_nodes_show_what_they_use() {
    let world = World::new().await;
    world.load(by_name);
    world.pod("n1", "a", &["c250", "c500"], json!({"app": "a"})).await;
    world.pod("n2", "b", &["c100"], json!({"app": "b"})).await;
    let all = measured(&world, 2).await;
    let close = |usage: &Value, want: f64| {
        let found = cores(usage);
        assert!((found - want).abs() < want * 0.1, "{found} cores instead of {want}");
    };
    let a = &all[0];
    close(&a["containers"][0]["usage"], 0.25);
    close(&a["containers"][1]["usage"], 0.5);
    assert_eq!(a["containers"][1]["usage"]["memory"], "512000Ki");
    assert_eq!((&a["metadata"]["labels"]["app"], &a["kind"]), (&json!("a"), &json!("PodMetrics")));
    assert_eq!(names(&world.list(&pods(), "app in (b)").await.unwrap()), ["b"]);
    let one = Target::object(pods().gvr, "default", "b");
    close(&world.cluster.transport().get(&one).await.unwrap().value().unwrap()["containers"][0]["usage"], 0.1);
    let found = world.list(&nodes(), "").await.unwrap();
    assert_eq!(names(&found), ["n1", "n2"]);
    close(&found[0]["usage"], 0.75);
    let missing = world.cluster.transport().get(&Target::object(pods().gvr, "default", "c")).await.unwrap_err();
    assert_eq!(missing.reason, Reason::NotFound);
    let watch = world.cluster.transport().watch(&pods(), &Default::default()).await;
    assert_eq!(watch.err().map(|e| e.reason), Some(Reason::MethodNotAllowed));
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_answer_is_left_out_and_a_restart_counts_anew() {
    let world = World::new().await;
    world.load(by_name);
    world.pod("n1", "a", &["c200"], json!({})).await;
    world.pod("n2", "b", &["c200"], json!({})).await;
    measured(&world, 2).await;
    let broken = RuntimeError::Unavailable { operation: "list", cause: "broken".into() };
    world.runtimes[1].fail(FakeOp::Containers, "", None, broken);
    wait::until("the second node is left out", BOUND, || async {
        let pods = world.list(&pods(), "").await.unwrap();
        let nodes = world.list(&nodes(), "").await.unwrap();
        (names(&pods) == ["a"] && names(&nodes) == ["n1"]).then_some(())
    })
    .await;
    let error = world.cluster.transport().get(&Target::object(nodes().gvr, "", "n2")).await.unwrap_err();
    assert_eq!(error.reason, Reason::ServiceUnavailable, "{error}");
    world.runtimes[1].heal();
    measured(&world, 2).await;

    let id = world.runtimes[0].snapshot()[0].id.clone();
    assert!(world.runtimes[0].exit(&id, 1));
    let again = wait::until("the container has started again and is measured", BOUND, || async {
        let running = world.runtimes[0].snapshot().into_iter().find(|c| c.id != id && c.pid.is_some())?;
        let found = world.list(&pods(), "").await.unwrap();
        let a = found.iter().find(|pod| pod["metadata"]["name"] == "a")?.clone();
        let at: jiff::Timestamp = a["timestamp"].as_str()?.parse().ok()?;
        (running.started_at > 0 && at.as_millisecond() > running.started_at).then_some(a)
    })
    .await;
    let used = cores(&again["containers"][0]["usage"]);
    assert!((used - 0.2).abs() < 0.05, "{used} cores, as before the restart");
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_looks_nobody_is_asked() {
    let world = World::new().await;
    world.pod("n1", "a", &["c"], json!({})).await;
    assert_eq!(world.runtimes[0].count(FakeOp::Stats, ""), 0);
    measured(&world, 1).await;
    assert!(world.runtimes[0].count(FakeOp::Stats, "") > 0);
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_top_shows_and_sorts_and_sums() {
    if !need::met(&[Need::Kubectl]) {
        return;
    }
    let world = World::new().await;
    world.load(by_name);
    world.pod("n1", "a", &["c250", "c500"], json!({"app": "a"})).await;
    world.pod("n2", "b", &["c900"], json!({"app": "b"})).await;
    measured(&world, 2).await;
    let kubectl = world.kubectl();
    let rows = async |args: &[&str]| -> Vec<Vec<String>> {
        let text = kubectl.ok(&[&["top"], args].concat()).await;
        text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let first = |rows: &[Vec<String>]| rows.iter().map(|row| row[0].clone()).collect::<Vec<_>>();
    let pods = rows(&["pods", "--sort-by=cpu", "--sum"]).await;
    assert_eq!(pods[0], ["NAME", "CPU(cores)", "MEMORY(bytes)"]);
    assert_eq!(first(&pods[1..3]), ["b", "a"], "{pods:?}");
    assert_eq!((pods[2][2].as_str(), pods[4][1].as_str()), ("750Mi", "1650Mi"), "{pods:?}");
    assert_eq!(first(&rows(&["pods", "-l", "app=a", "--no-headers"]).await), ["a"]);
    let containers = rows(&["pods", "--containers", "--sort-by=memory"]).await;
    let columns: Vec<_> = containers.iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
    assert_eq!(columns, [("POD", "NAME"), ("b", "c900"), ("a", "c500"), ("a", "c250")]);
    let nodes = rows(&["nodes", "--sort-by=memory"]).await;
    assert_eq!(nodes[0], ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"]);
    assert_eq!((first(&nodes[1..]), nodes[1][3].as_str()), (vec!["n2".to_owned(), "n1".to_owned()], "900Mi"));
    let table = kubectl.ok(&["get", "pods.metrics.k8s.io", "a"]).await;
    assert!(table.contains("WINDOW") && table.contains("750Mi"), "{table}");
    assert!(
        kubectl.ok(&["explain", "podmetrics.window", "--api-version=metrics.k8s.io/v1beta1"]).await.contains("window")
    );
    assert!(kubectl.ok(&["get", "pods"]).await.contains("Running"), "pods are still pods");
    let refused = kubectl.run(&["delete", "nodes.metrics.k8s.io", "n1"]).await;
    assert_ne!(refused.code, 0);
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_says_that_metrics_are_only_read() {
    let world = World::new().await;
    let unserved = Target::in_namespace(Gvr::new("metrics.k8s.io", "v1beta1", "things"), "default");
    assert_eq!(world.list(&unserved, "").await.unwrap_err().reason, Reason::NotFound);
    if need::met(&[Need::Kubectl]) {
        let known = world.kubectl().ok(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1"]).await;
        let known: Value = serde_json::from_str(&known).unwrap();
        let of = |name: &str| {
            let all = known["resources"].as_array().unwrap();
            all.iter().find(|r| r["name"] == name).unwrap()["verbs"].clone()
        };
        assert_eq!((of("pods"), of("nodes")), (json!(["get", "list"]), json!(["get", "list"])));
        let watched = world.kubectl().run(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes?watch=true"]).await;
        assert!(watched.code != 0 && watched.stderr.contains("MethodNotAllowed"), "{watched:?}");
    }
    world.cluster.stop().await;
}
