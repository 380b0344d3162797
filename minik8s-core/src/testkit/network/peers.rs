//! Other nodes: any list is taken, whole, any number of times; where there is no overlay, the refusal says so.

use super::bed::{Bed, pod};
use crate::network::{NetworkError, Peer};
use std::net::{IpAddr, Ipv4Addr};

fn peer(index: u8, address: Ipv4Addr) -> Peer {
    let pod_cidr = ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 77, index, 0), 24).into();
    Peer { node: format!("node-{index}"), address: address.into(), pod_cidr }
}

/// A neighbour in the node's subnet, and one that is far away.
fn two(bed: &dyn Bed) -> Vec<Peer> {
    let [a, b, c, _] = bed.node_address().octets();
    vec![peer(1, Ipv4Addr::new(a, b, c, 77)), peer(2, Ipv4Addr::new(198, 51, 100, 7))]
}

pub(super) async fn any_list_of_nodes_is_taken_or_refused_in_words(bed: &dyn Bed) {
    let network = bed.network();
    network.sync_peers(&[]).await.expect("no other node is always fine");
    let both = two(bed);
    if !network.capabilities().overlay {
        let refused = network.sync_peers(&both).await;
        assert!(matches!(refused, Err(NetworkError::Unsupported(_))), "{refused:?}");
        return;
    }
    let before = pod(bed, "before").await;
    let moved = Peer { address: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 8)), ..both[1].clone() };
    let lists = [&both[..], &both[..], &both[1..], &[moved.clone(), both[0].clone()], &[moved], &[], &both[..1]];
    for list in lists {
        network.sync_peers(list).await.expect("a list of nodes");
    }
    assert_eq!(network.attach(&before.request).await.expect("again"), before.network, "pods are as they were");
}

pub(super) async fn nodes_that_make_no_sense_do_not_keep_others_away(bed: &dyn Bed) {
    if !bed.network().capabilities().overlay {
        return;
    }
    let own = peer(0, Ipv4Addr::new(198, 51, 100, 9));
    let other = Peer { node: "other".to_owned(), ..two(bed)[0].clone() };
    let all: Vec<Peer> = [own].into_iter().chain(two(bed)).chain([other]).collect();
    bed.network().sync_peers(&all).await.expect("this node's range, and one range of two nodes");
}

pub(super) async fn other_nodes_are_told_again_after_a_kill(bed: &dyn Bed) {
    if !bed.network().capabilities().overlay {
        return;
    }
    bed.network().sync_peers(&two(bed)).await.expect("two nodes");
    let again = bed.reopen().await;
    again.setup().await.expect("setup");
    again.sync_peers(&two(bed)).await.expect("the same two");
    again.sync_peers(&two(bed)[..1]).await.expect("one is gone");
}
