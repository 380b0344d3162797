//! What belongs to others is refused, named and left alone; what others break is put right; what was there before
//! comes back.

use crate::machine::{Machine, NODE, ip, nft, on_machine, output};
use minik8s_core::network::{
    Endpoint, HostPort, NetworkError, NetworkPlugin, NetworkResult, Peer, PodAttachment, Protocol, ServiceEntry,
    ServicePortEntry, ServiceTable,
};
use minik8s_core::testkit::need::{self, Need};
use minik8s_core::testkit::network::{Answer, Bed, Place};
use minik8s_net::{BridgeConfig, BridgeNetwork};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 10);

fn alone<F, Fut>(test: F)
where
    F: FnOnce(Machine) -> Fut + Send + 'static,
    Fut: Future<Output = ()>,
{
    if need::met(&[Need::Root, Need::Program("ip"), Need::Program("nft")]) {
        on_machine(test);
    }
}

#[track_caller]
fn taken(result: NetworkResult<()>, what: &str, words: &str) {
    match result {
        Err(NetworkError::Taken { what: found, .. }) if found == what => {
            let text = result.unwrap_err().to_string();
            assert!(text.contains(words), "{text}");
        }
        other => panic!("expected {what} to be taken, got {other:?}"),
    }
}

async fn attach(machine: &Machine, id: &str) -> (PodAttachment, Ipv4Addr) {
    let request = PodAttachment { id: id.to_owned(), netns: machine.place().await, ..PodAttachment::default() };
    let network = machine.bridge().attach(&request).await.unwrap();
    (request, network.ips[0].to_string().parse().unwrap())
}

fn web(backends: &[Ipv4Addr]) -> Arc<ServiceTable> {
    let endpoint = |ip: &Ipv4Addr| Endpoint::new(*ip, 8080);
    let port = ServicePortEntry {
        port: 80,
        endpoints: backends.iter().map(endpoint).collect(),
        ..ServicePortEntry::default()
    };
    let entry = ServiceEntry {
        namespace: "default".into(),
        name: "web".into(),
        cluster_ips: vec![ADDRESS.into()],
        ports: vec![port],
        ..ServiceEntry::default()
    };
    Arc::new(ServiceTable { services: [(("default".to_owned(), "web".to_owned()), Arc::new(entry))].into() })
}

#[test]
fn a_bridge_of_somebody_else_is_refused_and_left_alone() {
    alone(async |machine| {
        ip("link add mk8s0 type bridge");
        let before = output("ip -o link");
        taken(machine.bridge().setup().await, "link", "choose another name");
        assert!(matches!(machine.bridge().teardown().await, Err(NetworkError::Teardown(_))));
        assert_eq!(output("ip -o link"), before);
        ip("link del mk8s0");
        machine.bridge().setup().await.unwrap();
        machine.bridge().teardown().await.unwrap();
    });
}

#[test]
fn ranges_that_lead_elsewhere_are_refused() {
    alone(async |machine| {
        ip("link add other0 type bridge");
        ip("link set other0 up");
        for net in ["10.77.0.0/24", "10.77.0.128/25", "10.77.200.0/24", "10.78.0.0/16"] {
            ip(&format!("route add {net} dev other0"));
            taken(machine.bridge().setup().await, "range", "link other0");
            ip(&format!("route del {net} dev other0"));
        }
        ip("addr add 10.77.0.77/24 dev other0");
        taken(machine.bridge().setup().await, "range", "link other0");
        ip("addr del 10.77.0.77/24 dev other0");
        // A subnet of the host where other nodes' pods may be.
        ip("addr add 10.77.9.1/24 dev other0");
        let refused = machine.bridge().setup().await.unwrap_err().to_string();
        assert!(refused.contains("10.77.0.0/16") && refused.contains("10.77.9.0/24"), "{refused}");
        ip("addr del 10.77.9.1/24 dev other0");
        // A wider route is only overruled, not cut off.
        ip("route add 10.0.0.0/8 dev other0");
        machine.bridge().setup().await.unwrap();
        machine.bridge().teardown().await.unwrap();
    });
}

#[test]
fn a_bridge_of_a_living_cluster_is_refused_and_that_of_a_dead_one_taken_over() {
    alone(async |machine| {
        machine.bridge().setup().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = BridgeConfig { state_dir: dir.path().to_owned(), dns_port: None, ..machine.config() };
        let second = BridgeNetwork::new(config.clone()).unwrap();
        taken(second.setup().await, "link", "a running cluster");
        let same = BridgeNetwork::new(machine.config()).unwrap();
        taken(same.setup().await, "state directory", "a running cluster uses it");
        drop((second, same));
        // The first one dies.
        let third = machine.open(config);
        third.setup().await.unwrap();
        third.teardown().await.unwrap();
    });
}

