//! Attaching and detaching: addresses are unique, kept, given back, and everything can be done twice.

use super::bed::{Answer, Bed, Place, TestPod, pod, request};
use crate::network::{NetworkError, Protocol};
use std::collections::BTreeSet;
use std::path::PathBuf;

pub(super) async fn addresses_are_unique_and_in_range(bed: &dyn Bed) {
    let mut seen = BTreeSet::new();
    for i in 0..5 {
        let pod = pod(bed, &format!("pod-{i}")).await;
        let range: ipnet::IpNet = "10.77.0.0/24".parse().expect("range");
        assert!(range.contains(&pod.ip()), "{} outside of the range", pod.ip());
        assert!(seen.insert(pod.ip()), "{} given twice", pod.ip());
    }
}

pub(super) async fn attaching_twice_gives_the_same_answer(bed: &dyn Bed) {
    let pod = pod(bed, "twice").await;
    assert_eq!(bed.network().attach(&pod.request).await.expect("again"), pod.network);
    assert_eq!(ids(bed).await, ["twice"]);
}

pub(super) async fn detaching_twice_or_nothing_is_success(bed: &dyn Bed) {
    let pod = pod(bed, "gone").await;
    bed.network().detach("gone").await.expect("detach");
    bed.network().detach("gone").await.expect("detach again");
    bed.network().detach("never-there").await.expect("detach of nothing");
    assert!(ids(bed).await.is_empty());
    drop(pod);
}

pub(super) async fn detaching_after_the_namespace_vanished_is_success(bed: &dyn Bed) {
    let pod = pod(bed, "vanished").await;
    bed.remove_place(&pod.request.netns).await;
    bed.network().detach("vanished").await.expect("detach");
    assert!(ids(bed).await.is_empty());
}

pub(super) async fn a_pod_without_namespace_is_refused_and_leaves_nothing(bed: &dyn Bed) {
    let request = request("nowhere", PathBuf::from("/run/minik8s-test/not/there"), Vec::new());
    match bed.network().attach(&request).await {
        Err(NetworkError::NoNamespace { pod, path }) => {
            assert_eq!(pod, "default/nowhere");
            assert_eq!(path, request.netns);
        }
        other => panic!("expected NoNamespace, got {other:?}"),
    }
    assert!(ids(bed).await.is_empty());
}

pub(super) async fn attachments_lists_strays(bed: &dyn Bed) {
    let a = pod(bed, "a").await;
    let b = pod(bed, "b").await;
    bed.remove_place(&a.request.netns).await;
    let mut known = bed.network().attachments().await.expect("attachments");
    known.sort_by(|x, y| x.id.cmp(&y.id));
    assert_eq!(known, [a.network, b.network]);
    for stray in known {
        bed.network().detach(&stray.id).await.expect("detach");
    }
    assert!(ids(bed).await.is_empty());
}

pub(super) async fn fifty_attaches_at_once_are_fifty_addresses(bed: &dyn Bed) {
    let mut requests = Vec::new();
    for i in 0..50 {
        requests.push(request(&format!("pod-{i}"), bed.place().await, Vec::new()));
    }
    let network = bed.network();
    let all = futures::future::try_join_all(requests.iter().map(|r| network.attach(r))).await.expect("attach all");
    let addresses: BTreeSet<_> = all.iter().flat_map(|n| n.ips.clone()).collect();
    assert_eq!(addresses.len(), 50);
    assert_eq!(ids(bed).await.len(), 50);
    futures::future::try_join_all(requests.iter().map(|r| network.detach(&r.id))).await.expect("detach all");
    assert!(ids(bed).await.is_empty());
}

pub(super) async fn the_same_pod_attached_many_times_at_once_is_one(bed: &dyn Bed) {
    let request = request("one", bed.place().await, Vec::new());
    let network = bed.network();
    let all = futures::future::try_join_all((0..8).map(|_| network.attach(&request))).await.expect("attach");
    assert!(all.iter().all(|n| *n == all[0]), "{all:?}");
    assert_eq!(ids(bed).await, ["one"]);
}

pub(super) async fn a_full_range_is_exhausted_and_a_freed_address_helps(bed: &dyn Bed) {
    let network = bed.small().await;
    network.setup().await.expect("setup");
    let mut requests = Vec::new();
    for i in 0..6 {
        requests.push(request(&format!("pod-{i}"), bed.place().await, Vec::new()));
    }
    let (last, first) = requests.split_last().expect("six");
    for request in first {
        network.attach(request).await.expect("attach");
    }
    match network.attach(last).await {
        Err(NetworkError::Exhausted { used, .. }) => assert_eq!(used, 5),
        other => panic!("expected Exhausted, got {other:?}"),
    }
    assert_eq!(network.attachments().await.expect("attachments").len(), 5);
    network.detach("pod-2").await.expect("detach");
    network.attach(last).await.expect("the freed address");
    network.teardown().await.expect("teardown");
}

