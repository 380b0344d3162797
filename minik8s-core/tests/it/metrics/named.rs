//! Which metrics there are, as discovery of `custom.metrics.k8s.io` and `external.metrics.k8s.io` lists them, with an adapter
//! on loopback.

use super::*;
use http_body_util::{BodyExt, Full};
use std::net::SocketAddr;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio_util::task::AbortOnDropHandle;
use tower::ServiceExt;

/// What the adapter answers, by path.
const KNOWN: [(&str, &str); 4] = [
    ("/apis/custom.metrics.k8s.io/v1beta2", r#"{"resources":[{"name":"services/hits"},{"name":"pods/age"}]}"#),
    ("/apis/external.metrics.k8s.io/v1beta1", r#"{"resources":[{"name":"jobs"},{"noname":1}]}"#),
    (
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/shop/hits",
        r#"{"items":[{"metric":{"name":"hits","selector":{"matchLabels":{"a":"b"}}},"value":"7"}]}"#,
    ),
    (
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/jobs",
        r#"{"items":[{"metricName":"jobs","value":"9"}]}"#,
    ),
];

async fn adapter() -> (SocketAddr, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let mut lines = BufReader::new(io).lines();
            let first = lines.next_line().await.unwrap_or_default().unwrap_or_default();
            while lines.next_line().await.is_ok_and(|line| line.is_some_and(|line| !line.is_empty())) {}
            let path = first.split(' ').nth(1).unwrap_or_default();
            let answer = match KNOWN.iter().find(|(known, _)| *known == path) {
                Some((_, body)) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
                None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
            };
            let _ = lines.get_mut().write_all(answer.as_bytes()).await;
        }
    });
    (address, AbortOnDropHandle::new(serving))
}

async fn get(world: &World, path: &str) -> (u16, Value) {
    let request = http::Request::get(path).body(Full::<bytes::Bytes>::default()).unwrap();
    let answer = world.cluster.http_service().oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap())
}

fn names(list: &Value) -> Vec<&str> {
    list["resources"].as_array().unwrap().iter().map(|resource| resource["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_lists_the_metrics_that_are_known() {
    let (address, serving) = adapter().await;
    let world = World::with(|builder| builder.metrics_adapter(&format!("http://{address}")).unwrap()).await;
    for version in ["v1beta1", "v1beta2"] {
        let (status, list) = get(&world, &format!("/apis/custom.metrics.k8s.io/{version}")).await;
        assert_eq!((status, list["kind"].as_str()), (200, Some("APIResourceList")), "{list}");
        assert_eq!(list["groupVersion"], format!("custom.metrics.k8s.io/{version}"));
        assert_eq!(names(&list), ["pods/age", "services/hits"]);
        let want = json!({"name": "services/hits", "singularName": "", "namespaced": true, "kind": "MetricValueList", "verbs": ["get"]});
        assert_eq!(list["resources"][1], want);
    }
    let (_, list) = get(&world, "/apis/external.metrics.k8s.io/v1beta1").await;
    assert_eq!((names(&list), list["resources"][0]["kind"].as_str()), (vec!["jobs"], Some("ExternalMetricValueList")));
    // The group prefers the newer version; the older one says the same in its own words.
    let (_, group) = get(&world, "/apis/custom.metrics.k8s.io").await;
    assert_eq!(group["preferredVersion"]["version"], "v1beta2", "{group}");
    let of = |version: &str| format!("/apis/custom.metrics.k8s.io/{version}/namespaces/default/services/shop/hits");
    let (_, new) = get(&world, &of("v1beta2")).await;
    assert_eq!(new["items"][0]["metric"]["name"], "hits", "{new}");
    let (_, old) = get(&world, &of("v1beta1")).await;
    let item = &old["items"][0];
    assert_eq!((item["metricName"].as_str(), item["value"].as_str()), (Some("hits"), Some("7")), "{old}");
    assert_eq!((&item["selector"]["matchLabels"]["a"], &item["metric"]), (&json!("b"), &Value::Null));
    // An adapter that has gone is no reason to say nothing of pods, and of nothing else is anything known.
    serving.abort();
    drop(serving);
    wait::until("the adapter has gone", BOUND, || async {
        let (status, list) = get(&world, "/apis/custom.metrics.k8s.io/v1beta1").await;
        assert_eq!(status, 200, "{list}");
        names(&list).is_empty().then_some(())
    })
    .await;
    let (status, refused) = get(&world, "/apis/external.metrics.k8s.io/v1beta1").await;
    assert_eq!(status, 503, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("the metrics adapter at 127.0.0.1:"), "{refused}");
    world.cluster.stop().await;
}
