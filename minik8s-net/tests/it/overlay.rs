//! Pods of several nodes: hosts of one machine, each with a bridge network of its own.

use crate::machine::{fresh_namespace, output};
use crate::traffic;
use minik8s_core::network::{
    Endpoint, NetworkPlugin, Peer, PodAttachment, Protocol, ServiceEntry, ServicePortEntry, ServiceTable,
};
use minik8s_core::testkit::hosts::{self, Hosts};
use minik8s_core::testkit::inside::{Inside, NetNamespace};
use minik8s_core::testkit::need;
use minik8s_core::testkit::network::Answer;
use minik8s_net::{BridgeConfig, BridgeNetwork, OverlayConfig};
use std::hash::{DefaultHasher, Hasher};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 5);
const NODE_PORT: u16 = 30080;

struct Pod {
    place: NetNamespace,
    ip: IpAddr,
}

struct Node {
    network: Arc<BridgeNetwork>,
    inside: Inside,
}

/// Nodes, the first so many of which know each other.
struct Cluster {
    nodes: Vec<Node>,
    hosts: Hosts,
    direct: bool,
}

impl Cluster {
    async fn new(subnets: &[usize], direct: bool) -> Self {
        let hosts = Hosts::subnets(subnets);
        let mut cluster = Self { nodes: Vec::new(), hosts, direct };
        for index in 0..cluster.hosts.len() {
            let inside = cluster.hosts[index].network().runtime();
            let network = Arc::new(BridgeNetwork::new(cluster.config(index)).unwrap());
            let setup = network.clone();
            inside.run(async move { setup.setup().await.unwrap() }).await;
            cluster.nodes.push(Node { network, inside });
        }
        cluster
    }

    fn config(&self, index: usize) -> BridgeConfig {
        let overlay = OverlayConfig { direct: self.direct, ..OverlayConfig::new(self.hosts[index].address()) };
        BridgeConfig {
            node: self.hosts[index].name(),
            pod_cidr: format!("10.77.{index}.0/24").parse().unwrap(),
            cluster_cidr: "10.77.0.0/16".parse().unwrap(),
            service_cidr: "10.78.0.0/16".parse().unwrap(),
            upstreams: Some(Vec::new()),
            overlay: Some(overlay),
            ..BridgeConfig::new(self.hosts[index].data().join("network"))
        }
    }

    /// Tells a node of these others.
    async fn introduce(&self, node: usize, others: &[usize]) {
        let peer = |other: &usize| Peer {
            node: self.hosts[*other].name(),
            address: self.hosts[*other].address().into(),
            pod_cidr: self.config(*other).pod_cidr.into(),
        };
        let peers: Vec<Peer> = others.iter().filter(|other| **other != node).map(peer).collect();
        let network = self.nodes[node].network.clone();
        self.nodes[node].inside.run(async move { network.sync_peers(&peers).await.unwrap() }).await;
    }

    async fn introduce_all(&self) {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        for node in &all {
            self.introduce(*node, &all).await;
        }
    }

    async fn pod(&self, node: usize, id: &str) -> Pod {
        let place = fresh_namespace().await;
        let netns = self.hosts[node].data().join(id);
        std::os::unix::fs::symlink(format!("/proc/self/fd/{}", place.file().as_raw_fd()), &netns).unwrap();
        let request = PodAttachment { id: id.into(), name: id.into(), netns, ..PodAttachment::default() };
        let network = self.nodes[node].network.clone();
        let attached = self.nodes[node].inside.run(async move { network.attach(&request).await.unwrap() }).await;
        Pod { place, ip: attached.ips[0] }
    }

    /// Tells every node of a service at [`SERVICE`], port 80, and at the node port.
    async fn serve(&self, endpoints: &[SocketAddr]) {
        let endpoints = endpoints.iter().map(|at| Endpoint::new(at.ip(), at.port())).collect();
        let port = ServicePortEntry { port: 80, node_port: NODE_PORT, endpoints, ..ServicePortEntry::default() };
        let entry = ServiceEntry {
            namespace: "default".into(),
            name: "web".into(),
            cluster_ips: vec![SERVICE.into()],
            ports: vec![port],
            ..ServiceEntry::default()
        };
        let key = (entry.namespace.clone(), entry.name.clone());
        let table = Arc::new(ServiceTable { services: [(key, Arc::new(entry))].into() });
        for node in &self.nodes {
            let (network, table) = (node.network.clone(), table.clone());
            node.inside.run(async move { network.sync_services(table).await.unwrap() }).await;
        }
    }

