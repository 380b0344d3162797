//! Services: virtual addresses, ports of nodes and of pods; what is gone gets no traffic.

use super::bed::{Answer, Bed, Place, Server, TestPod, pod, pod_with};
use super::table::{Service, table};
use crate::network::{HostPort, NetworkError, Protocol, ServiceTable};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 10);

fn virtual_address(port: u16) -> SocketAddr {
    (ADDRESS, port).into()
}

/// Two pods that answer `a` and `b` at port 8080 by a protocol.
struct Pair {
    pods: [TestPod; 2],
    _servers: Vec<Server>,
}

async fn pair(bed: &dyn Bed, protocols: &[Protocol]) -> Pair {
    let pods = [pod(bed, "a").await, pod(bed, "b").await];
    let mut servers = Vec::new();
    for protocol in protocols {
        for pod in &pods {
            servers.push(bed.serve(&pod.place, *protocol, 8080, &pod.request.id).await);
        }
    }
    Pair { pods, _servers: servers }
}

/// Everything that answers a client in a number of tries.
async fn answers(bed: &dyn Bed, from: &Place, protocol: Protocol, to: SocketAddr, tries: usize) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for _ in 0..tries {
        match bed.ask(from, protocol, to, None).await {
            Answer::Said(words, _) => all.insert(words),
            other => all.insert(format!("{other:?}")),
        };
    }
    all
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

async fn sync(bed: &dyn Bed, table: ServiceTable) {
    bed.network().sync_services(Arc::new(table)).await.expect("sync services");
}

pub(super) async fn any_table_is_taken_any_number_of_times(bed: &dyn Bed) {
    let full = table([
        Service::new("web", ADDRESS).backed_at(&["10.77.0.2", "10.77.0.3"]),
        Service::new("empty", Ipv4Addr::new(10, 78, 0, 11)),
        Service::headless("nodes").backed_at(&["10.77.0.2"]),
        Service::external("far", "example.org"),
    ]);
    for table in [full.clone(), full.clone(), ServiceTable::default(), full, ServiceTable::default()] {
        let table = Arc::new(table);
        bed.network().sync_services(table.clone()).await.expect("sync");
        bed.network().sync_services(table).await.expect("sync again");
    }
}

pub(super) async fn a_virtual_address_reaches_every_endpoint_from_pods_and_host(bed: &dyn Bed) {
    let pair = pair(bed, &[Protocol::Tcp]).await;
    let client = pod(bed, "client").await;
    sync(bed, table([Service::new("web", ADDRESS).backed_by(&pair.pods)])).await;
    for from in [&client.place, &Place::Host] {
        assert_eq!(answers(bed, from, Protocol::Tcp, virtual_address(80), 30).await, set(&["a", "b"]), "{from:?}");
    }
    // The address of the client is kept.
    let Answer::Said(_, seen) = bed.ask(&client.place, Protocol::Tcp, virtual_address(80), None).await else {
        panic!("no answer");
    };
    assert_eq!(seen, client.ip());
}

pub(super) async fn a_pod_reaches_itself_by_its_service(bed: &dyn Bed) {
    let pair = pair(bed, &[Protocol::Tcp, Protocol::Udp]).await;
    let [a, _] = &pair.pods;
    let service = Service::new("web", ADDRESS).backed_by(std::slice::from_ref(a));
    sync(bed, table([service.clone().both_protocols()])).await;
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        assert_eq!(answers(bed, &a.place, protocol, virtual_address(80), 3).await, set(&["a"]), "{protocol:?}");
    }
}

pub(super) async fn ports_and_protocols_are_apart(bed: &dyn Bed) {
    let pair = pair(bed, &[Protocol::Tcp]).await;
    let _udp = bed.serve(&pair.pods[1].place, Protocol::Udp, 8080, "datagram").await;
    let service = Service::new("web", ADDRESS)
        .backed_by(&pair.pods[..1])
        .port(81, Protocol::Tcp)
        .backed_by(&pair.pods[1..])
        .port(80, Protocol::Udp)
        .backed_by(&pair.pods[1..]);
    sync(bed, table([service])).await;
    for from in [Place::Host, pair.pods[0].place.clone()] {
        assert_eq!(answers(bed, &from, Protocol::Tcp, virtual_address(80), 4).await, set(&["a"]));
        assert_eq!(answers(bed, &from, Protocol::Tcp, virtual_address(81), 4).await, set(&["b"]));
        assert_eq!(answers(bed, &from, Protocol::Udp, virtual_address(80), 4).await, set(&["datagram"]));
        assert_eq!(answers(bed, &from, Protocol::Tcp, virtual_address(82), 1).await, set(&["Refused"]));
    }
}