#[test]
fn two_networks_side_by_side_do_not_touch_each_other() {
    alone(async |machine| {
        machine.bridge().setup().await.unwrap();
        let (_, _) = attach(&machine, "a").await;
        let before = output("nft list table ip minik8s");
        let dir = tempfile::tempdir().unwrap();
        let config = BridgeConfig {
            bridge: "second0".to_owned(),
            state_dir: dir.path().to_owned(),
            pod_cidr: "10.87.0.0/24".parse().unwrap(),
            cluster_cidr: "10.87.0.0/16".parse().unwrap(),
            service_cidr: "10.88.0.0/16".parse().unwrap(),
            ..machine.config()
        };
        let second = BridgeNetwork::new(config).unwrap();
        second.setup().await.unwrap();
        let request = PodAttachment { id: "a".into(), netns: machine.place().await, ..Default::default() };
        second.attach(&request).await.unwrap();
        second.teardown().await.unwrap();
        assert_eq!(output("nft list table ip minik8s"), before);
        assert_eq!(output("ip -4 route show 10.77.0.2").lines().count(), 1);
        machine.bridge().teardown().await.unwrap();
    });
}

#[test]
fn a_name_server_in_the_way_is_named() {
    alone(async |machine| {
        let _other = std::net::UdpSocket::bind("0.0.0.0:53").unwrap();
        taken(machine.bridge().setup().await, "port", "10.77.0.1:53");
    });
}

#[test]
fn forwarding_that_was_on_stays_on() {
    alone(async |machine| {
        let forward = "/proc/sys/net/ipv4/ip_forward";
        std::fs::write(forward, "1").unwrap();
        machine.bridge().setup().await.unwrap();
        machine.bridge().teardown().await.unwrap();
        assert_eq!(std::fs::read_to_string(forward).unwrap().trim(), "1");
    });
}

#[test]
fn any_damage_to_the_rules_is_noticed_and_repaired() {
    alone(async |machine| {
        let network = machine.bridge();
        network.setup().await.unwrap();
        let (a, ip) = attach(&machine, "a").await;
        let _server = machine.serve(&Place::Pod(a.netns), Protocol::Tcp, 8080, "a").await;
        network.sync_services(web(&[ip])).await.unwrap();
        let whole = output("nft list table ip minik8s");
        let damages = [
            "flush table ip minik8s",
            "flush chain ip minik8s pick-1",
            "flush map ip minik8s services",
            "flush map ip minik8s endpoints",
            "add element ip minik8s endpoints { 10.78.0.10 . tcp . 80 . 0x7 : 10.77.0.9 . 80 }",
            "delete element ip minik8s hairpin { 10.77.0.2 . 10.77.0.2 }",
            "insert rule ip minik8s prerouting drop",
            "add chain ip minik8s theirs { type filter hook output priority 0; }; add rule ip minik8s theirs drop",
            "flush ruleset",
        ];
        for damage in damages {
            nft(damage);
            assert_ne!(output("nft list ruleset"), whole, "{damage}");
            network.sync_services(web(&[ip])).await.unwrap();
            assert_eq!(output("nft list table ip minik8s"), whole, "{damage}");
            let answer = machine.ask(&Place::Host, Protocol::Tcp, (ADDRESS, 80).into(), None).await;
            assert_eq!(answer.text(), Some("a"), "{damage}");
        }
        network.teardown().await.unwrap();
    });
}

#[test]
fn changes_of_other_tables_do_not_lead_to_rewriting_ours() {
    alone(async |machine| {
        let network = machine.bridge();
        network.setup().await.unwrap();
        let (_, ip) = attach(&machine, "a").await;
        let list = || output("nft -a list table ip minik8s");
        network.sync_services(web(&[ip])).await.unwrap();
        let before = list();
        nft("add table ip theirs");
        network.sync_services(web(&[ip])).await.unwrap();
        network.setup().await.unwrap();
        // Handles are those of the first time.
        assert_eq!(list(), before);
        network.teardown().await.unwrap();
        assert_eq!(output("nft list ruleset").trim(), "table ip theirs {\n}");
    });
}