    /// Everything that the kernel of a node knows about other nodes.
    fn ways(&self, node: usize) -> String {
        let host = &self.hosts[node];
        let routes = host.run("ip -d route show proto 109");
        let tunnel = host.succeeds("ip link show mk8s-vxlan");
        let entries = if tunnel {
            ["ip neigh show dev mk8s-vxlan", "bridge fdb show dev mk8s-vxlan"].map(|c| host.run(c)).concat()
        } else {
            String::new()
        };
        format!("{routes}{entries}")
    }
}

fn ready() -> bool {
    need::met(hosts::NEEDS)
}

async fn ask(from: &Pod, to: impl Into<IpAddr>, port: u16) -> Answer {
    traffic::ask(from.place.again(), Protocol::Tcp, (to.into(), port).into(), None).await
}

fn said(words: &str, peer: IpAddr) -> Answer {
    Answer::Said(words.to_owned(), peer)
}

fn in_cluster(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[..2] == [10, 77])
}

#[tokio::test]
async fn pods_reach_each_other_across_nodes_under_their_own_addresses() {
    if !ready() {
        return;
    }
    for (subnets, direct) in [(vec![2, 1], true), (vec![2, 1], false)] {
        let cluster = Cluster::new(&subnets, direct).await;
        cluster.introduce_all().await;
        let pods = [cluster.pod(0, "a").await, cluster.pod(1, "b").await, cluster.pod(2, "c").await];
        for (index, pod) in pods.iter().enumerate() {
            let _server = traffic::serve(pod.place.again(), Protocol::Tcp, 8080, "hi").await;
            for (other, from) in pods.iter().enumerate().filter(|(other, _)| *other != index) {
                assert_eq!(ask(from, pod.ip, 8080).await, said("hi", from.ip), "{other} to {index}, {direct}");
            }
            // The host itself has its bridge's address there.
            let host = cluster.hosts[(index + 1) % 3].network();
            let gateway = cluster.config((index + 1) % 3).gateway();
            let answer = traffic::ask(host, Protocol::Tcp, (pod.ip, 8080).into(), None).await;
            assert_eq!(answer, said("hi", gateway.into()));
        }
        // What pods say to each other is tracked; the packets around it are not.
        let tracked = cluster.hosts[0].run("cat /proc/net/nf_conntrack");
        assert!(tracked.contains("dst=10.77.2.2") && !tracked.contains("4789"), "{tracked}");
        let tunnel = cluster.hosts[0].run("ip -d link show mk8s-vxlan");
        assert!(["nolearning", "noudpcsum", "dstport 4789", "mtu 1450"].iter().all(|w| tunnel.contains(w)), "{tunnel}");
        let ways = cluster.ways(0);
        assert_eq!(ways.matches(" dev eth0").count(), usize::from(direct), "{ways}");
        assert_eq!(ways.matches("onlink").count(), if direct { 1 } else { 2 }, "{ways}");
    }
}