pub(super) async fn node_ports_answer_on_every_address_of_the_node(bed: &dyn Bed) {
    let pair = pair(bed, &[Protocol::Tcp, Protocol::Udp]).await;
    let service = Service::new("web", ADDRESS).backed_by(&pair.pods).node_port(30080).both_protocols();
    sync(bed, table([service])).await;
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let node: SocketAddr = (bed.node_address(), 30080).into();
        for from in [Place::Outside, Place::Host, pair.pods[0].place.clone()] {
            assert_eq!(answers(bed, &from, protocol, node, 30).await, set(&["a", "b"]), "{protocol:?} {from:?}");
        }
        let loopback = (Ipv4Addr::LOCALHOST, 30080).into();
        assert_eq!(answers(bed, &Place::Host, protocol, loopback, 30).await, set(&["a", "b"]), "{protocol:?}");
    }
}

pub(super) async fn external_addresses_lead_to_the_service(bed: &dyn Bed) {
    let pair = pair(bed, &[Protocol::Tcp]).await;
    let address = Ipv4Addr::new(203, 0, 113, 7);
    sync(bed, table([Service::new("web", ADDRESS).backed_by(&pair.pods).external_ip(address)])).await;
    for from in [Place::Outside, pair.pods[0].place.clone()] {
        let found = answers(bed, &from, Protocol::Tcp, (address, 80).into(), 30).await;
        assert_eq!(found, set(&["a", "b"]), "{from:?}");
    }
}

pub(super) async fn clients_stay_with_their_endpoint_until_it_is_gone(bed: &dyn Bed) {
    let pair = pair(bed, &[Protocol::Tcp]).await;
    let clients = [pod(bed, "c1").await.place, pod(bed, "c2").await.place, Place::Host];
    let service = |pods: &[TestPod]| table([Service::new("web", ADDRESS).backed_by(pods).affinity(600)]);
    sync(bed, service(&pair.pods)).await;
    for client in &clients {
        let found = answers(bed, client, Protocol::Tcp, virtual_address(80), 12).await;
        assert_eq!(found.len(), 1, "{client:?} did not stay: {found:?}");
    }
    sync(bed, service(&pair.pods[1..])).await;
    for client in &clients {
        assert_eq!(answers(bed, client, Protocol::Tcp, virtual_address(80), 4).await, set(&["b"]), "{client:?}");
    }
    sync(bed, service(&pair.pods)).await;
    for client in &clients {
        assert_eq!(answers(bed, client, Protocol::Tcp, virtual_address(80), 12).await, set(&["b"]), "{client:?}");
    }
}

pub(super) async fn without_endpoints_clients_are_refused_at_once(bed: &dyn Bed) {
    let client = pod(bed, "client").await;
    sync(bed, table([Service::new("web", ADDRESS).node_port(30080).both_protocols()])).await;
    let nowhere = (Ipv4Addr::new(10, 78, 99, 99), 80).into();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for from in [&client.place, &Place::Host] {
            for to in [virtual_address(80), nowhere] {
                assert_eq!(bed.ask(from, protocol, to, None).await, Answer::Refused, "{protocol:?} {from:?} to {to}");
            }
        }
        let node = (bed.node_address(), 30080).into();
        assert_eq!(bed.ask(&Place::Outside, protocol, node, None).await, Answer::Refused, "{protocol:?} node port");
    }
}

pub(super) async fn a_removed_endpoint_gets_no_traffic(bed: &dyn Bed) {
    let pair = pair(bed, &[Protocol::Tcp, Protocol::Udp]).await;
    let service = |pods: &[TestPod]| table([Service::new("web", ADDRESS).backed_by(pods).both_protocols()]);
    sync(bed, service(&pair.pods)).await;
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        assert_eq!(answers(bed, &Place::Host, protocol, virtual_address(80), 30).await, set(&["a", "b"]));
    }
    sync(bed, service(&pair.pods[..1])).await;
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        assert_eq!(answers(bed, &Place::Host, protocol, virtual_address(80), 30).await, set(&["a"]));
    }
}

/// A client that keeps its port, such as a resolver, is one flow for ever.
pub(super) async fn a_flow_of_datagrams_leaves_a_removed_endpoint(bed: &dyn Bed) {
    let pair = pair(bed, &[Protocol::Udp]).await;
    let client = pod(bed, "client").await;
    let service = |pods: &[TestPod]| table([Service::new("web", ADDRESS).udp().backed_by(pods).node_port(30053)]);
    let node: SocketAddr = (bed.node_address(), 30053).into();
    let clients = [(client.place.clone(), virtual_address(80)), (Place::Outside, node)];
    for (from, to) in &clients {
        // Before there is a service, the flow leads nowhere.
        assert_eq!(bed.ask(from, Protocol::Udp, *to, Some(5353)).await, Answer::Refused, "{from:?}");
    }
    for [here, there] in [[0, 1], [1, 0], [0, 1]] {
        sync(bed, service(&pair.pods[here..=here])).await;
        let other = &pair.pods[there].request.id;
        for (from, to) in &clients {
            let answer = bed.ask(from, Protocol::Udp, *to, Some(5353)).await;
            assert_eq!(answer.text(), Some(&*pair.pods[here].request.id), "{from:?}, not {other}: {answer:?}");
        }
    }
}