#[test]
fn a_kill_at_any_point_of_an_attach_is_recovered_from() {
    alone(async |machine| {
        machine.bridge().setup().await.unwrap();
        let (pod, address) = attach(&machine, "a").await;
        let link = machine.config().link_name("a");
        let namespace = machine.namespace(&Place::Pod(pod.netns.clone()));
        // As far as each step of an attach gets, backwards.
        let inside = async |command: &'static str| namespace.run(move || ip(command)).await;
        for step in 0..4 {
            match step {
                0 => inside("route del default").await,
                1 => inside("addr flush dev eth0").await,
                2 => inside("link set eth0 down").await,
                _ => ip(&format!("link del {link}")),
            }
            let network = machine.open(machine.config());
            assert_eq!(network.attachments().await.unwrap().len(), 1);
            network.setup().await.unwrap();
            assert_eq!(network.attach(&pod).await.unwrap().ips, [address]);
            let _server = machine.serve(&Place::Pod(pod.netns.clone()), Protocol::Tcp, 8080, "a").await;
            let answer = machine.ask(&Place::Host, Protocol::Tcp, (address, 8080).into(), None).await;
            assert_eq!(answer.text(), Some("a"), "step {step}");
        }
        machine.bridge().teardown().await.unwrap();
    });
}

/// Whatever happens to the host's end of a pod's link.
#[test]
fn the_way_to_a_pod_is_found_again() {
    alone(async |machine| {
        let network = machine.bridge();
        network.setup().await.unwrap();
        let (pod, address) = attach(&machine, "a").await;
        let _server = machine.serve(&Place::Pod(pod.netns), Protocol::Tcp, 8080, "a").await;
        network.sync_services(web(&[address])).await.unwrap();
        let link = machine.config().link_name("a");
        let way = || output(&format!("ip route show {address}")) + &output(&format!("ip neigh show {address}"));
        let before = way();
        assert!(before.contains(&link) && before.contains("PERMANENT"), "{before}");
        let damages = ["link set LINK down", "link set LINK master mk8s0", "link set LINK group 0", "neigh flush all"];
        for damage in damages.into_iter().chain(["route del 10.77.0.2", "link del mk8s0"]) {
            ip(&damage.replace("LINK", &link));
            network.setup().await.unwrap();
            assert_eq!(way(), before, "{damage}");
            let seen = output(&format!("ip link show {link}"));
            assert!(seen.contains(" UP ") || seen.contains("state UP"), "{damage}: {seen}");
            assert!(!seen.contains("master") && seen.contains("group 1519606785"), "{damage}: {seen}");
            for to in [(ADDRESS, 80), (address, 8080)] {
                let answer = machine.ask(&Place::Host, Protocol::Tcp, to.into(), None).await;
                assert_eq!(answer.text(), Some("a"), "{damage}: {to:?}");
            }
        }
        network.teardown().await.unwrap();
    });
}

#[test]
fn a_namespace_with_a_foreign_eth0_is_refused_and_nothing_is_left() {
    alone(async |machine| {
        machine.bridge().setup().await.unwrap();
        let netns = machine.place().await;
        let namespace = machine.namespace(&Place::Pod(netns.clone()));
        namespace.run(|| ip("link add eth0 type bridge")).await;
        let request = PodAttachment { id: "a".into(), netns, ..Default::default() };
        taken(machine.bridge().attach(&request).await.map(drop), "link", "another network");
        assert!(machine.bridge().attachments().await.unwrap().is_empty());
        machine.bridge().teardown().await.unwrap();
    });
}

#[test]
fn a_client_that_asked_too_early_reaches_the_port_on_the_host_later() {
    alone(async |machine| {
        let network = machine.bridge();
        network.setup().await.unwrap();
        let ask = async || machine.ask(&Place::Outside, Protocol::Udp, (NODE, 5353).into(), Some(6000)).await;
        assert_eq!(ask().await, Answer::Refused);
        let port = HostPort { host_ip: None, host_port: 5353, container_port: 8080, protocol: Protocol::Udp };
        let pod = PodAttachment {
            id: "a".to_owned(),
            netns: machine.place().await,
            host_ports: vec![port],
            ..PodAttachment::default()
        };
        network.attach(&pod).await.unwrap();
        let _server = machine.serve(&Place::Pod(pod.netns), Protocol::Udp, 8080, "a").await;
        assert_eq!(ask().await.text(), Some("a"), "its flow still leads to the host");
        network.teardown().await.unwrap();
    });
}

#[test]
fn pods_never_reach_the_loopback_of_the_host() {
    alone(async |machine| {
        machine.bridge().setup().await.unwrap();
        let (pod, _) = attach(&machine, "a").await;
        let _server = machine.serve(&Place::Host, Protocol::Tcp, 8080, "host").await;
        let namespace = machine.namespace(&Place::Pod(pod.netns.clone()));
        // A pod that is root in its own namespace can send there.
        namespace
            .run(|| {
                std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
                ip("addr flush dev lo");
                ip("route flush table local");
                ip("route add local 10.77.0.2 dev eth0 table local");
                ip("route add 127.0.0.0/8 via 10.77.0.1 dev eth0 src 10.77.0.2");
            })
            .await;
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
        assert_eq!(machine.ask(&Place::Pod(pod.netns.clone()), Protocol::Tcp, to, None).await, Answer::Silence);
        let node = machine.ask(&Place::Pod(pod.netns), Protocol::Tcp, (NODE, 8080).into(), None).await;
        assert_eq!(node.text(), Some("host"), "the way to the host itself is open");
        machine.bridge().teardown().await.unwrap();
    });
}