#[tokio::test]
async fn services_are_reached_on_every_node_whatever_node_the_endpoints_are_on() {
    if !ready() {
        return;
    }
    for direct in [true, false] {
        let cluster = Cluster::new(&[2, 1], direct).await;
        cluster.introduce_all().await;
        let pods = [cluster.pod(0, "a").await, cluster.pod(1, "b").await, cluster.pod(2, "c").await];
        let _server = traffic::serve(pods[2].place.again(), Protocol::Tcp, 8080, "hi").await;
        cluster.serve(&[SocketAddr::new(pods[2].ip, 8080)]).await;
        for pod in &pods[..2] {
            assert_eq!(ask(pod, SERVICE, 80).await, said("hi", pod.ip), "under its own address");
        }
        let itself = cluster.config(2).gateway().into();
        assert_eq!(ask(&pods[2], SERVICE, 80).await, said("hi", itself), "itself");
        for node in 0..3 {
            let host = &cluster.hosts[node];
            let from_host = traffic::ask(host.network(), Protocol::Tcp, (SERVICE, 80).into(), None).await;
            assert!(matches!(from_host, Answer::Said(..)), "host {node}: {from_host:?}");
            let outside = cluster.hosts.outside().network();
            let port = traffic::ask(outside, Protocol::Tcp, (host.address(), NODE_PORT).into(), None).await;
            assert!(matches!(port, Answer::Said(..)), "port of node {node}: {port:?}");
            // Behind a tunnel even a stranger comes with an address that goes back the same way.
            if let (Answer::Said(_, peer), 0, false) = (port, node, direct) {
                assert!(in_cluster(peer), "{peer}");
            }
        }
    }
}

#[tokio::test]
async fn nodes_come_late_move_and_go() {
    if !ready() {
        return;
    }
    let cluster = Cluster::new(&[1, 1, 1], true).await;
    let pods = [cluster.pod(0, "a").await, cluster.pod(1, "b").await, cluster.pod(2, "c").await];
    let mut servers = Vec::new();
    for pod in &pods {
        servers.push(traffic::serve(pod.place.again(), Protocol::Tcp, 8080, "hi").await);
    }
    assert_eq!(cluster.ways(0), "");
    for node in [0, 1] {
        cluster.introduce(node, &[0, 1]).await;
    }
    assert_eq!(ask(&pods[0], pods[1].ip, 8080).await, said("hi", pods[0].ip));
    assert_ne!(ask(&pods[0], pods[2].ip, 8080).await, said("hi", pods[0].ip));
    cluster.introduce_all().await;
    assert_eq!(ask(&pods[0], pods[2].ip, 8080).await, said("hi", pods[0].ip));
    assert_eq!(ask(&pods[2], pods[1].ip, 8080).await, said("hi", pods[2].ip));
    let before = cluster.ways(1);
    cluster.introduce_all().await;
    assert_eq!(cluster.ways(1), before, "twice is once");
    cluster.introduce(0, &[1]).await;
    let ways = cluster.ways(0);
    assert!(ways.contains("198.18.1.11") && !ways.contains("10.77.2.0") && !ways.contains("198.18.2.12"), "{ways}");
    cluster.introduce(0, &[]).await;
    assert_eq!(cluster.ways(0), "");
}

#[tokio::test]
async fn a_new_agent_finds_everything_as_it_should_be_and_repairs_what_is_not() {
    if !ready() {
        return;
    }
    let mut cluster = Cluster::new(&[2, 1], true).await;
    cluster.introduce_all().await;
    let (a, c) = (cluster.pod(0, "a").await, cluster.pod(2, "c").await);
    let _server = traffic::serve(c.place.again(), Protocol::Tcp, 8080, "hi").await;
    let before = cluster.ways(0);
    // Whoever watches sees no route, neighbour or link change.
    let mut monitor = cluster.hosts[0].command("ip");
    monitor.args(["monitor", "route", "link"]);
    let monitor = cluster.hosts[0].spawn("monitor", monitor);
    cluster.hosts[0].run("ip route add 203.0.113.0/24 dev eth0");
    while !monitor.output().contains("203.0.113.0") {
        // It may have started later than the route came.
        cluster.hosts[0].run("ip route replace 203.0.113.0/24 dev eth0 metric 7");
        cluster.hosts[0].run("ip route del 203.0.113.0/24 dev eth0 metric 7");
    }
    cluster.nodes.remove(0);
    let (config, inside) = (cluster.config(0), cluster.hosts[0].network().runtime());
    let network = Arc::new(BridgeNetwork::new(config).unwrap());
    let again = network.clone();
    inside.run(async move { again.setup().await.unwrap() }).await;
    cluster.nodes.insert(0, Node { network: network.clone(), inside });
    cluster.introduce_all().await;
    assert_eq!(cluster.ways(0), before);
    assert_eq!(ask(&a, c.ip, 8080).await, said("hi", a.ip));
    let seen = monitor.output();
    assert!(!seen.lines().any(|line| line.contains("10.77.") || line.contains("mk8s")), "{seen}");

    for damage in ["ip link del mk8s-vxlan", "ip route flush proto 109", "ip link del mk8s0"] {
        cluster.hosts[0].run(damage);
        let network = network.clone();
        cluster.nodes[0].inside.run(async move { network.setup().await.unwrap() }).await;
        assert_eq!(cluster.ways(0), before, "{damage}");
        assert_eq!(ask(&a, c.ip, 8080).await, said("hi", a.ip), "{damage}");
    }
    cluster.nodes[0].inside.run(async move { network.teardown().await.unwrap() }).await;
    let left = cluster.hosts[0].run("ip -o link") + &cluster.hosts[0].run("ip route show table all");
    assert!(!left.contains("mk8") && !left.contains("10.77."), "{left}");
}