pub(super) async fn deleting_a_service_leaves_those_with_a_longer_name(bed: &dyn Bed) {
    let pair = pair(bed, &[Protocol::Tcp]).await;
    let other = Ipv4Addr::new(10, 78, 0, 20);
    let short = Service::new("svc", ADDRESS).backed_by(&pair.pods[..1]);
    let long = Service::new("svc2", other).backed_by(&pair.pods[1..]);
    sync(bed, table([short, long.clone()])).await;
    assert_eq!(answers(bed, &Place::Host, Protocol::Tcp, virtual_address(80), 2).await, set(&["a"]));
    sync(bed, table([long])).await;
    assert_eq!(answers(bed, &Place::Host, Protocol::Tcp, virtual_address(80), 1).await, set(&["Refused"]));
    assert_eq!(answers(bed, &Place::Host, Protocol::Tcp, (other, 80).into(), 2).await, set(&["b"]));
}

pub(super) async fn outside_traffic_stays_on_the_node_where_it_should(bed: &dyn Bed) {
    let pair = pair(bed, &[Protocol::Tcp]).await;
    let [a, b] = &pair.pods;
    let service = Service::new("web", ADDRESS).backed_on(std::slice::from_ref(a), "here");
    let service = service.backed_on(std::slice::from_ref(b), "there").node_port(30080).external_local();
    sync(bed, table([service])).await;
    let node: SocketAddr = (bed.node_address(), 30080).into();
    assert_eq!(answers(bed, &Place::Outside, Protocol::Tcp, node, 20).await, set(&["a"]));
    assert_eq!(answers(bed, &Place::Host, Protocol::Tcp, node, 30).await, set(&["a", "b"]));
    assert_eq!(answers(bed, &a.place, Protocol::Tcp, virtual_address(80), 30).await, set(&["a", "b"]));
    let Answer::Said(_, seen) = bed.ask(&Place::Outside, Protocol::Tcp, node, None).await else { panic!("no answer") };
    assert_eq!(seen.to_string(), "192.0.2.9", "the client's address is kept");
    let away = Service::new("web", ADDRESS).backed_on(&pair.pods, "there").node_port(30080).external_local();
    sync(bed, table([away])).await;
    assert_eq!(bed.ask(&Place::Outside, Protocol::Tcp, node, None).await, Answer::Refused);
}

pub(super) async fn inside_traffic_stays_on_the_node_where_it_should(bed: &dyn Bed) {
    let pair = pair(bed, &[Protocol::Tcp]).await;
    let [a, b] = &pair.pods;
    let service = Service::new("web", ADDRESS).backed_on(std::slice::from_ref(a), "there");
    let service = service.backed_on(std::slice::from_ref(b), "here").node_port(30080).internal_local();
    sync(bed, table([service])).await;
    assert_eq!(answers(bed, &a.place, Protocol::Tcp, virtual_address(80), 20).await, set(&["b"]));
    let node = (bed.node_address(), 30080).into();
    assert_eq!(answers(bed, &Place::Outside, Protocol::Tcp, node, 30).await, set(&["a", "b"]));
}

fn host_port(host_ip: Option<Ipv4Addr>, port: u16, protocol: Protocol) -> HostPort {
    HostPort { host_ip: host_ip.map(Into::into), host_port: port, container_port: 8080, protocol }
}

pub(super) async fn ports_of_the_host_lead_to_the_pod(bed: &dyn Bed) {
    let node = bed.node_address();
    let ports = vec![
        host_port(None, 9000, Protocol::Tcp),
        host_port(None, 9000, Protocol::Udp),
        host_port(Some(node), 9001, Protocol::Tcp),
    ];
    let a = pod_with(bed, "a", ports).await;
    let other = pod(bed, "other").await;
    let _servers =
        [bed.serve(&a.place, Protocol::Tcp, 8080, "a").await, bed.serve(&a.place, Protocol::Udp, 8080, "a").await];
    for from in [&Place::Outside, &Place::Host, &other.place] {
        for (protocol, port) in [(Protocol::Tcp, 9000), (Protocol::Udp, 9000), (Protocol::Tcp, 9001)] {
            let answer = bed.ask(from, protocol, (node, port).into(), None).await;
            assert_eq!(answer.text(), Some("a"), "{protocol:?} {port} from {from:?}");
        }
    }
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    assert_eq!(bed.ask(&Place::Host, Protocol::Tcp, loopback(9000), None).await.text(), Some("a"));
    assert_eq!(bed.ask(&Place::Host, Protocol::Tcp, loopback(9001), None).await, Answer::Refused);
    bed.network().detach("a").await.expect("detach");
    assert_eq!(bed.ask(&Place::Outside, Protocol::Tcp, (node, 9000).into(), None).await, Answer::Refused);
}

