//! Ranges of addresses for the pods of nodes.

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use minik8s_core::client::{Client, DeleteOptions, ListOptions, PatchType, SharedTransport};
use minik8s_core::clock::SystemClock;
use minik8s_core::cluster::Cluster;
use minik8s_core::controllers::node_ipam::NodeIpamController;
use minik8s_core::controllers::{Controller, ControllerManager, PodRanges};
use minik8s_core::network::{Assigned, NetworkError, NoopNetwork};
use minik8s_core::node::NodeConfig;
use minik8s_core::server::Settings;
use minik8s_core::testkit::{FakeRuntime, wait};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

const BOUND: Duration = Duration::from_secs(60);

fn ranges(cluster: &str, node_prefix: u8) -> PodRanges {
    PodRanges { cluster: cluster.parse().unwrap(), node_prefix }
}

async fn create(client: &Client, name: &str, range: Option<&str>) {
    let spec = range.map_or(json!({}), |range| json!({"podCIDR": range, "podCIDRs": [range]}));
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec});
    client.all::<Node>().create(&serde_json::from_value(node).unwrap()).await.unwrap();
}

async fn range_of(client: &Client, name: &str) -> Option<String> {
    client.all::<Node>().get(name).await.unwrap().spec.and_then(|spec| spec.pod_cidr)
}

async fn gets_range(client: &Client, name: &str) -> String {
    let what = format!("node {name} has a range");
    wait::until(&what, BOUND, || range_of(client, name)).await
}

async fn all(client: &Client) -> Vec<Ipv4Net> {
    let nodes = client.all::<Node>().list(&ListOptions::default()).await.unwrap().items;
    nodes.into_iter().filter_map(|node| node.spec?.pod_cidr?.parse().ok()).collect()
}

/// A manager of nothing but this controller, until the guard is dropped.
fn another(transport: SharedTransport, ranges: PodRanges) -> DropGuard {
    let controller: Arc<dyn Controller> = Arc::new(NodeIpamController { ranges });
    let manager = ControllerManager::new(Client::new(transport), Arc::new(SystemClock), vec![controller]);
    let stop = CancellationToken::new();
    tokio::spawn(manager.run(stop.clone()));
    stop.drop_guard()
}

#[tokio::test]
async fn every_node_gets_a_range_of_its_own_and_the_last_says_that_there_is_none() {
    let cluster = Cluster::builder().pod_ranges(ranges("10.50.0.0/22", 24)).start().await.unwrap();
    let client = cluster.client();
    create(&client, "brings", Some("10.50.1.0/24")).await;
    for name in ["a", "b", "c"] {
        create(&client, name, None).await;
    }
    let mut given = Vec::new();
    for name in ["brings", "a", "b", "c"] {
        given.push(gets_range(&client, name).await);
    }
    assert_eq!(given[0], "10.50.1.0/24");
    given.sort();
    assert_eq!(given, ["10.50.0.0/24", "10.50.1.0/24", "10.50.2.0/24", "10.50.3.0/24"]);
    create(&client, "late", None).await;
    let said = wait::until("it is said", BOUND, async || {
        let events = client.api::<Event>("default").list(&ListOptions::default()).await.unwrap().items;
        events.into_iter().find(|e| e.reason.as_deref() == Some("CIDRNotAvailable"))
    })
    .await;
    assert_eq!(said.involved_object.name.as_deref(), Some("late"));
    assert!(said.message.unwrap().contains("no range of /24 is left in 10.50.0.0/22"));
    let free = range_of(&client, "b").await.unwrap();
    client.all::<Node>().delete("b", &DeleteOptions::default()).await.unwrap();
    assert_eq!(gets_range(&client, "late").await, free);
}