pub(super) async fn a_freed_address_is_not_reused_at_once(bed: &dyn Bed) {
    let first = pod(bed, "first").await;
    bed.network().detach("first").await.expect("detach");
    let second = pod(bed, "second").await;
    assert_ne!(first.ip(), second.ip());
}

pub(super) async fn names_with_a_common_prefix_are_different_pods(bed: &dyn Bed) {
    let one = pod(bed, "pod-1").await;
    let twelve = pod(bed, "pod-12").await;
    assert_ne!(one.ip(), twelve.ip());
    bed.network().detach("pod-1").await.expect("detach");
    assert_eq!(ids(bed).await, ["pod-12"]);
}

pub(super) async fn allocations_survive_a_kill(bed: &dyn Bed) {
    let pod = pod(bed, "kept").await;
    let gone = super::bed::pod(bed, "gone").await;
    bed.network().detach("gone").await.expect("detach");
    let network = bed.reopen().await;
    assert_eq!(network.attachments().await.expect("attachments"), std::slice::from_ref(&pod.network));
    network.setup().await.expect("setup");
    assert_eq!(network.attach(&pod.request).await.expect("attach"), pod.network);
    let fresh = super::bed::pod(bed, "fresh").await;
    assert!(fresh.ip() != pod.ip() && fresh.ip() != gone.ip());
}

pub(super) async fn a_sandbox_made_again_keeps_its_address(bed: &dyn Bed) {
    let mut pod = pod(bed, "again").await;
    bed.remove_place(&pod.request.netns).await;
    pod.request.netns = bed.place().await;
    let network = bed.network().attach(&pod.request).await.expect("attach");
    assert_eq!(network, pod.network);
}

pub(super) async fn pods_reach_each_other_and_the_host(bed: &dyn Bed) {
    let (a, b) = (pod(bed, "a").await, pod(bed, "b").await);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let _server = bed.serve(&b.place, protocol, 8080, "b").await;
        says(bed, &a, &b, protocol).await;
        let from_host = bed.ask(&Place::Host, protocol, b.at(8080), None).await;
        assert_eq!(from_host.text(), Some("b"), "{protocol:?} from the host");
    }
    let _host = bed.serve(&Place::Host, Protocol::Tcp, 8081, "host").await;
    let to_host = (bed.node_address(), 8081).into();
    assert_eq!(bed.ask(&a.place, Protocol::Tcp, to_host, None).await, Answer::Said("host".to_owned(), a.ip()));
}

/// `to` answers `from`, and sees the pod's own address.
async fn says(bed: &dyn Bed, from: &TestPod, to: &TestPod, protocol: Protocol) {
    let answer = bed.ask(&from.place, protocol, to.at(8080), None).await;
    assert_eq!(answer, Answer::Said("b".to_owned(), from.ip()), "{protocol:?} between pods");
}

pub(super) async fn pods_reach_the_outside_and_seem_to_be_the_node(bed: &dyn Bed) {
    let pod = pod(bed, "a").await;
    let _server = bed.serve(&Place::Outside, Protocol::Tcp, 80, "outside").await;
    let outside = bed.ask(&pod.place, Protocol::Tcp, ([192, 0, 2, 9], 80).into(), None).await;
    assert_eq!(outside, Answer::Said("outside".to_owned(), bed.node_address().into()));
}

pub(super) async fn missing_links_are_repaired(bed: &dyn Bed) {
    let (a, b) = (pod(bed, "a").await, pod(bed, "b").await);
    bed.remove_links().await;
    bed.network().setup().await.expect("setup");
    for pod in [&a, &b] {
        assert_eq!(bed.network().attach(&pod.request).await.expect("attach"), pod.network);
    }
    let _server = bed.serve(&b.place, Protocol::Tcp, 8080, "b").await;
    says(bed, &a, &b, Protocol::Tcp).await;
}

pub(super) async fn what_is_foreign_stays_as_it_is(bed: &dyn Bed) {
    bed.add_foreign().await;
    let _pod = pod(bed, "a").await;
    bed.network().sync_services(std::sync::Arc::default()).await.expect("sync");
    bed.network().setup().await.expect("setup");
}

async fn ids(bed: &dyn Bed) -> Vec<String> {
    let mut ids: Vec<String> =
        bed.network().attachments().await.expect("attachments").into_iter().map(|n| n.id).collect();
    ids.sort();
    ids
}