pub(super) async fn a_port_of_the_host_is_given_once(bed: &dyn Bed) {
    let ports = || vec![host_port(None, 9000, Protocol::Tcp)];
    let first = pod_with(bed, "first", ports()).await;
    let second = super::bed::request("second", bed.place().await, ports());
    let refused = bed.network().attach(&second).await;
    assert!(matches!(refused, Err(NetworkError::Taken { what: "port", .. })), "{refused:?}");
    bed.network().detach(&first.request.id).await.expect("detach");
    bed.network().attach(&second).await.expect("attach");
}

pub(super) async fn flushed_rules_are_repaired(bed: &dyn Bed) {
    let pair = pair(bed, &[Protocol::Tcp]).await;
    let table = Arc::new(table([Service::new("web", ADDRESS).backed_by(&pair.pods)]));
    bed.network().sync_services(table.clone()).await.expect("sync");
    for round in 0..3 {
        bed.flush_rules().await;
        match round {
            0 => bed.network().sync_services(table.clone()).await.expect("sync"),
            1 => bed.network().setup().await.expect("setup"),
            _ => {
                // Whatever notices first repairs everything.
                let _pod = pod(bed, "late").await;
            }
        }
        let found = answers(bed, &Place::Host, Protocol::Tcp, virtual_address(80), 30).await;
        assert_eq!(found, set(&["a", "b"]), "round {round}");
    }
}

pub(super) async fn services_go_on_after_a_kill(bed: &dyn Bed) {
    let pair = pair(bed, &[Protocol::Tcp]).await;
    let table = Arc::new(table([Service::new("web", ADDRESS).backed_by(&pair.pods)]));
    bed.network().sync_services(table.clone()).await.expect("sync");
    let network = bed.reopen().await;
    let ask = async || answers(bed, &pair.pods[0].place, Protocol::Tcp, virtual_address(80), 30).await;
    assert_eq!(ask().await, set(&["a", "b"]), "while nobody is there");
    network.setup().await.expect("setup");
    network.sync_services(table).await.expect("sync");
    assert_eq!(ask().await, set(&["a", "b"]), "with a successor");
}

pub(super) async fn pods_are_told_names_and_names_follow_the_table(bed: &dyn Bed) {
    let pair = pair(bed, &[]).await;
    let [a, b] = &pair.pods;
    let config = bed.network().dns();
    assert!(!config.servers.is_empty() && config.domain == "cluster.local", "{config:?}");
    let web = "web.default.svc.cluster.local.";
    let nodes = "nodes.default.svc.cluster.local.";
    assert!(bed.resolve(&a.place, web).await.is_empty());
    let headless = |pods: &[TestPod]| Service::headless("nodes").backed_by(pods);
    sync(bed, table([Service::new("web", ADDRESS).backed_by(&pair.pods), headless(&pair.pods)])).await;
    for from in [&a.place, &Place::Host] {
        assert_eq!(bed.resolve(from, web).await, [ADDRESS], "{from:?}");
        let mut found = bed.resolve(from, nodes).await;
        found.sort();
        assert_eq!(found, [a.ip(), b.ip()], "{from:?}");
    }
    sync(bed, table([headless(&pair.pods[1..])])).await;
    assert!(bed.resolve(&a.place, web).await.is_empty());
    assert_eq!(bed.resolve(&a.place, nodes).await, [b.ip()]);
}

pub(super) async fn ten_thousand_services_and_one_change(bed: &dyn Bed) {
    let pair = pair(bed, &[Protocol::Tcp]).await;
    let address = |i: u16| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 78, 10, 0)) + u32::from(i));
    let service = |i: u16, pods: &[TestPod]| Service::new(&format!("svc-{i}"), address(i)).backed_by(pods);
    let mut full = table((0..10_000).map(|i| service(i, &pair.pods)));
    sync(bed, full.clone()).await;
    for i in [0, 7_777, 9_999] {
        let found = answers(bed, &Place::Host, Protocol::Tcp, (address(i), 80).into(), 30).await;
        assert_eq!(found, set(&["a", "b"]), "service {i}");
    }
    full.services.extend(table([service(7_777, &pair.pods[1..])]).services);
    sync(bed, full).await;
    let found = answers(bed, &Place::Host, Protocol::Tcp, (address(7_777), 80).into(), 10).await;
    assert_eq!(found, set(&["b"]));
}