#[tokio::test]
async fn payloads_arrive_whole_through_a_service_behind_a_tunnel_and_packets_fit() {
    if !ready() {
        return;
    }
    let cluster = Cluster::new(&[1, 1], true).await;
    cluster.introduce_all().await;
    let (a, b) = (cluster.pod(0, "a").await, cluster.pod(1, "b").await);
    cluster.serve(&[SocketAddr::new(b.ip, 8080)]).await;
    assert!(a.place.run(|| output("ip -o link show eth0")).await.contains("mtu 1450"));
    let to = b.ip;
    // The largest whole packet, and one in pieces.
    for size in [1450 - 28, 4000] {
        a.place.run(move || output(&format!("busybox ping -q -c 1 -W 2 -s {size} {to}"))).await;
    }
    let cut = counter(&cluster.hosts[0].run("cat /proc/net/snmp"), "Ip:", "FragCreates");
    let listener = b.place.run(|| TcpListener::bind("0.0.0.0:8080").unwrap()).await;
    let receiver = std::thread::spawn(move || digest(listener.accept().unwrap().0));
    let sent = a.place.run(|| {
        let stream = TcpStream::connect((SERVICE, 80)).unwrap();
        pour(stream, 32 << 20)
    });
    assert_eq!(sent.await, receiver.join().unwrap());
    // By a node port, which translates both ends, into the tunnel.
    let listener = b.place.run(|| TcpListener::bind("0.0.0.0:8080").unwrap()).await;
    let receiver = std::thread::spawn(move || digest(listener.accept().unwrap().0));
    let at = SocketAddr::from((cluster.hosts[0].address(), NODE_PORT));
    let outside = cluster.hosts.outside().network();
    let sent = outside.run(move || pour(TcpStream::connect(at).unwrap(), 32 << 20)).await;
    assert_eq!(sent, receiver.join().unwrap());
    for host in cluster.hosts.iter() {
        let errors = host.run("cat /proc/net/snmp");
        assert_eq!(counter(&errors, "Tcp:", "InCsumErrors"), 0);
        assert_eq!(counter(&errors, "Udp:", "InCsumErrors"), 0);
        assert_eq!(counter(&errors, "Ip:", "FragCreates"), cut, "what pods send fits into the tunnel");
    }
}

/// Sends a reproducible stream, and says what it was.
fn pour(mut to: TcpStream, bytes: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut state = 1_u64;
    for _ in 0..bytes / 65_536 {
        let mut block = Vec::with_capacity(65_536);
        while block.len() < 65_536 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            block.extend_from_slice(&state.to_be_bytes());
        }
        hasher.write(&block);
        to.write_all(&block).unwrap();
    }
    hasher.finish()
}

/// What came, in the same blocks.
fn digest(mut from: TcpStream) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut block = vec![0; 65_536];
    while from.read_exact(&mut block).is_ok() {
        hasher.write(&block);
    }
    hasher.finish()
}

/// A number of `/proc/net/snmp`: names in one line, values in the next.
fn counter(text: &str, group: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter(|line| line.starts_with(group)).map(str::split_whitespace);
    let (names, mut values) = (lines.next().unwrap(), lines.next().unwrap());
    let index = names.into_iter().position(|n| n == name).unwrap();
    values.nth(index).unwrap().parse().unwrap()
}