#[tokio::test]
async fn a_range_stays_and_is_held_once_whoever_writes_it() {
    let cluster = Cluster::builder().start().await.unwrap();
    let client = cluster.client();
    create(&client, "a", Some("10.50.1.0/24")).await;
    let nodes = client.all::<Node>();
    let patch = |range: &str| json!({"spec": {"podCIDR": range, "podCIDRs": [range]}});
    let moved = nodes.patch("a", PatchType::Merge, &patch("10.50.2.0/24")).await.unwrap_err().to_string();
    assert!(moved.contains("may not change podCIDR"), "{moved}");
    create(&client, "b", None).await;
    let stolen = nodes.patch("b", PatchType::Merge, &patch("10.50.1.0/24")).await.unwrap_err().to_string();
    assert!(stolen.contains("spec.podCIDRs") && stolen.contains("10.50.1.0/24"), "{stolen}");
    let odd = nodes.patch("b", PatchType::Merge, &patch("10.50.1.7/24")).await.unwrap_err().to_string();
    assert!(odd.contains("must be a valid CIDR block"), "{odd}");
    nodes.delete("a", &DeleteOptions::default()).await.unwrap();
    nodes.patch("b", PatchType::Merge, &patch("10.50.1.0/24")).await.unwrap();
}

#[tokio::test]
async fn two_that_give_at_once_and_those_that_come_after_never_give_the_same() {
    let cluster = Cluster::builder().start().await.unwrap();
    let (client, ranges) = (cluster.client(), ranges("10.50.0.0/18", 24));
    let both = [another(cluster.transport(), ranges), another(cluster.transport(), ranges)];
    for index in 0..40 {
        create(&client, &format!("n{index}"), None).await;
    }
    for index in 0..40 {
        gets_range(&client, &format!("n{index}")).await;
    }
    let before = all(&client).await;
    drop(both);
    let _next = another(cluster.transport(), ranges);
    for index in 40..60 {
        create(&client, &format!("n{index}"), None).await;
        gets_range(&client, &format!("n{index}")).await;
    }
    let after = all(&client).await;
    assert!(before.iter().all(|range| after.contains(range)), "ranges stay");
    let apart = |a: &Ipv4Net, b: &Ipv4Net| !a.contains(&b.network()) && !b.contains(&a.network());
    for (index, range) in after.iter().enumerate() {
        assert!(ranges.cluster.contains(range) && after[..index].iter().all(|other| apart(range, other)), "{range}");
    }
    assert_eq!(after.len(), 60);
}

#[tokio::test]
async fn ranges_of_pods_and_services_that_overlap_are_refused() {
    let settings = Settings { service_cidr: "10.50.128.0/20".parse().unwrap(), ..Settings::default() };
    let refused = Cluster::builder().settings(settings).pod_ranges(ranges("10.50.0.0/16", 24)).start().await;
    let source = std::error::Error::source(&refused.err().unwrap()).unwrap().to_string();
    assert!(source.contains("10.50.0.0/16") && source.contains("10.50.128.0/20"), "{source}");
}

#[tokio::test]
async fn a_node_waits_for_its_range_and_keeps_it_when_its_record_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let network = Assigned::new(|range| match range {
        ipnet::IpNet::V4(range) => Ok(Arc::new(NoopNetwork::new(range))),
        ipnet::IpNet::V6(_) => Err(NetworkError::Unsupported("IPv6")),
    });
    let cluster = Cluster::builder()
        .node(NodeConfig::new("n1", dir.path()), FakeRuntime::new(), Arc::new(network))
        .start()
        .await
        .unwrap();
    let client = cluster.client();
    let ready = async |wanted: &str, words: &str| {
        let what = format!("n1 is Ready={wanted}");
        wait::until(&what, BOUND, async || {
            let node = client.all::<Node>().get_opt("n1").await.unwrap()?;
            let condition = node.status?.conditions?.into_iter().find(|c| c.type_ == "Ready")?;
            (condition.status == wanted && condition.message?.contains(words)).then_some(())
        })
        .await
    };
    ready("False", "no range of addresses for its pods yet").await;
    let _giver = another(cluster.transport(), ranges("10.50.0.0/16", 24));
    ready("True", "").await;
    let range = range_of(&client, "n1").await.unwrap();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]}});
    client.api::<Pod>("default").create(&serde_json::from_value(pod).unwrap()).await.unwrap();
    let ip = wait::until("the pod has an address", BOUND, async || {
        client.api::<Pod>("default").get("p").await.unwrap().status?.pod_ip
    })
    .await;
    assert!(range.parse::<Ipv4Net>().unwrap().contains(&ip.parse::<std::net::Ipv4Addr>().unwrap()), "{ip} of {range}");
    client.all::<Node>().delete("n1", &DeleteOptions::default()).await.unwrap();
    ready("True", "").await;
    assert_eq!(range_of(&client, "n1").await, Some(range));
}