#[test]
fn a_network_for_one_node_says_that_it_is() {
    alone(|machine| async move {
        let network = machine.open(BridgeConfig { overlay: None, ..machine.config() });
        network.setup().await.unwrap();
        let (address, pod_cidr) = (NODE.into(), "10.77.9.0/24".parse().unwrap());
        let refused = network.sync_peers(&[Peer { node: "other".into(), address, pod_cidr }]).await.unwrap_err();
        assert!(refused.to_string().contains("for a single one"), "{refused}");
        network.sync_peers(&[]).await.unwrap();
        network.teardown().await.unwrap();
    });
}

/// A tunnel of that name that somebody else made is left alone, and so are routes without our mark.
#[test]
fn a_tunnel_and_routes_of_somebody_else_are_left_alone() {
    alone(|machine| async move {
        ip("link add mk8s-vxlan type vxlan id 7 dstport 4790");
        let network = machine.bridge();
        network.setup().await.unwrap();
        ip("route add 10.77.8.0/24 via 192.0.2.9");
        let peer = |third: u8, address: &str| Peer {
            node: format!("n{third}"),
            address: address.parse().unwrap(),
            pod_cidr: format!("10.77.{third}.0/24").parse().unwrap(),
        };
        let both = [peer(9, "198.51.100.7"), peer(3, "192.0.2.9")];
        taken(network.sync_peers(&both).await, "link", "mk8s-vxlan");
        assert!(output("ip route").contains("10.77.3.0/24 via 192.0.2.9"), "a neighbour needs no tunnel");
        network.sync_peers(&both[1..]).await.unwrap();
        network.sync_peers(&[]).await.unwrap();
        network.teardown().await.unwrap();
        assert!(output("ip route").contains("10.77.8.0/24") && !output("ip route").contains("10.77.3.0"));
        assert!(output("ip -d link show mk8s-vxlan").contains("id 7"));
    });
}

/// A node that cannot be reached stands in the way of no other: one with an address that no machine can have, or behind a
/// link that is down.
#[test]
fn ways_to_other_nodes_do_not_wait_for_one_that_is_refused() {
    alone(|machine| async move {
        let network = machine.bridge();
        network.setup().await.unwrap();
        let peer = |third: u8, address: &str| Peer {
            node: format!("n{third}"),
            address: address.parse().unwrap(),
            pod_cidr: format!("10.77.{third}.0/24").parse().unwrap(),
        };
        let ways = || output("ip route show proto 109");
        let (all, near, far) = (peer(2, "192.0.2.255"), peer(3, "192.0.2.9"), peer(4, "198.51.100.7"));
        network.sync_peers(&[all, near.clone()]).await.unwrap();
        assert!(ways().contains("10.77.3.0/24 via 192.0.2.9") && !ways().contains("10.77.2.0"), "{}", ways());
        // Routes on a link go with it, and come back when it does.
        ip("link set eth0 down");
        let refused = network.sync_peers(&[near.clone(), far.clone()]).await.unwrap_err().to_string();
        assert!(refused.contains("10.77.3.0/24"), "{refused}");
        assert!(ways().contains("10.77.4.0/24 via 10.77.4.0 dev mk8s-vxlan"), "{}", ways());
        ip("link set eth0 up");
        network.sync_peers(&[near.clone(), far.clone()]).await.unwrap();
        assert!(ways().contains("10.77.3.0/24 via 192.0.2.9") && ways().contains("10.77.4.0/24"), "{}", ways());
        // A way that cannot be changed stays whole: its node is said to be in the same subnet now, by a link that is down.
        ip("link set eth0 down");
        let whole = || output("ip neigh show dev mk8s-vxlan") + &output("bridge fdb show dev mk8s-vxlan");
        let before = whole();
        network.sync_peers(&[peer(4, "192.0.2.9")]).await.unwrap_err();
        assert_eq!(whole(), before);
        assert!(ways().contains("10.77.4.0/24 via 10.77.4.0 dev mk8s-vxlan"), "{}", ways());
        ip("link set eth0 up");
        network.sync_peers(&[]).await.unwrap();
        assert_eq!(ways(), "");
        network.teardown().await.unwrap();
    });
}
