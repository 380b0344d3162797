//! A whole cluster in this process, on fakes.

use http_body_util::{BodyExt, Full};
use k8s_openapi::api::apps::v1::Deployment;
use minik8s_core::cluster::Cluster;
use minik8s_core::controllers::{self, ControllersConfig};
use minik8s_core::server::Registry;
use minik8s_core::testkit::wait;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

const BOUND: Duration = Duration::from_secs(60);

async fn metrics(cluster: &Cluster) -> String {
    let request = http::Request::get("/metrics").body(Full::<bytes::Bytes>::default()).unwrap();
    let answer = cluster.http_service().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// The number behind a name with this label.
fn number(page: &str, name: &str, controller: &str) -> Option<u64> {
    let start = format!("{name}{{name=\"{controller}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&start)).and_then(|n| n.parse().ok())
}

#[tokio::test]
async fn metrics_show_what_waits_in_every_controllers_queue() {
    let cluster = Cluster::builder().fake_node("node-1").start().await.unwrap();
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let deployment: Deployment = serde_json::from_value(deployment).unwrap();
    let before = metrics(&cluster).await;
    cluster.client().api::<Deployment>("default").create(&deployment).await.unwrap();
    let all = controllers::all(&ControllersConfig::new(Arc::new(Registry::default())));
    // These two look at everything they follow at once, and have no queue.
    let has_queue = |name: &str| !["gateway-controller", "canary-controller"].contains(&name);
    let queued = all.iter().filter(|c| has_queue(c.name()));
    assert_eq!(queued.clone().count() + 2, all.len());
    let shown = |page: &str| queued.clone().all(|c| number(page, "workqueue_depth", c.name()).is_some());
    wait::until("every queue shows, and the deployment went through its controller's", BOUND, || async {
        let page = metrics(&cluster).await;
        let of = |name| number(&page, name, "deployment-controller");
        let had = number(&before, "workqueue_adds_total", "deployment-controller").unwrap_or_default();
        (shown(&page) && of("workqueue_adds_total")? > had && of("workqueue_depth")? == 0).then_some(())
    })
    .await;
    cluster.stop().await;
}
