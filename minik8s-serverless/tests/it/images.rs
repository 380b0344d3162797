//! Images of functions on a node of fakes: they are there before calls, and go when no function may go back to them.

use k8s_openapi::api::core::v1::Pod;
use minik8s_core::client::{Client, DeleteOptions, PatchType};
use minik8s_core::cluster::Cluster;
use minik8s_core::runtime::Images;
use minik8s_core::testkit::{FakeRuntime, wait};
use minik8s_serverless::Serverless;
use minik8s_serverless::functions::Unpacker;
use minik8s_serverless::functions::api::Function;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const BOUND: Duration = Duration::from_secs(120);
const GRACE: Duration = Duration::from_millis(300);
const OTHERS: [&str; 3] = ["busybox:1", "minik8s.internal/python:3", "registry.example/functions/default/f@sha256:a"];

/// As the one that is built of files is called.
fn image(digest: usize) -> String {
    format!("minik8s.internal/functions/default/f@sha256:{digest:02}")
}

async fn start(runtime: &Arc<FakeRuntime>) -> Cluster {
    let unpacker = Arc::new(Unpacker::new(runtime.clone()).grace(GRACE));
    let node = Cluster::builder().fake_node_with("node-1", runtime.clone()).companion(unpacker);
    node.extension(Serverless::new()).start().await.unwrap()
}

async fn here(runtime: &FakeRuntime, name: &str) -> bool {
    runtime.image(name).await.unwrap().is_some()
}

async fn gone(runtime: &FakeRuntime, digest: usize) {
    let what = format!("image {digest} is gone");
    wait::until(&what, BOUND, || async { (!here(runtime, &image(digest)).await).then_some(()) }).await;
}

/// Makes a function of this image, or changes it, and waits until it is called there.
async fn serve(client: &Client, digest: usize) {
    let functions = client.api::<Function>("default");
    let spec = json!({"image": image(digest), "scale": {"min": 1}});
    if functions.patch("f", PatchType::Merge, &json!({ "spec": spec })).await.is_err() {
        let function = serde_json::from_value(json!({"metadata": {"name": "f"}, "spec": spec})).unwrap();
        functions.create(&function).await.unwrap();
    }
    wait::until(&format!("image {digest} serves"), BOUND, || async {
        let function = functions.get("f").await.unwrap();
        let status = function.status.unwrap_or_default();
        let ready = status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
        (ready && Some(status.observed_generation) == function.metadata.generation).then_some(())
    })
    .await;
}

#[tokio::test]
async fn images_go_when_history_lets_go_of_them_or_the_function_goes() {
    let runtime = FakeRuntime::new();
    for name in OTHERS.into_iter().map(str::to_owned).chain([image(99)]) {
        runtime.pull(&name, None, None).await.unwrap();
    }
    let cluster = start(&runtime).await;
    // What an agent left when it ended is found by the next.
    gone(&runtime, 99).await;
    let client = cluster.client();
    for digest in 1..=11 {
        serve(&client, digest).await;
    }
    gone(&runtime, 1).await;
    for digest in 2..=11 {
        assert!(here(&runtime, &image(digest)).await, "revision {digest} may be gone back to");
    }
    client.api::<Function>("default").delete("f", &DeleteOptions::default()).await.unwrap();
    for digest in 2..=11 {
        gone(&runtime, digest).await;
    }
    for name in OTHERS {
        assert!(here(&runtime, name).await, "{name} is none of a function's");
    }
    // The same one again.
    serve(&client, 3).await;
    assert!(here(&runtime, &image(3)).await);
    cluster.stop().await;
}

#[tokio::test]
async fn an_image_that_a_pod_needs_stays_as_long_as_the_pod() {
    let runtime = FakeRuntime::new();
    let cluster = start(&runtime).await;
    let client = cluster.client();
    let pods = client.api::<Pod>("default");
    let pod = json!({"metadata": {"name": "p"}, "spec": {"terminationGracePeriodSeconds": 1,
        "containers": [{"name": "c", "image": image(7)}]}});
    pods.create(&serde_json::from_value(pod).unwrap()).await.unwrap();
    wait::until("the pod runs", BOUND, || async {
        let phase = pods.get("p").await.unwrap().status.and_then(|status| status.phase);
        (phase.as_deref() == Some("Running")).then_some(())
    })
    .await;
    runtime.pull(&image(8), None, None).await.unwrap();
    serve(&client, 9).await;
    client.api::<Function>("default").delete("f", &DeleteOptions::default()).await.unwrap();
    // Seen together, and the pod's is tried first.
    gone(&runtime, 8).await;
    assert!(here(&runtime, &image(7)).await, "a pod needs it");
    pods.delete("p", &DeleteOptions::default()).await.unwrap();
    gone(&runtime, 7).await;
    gone(&runtime, 9).await;
    cluster.stop().await;
}
