//! Who calls a Service at the very moment in which its backends change.

use crate::machine::{Machine, NODE, on_machine};
use minik8s_core::network::{Endpoint, NetworkPlugin, PodAttachment, ServiceEntry, ServicePortEntry, ServiceTable};
use minik8s_core::testkit::need::{self, Need};
use minik8s_core::testkit::network::{Bed, Place};
use parking_lot::Mutex;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpSocket;

const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
/// The backends: ports of one pod, of which this many at most are behind the Service.
const PORTS: Range<u16> = 8080..8085;
const NODE_PORT: u16 = 30080;
/// Changes of the Service.
const CHANGES: usize = 500;
/// A packet that meets a change may be lost, and is sent again after a second; two changes in a row, after three.
const PATIENCE: Duration = Duration::from_secs(20);

/// The Service with these backends, where clients come to the same one again if `sticky`.
fn service(pod: IpAddr, ports: &[u16], sticky: bool) -> Arc<ServiceTable> {
    let endpoint = |port: &u16| Endpoint { node: Some("here".to_owned()), ..Endpoint::new(pod, *port) };
    let port = ServicePortEntry {
        port: 80,
        node_port: NODE_PORT,
        endpoints: ports.iter().map(endpoint).collect(),
        ..ServicePortEntry::default()
    };
    let entry = ServiceEntry {
        namespace: "default".into(),
        name: "it".into(),
        cluster_ips: vec![VIRTUAL.into()],
        ports: vec![port],
        affinity_seconds: sticky.then_some(600),
        ..ServiceEntry::default()
    };
    Arc::new(ServiceTable { services: [(("default".to_owned(), "it".to_owned()), Arc::new(entry))].into() })
}

/// Takes all connections of a port of a pod.
async fn take(machine: &Machine, at: &Place, port: u16) {
    let listen = move || {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
        socket.listen(1024)
    };
    let listener = machine.namespace(at).run(listen).await.unwrap();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
}

/// Connects again and again; how often that went well, and what was said where it did not.
fn call(to: SocketAddr, stop: &AtomicBool) -> (usize, Vec<io::ErrorKind>) {
    let (mut taken, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        match TcpStream::connect_timeout(&to, PATIENCE) {
            Ok(mut stream) => {
                // Who closes last has its port again at once.
                let _ = stream.read_to_end(&mut Vec::new());
                taken += 1;
            }
            Err(error) => failed.push(error.kind()),
        }
    }
    (taken, failed)
}

/// What callers of the Service are told while it goes through `states`: how many backends from which on, and whether it
/// is sticky. They call its address and the node's port, from the node itself and from outside.
fn told(states: &'static [(Range<usize>, bool)], calls: &'static [(Place, SocketAddr)]) -> Vec<io::ErrorKind> {
    let all = Arc::new(Mutex::new(Vec::new()));
    let seen = all.clone();
    on_machine(async move |machine| {
        let network = machine.bridge();
        network.setup().await.unwrap();
        // Of so many calls, those that have ended would fill what the kernel remembers.
        for state in ["time_wait", "close"] {
            std::fs::write(format!("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_{state}"), "1").unwrap();
        }
        let netns = machine.place().await;
        let request = PodAttachment { id: "server".into(), netns: netns.clone(), ..PodAttachment::default() };
        let ip = network.attach(&request).await.unwrap().ips[0];
        let ports: Vec<u16> = PORTS.collect();
        for port in &ports {
            take(&machine, &Place::Pod(netns.clone()), *port).await;
        }
        network.sync_services(service(ip, &ports, false)).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let calling: Vec<_> = calls
            .iter()
            .map(|(from, to)| {
                let (stop, from, to) = (stop.clone(), machine.namespace(from), *to);
                tokio::spawn(async move { from.run(move || call(to, &stop)).await })
            })
            .collect();
        for (some, sticky) in states.iter().cycle().take(CHANGES) {
            network.sync_services(service(ip, &ports[some.clone()], *sticky)).await.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        for called in calling {
            let (taken, failed) = called.await.unwrap();
            assert!(taken > CHANGES / 10, "{taken} calls, {failed:?}");
            seen.lock().extend(failed);
        }
        network.teardown().await.unwrap();
    });
    all.lock().clone()
}

const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(VIRTUAL), 80);
const PORT: SocketAddr = SocketAddr::new(IpAddr::V4(NODE), NODE_PORT);

fn ready() -> bool {
    need::met(&[Need::Root, Need::Program("ip"), Need::Program("nft")])
}

#[test]
fn nobody_is_turned_away_while_backends_come_and_go() {
    if !ready() {
        return;
    }
    // More, fewer, and as many but others.
    let states = &[(0..1, false), (1..3, false), (0..3, false), (1..5, false)];
    let told = told(states, &[(Place::Host, ADDRESS), (Place::Outside, PORT)]);
    assert_eq!(told, []);
}

#[test]
fn nobody_is_turned_away_while_clients_begin_and_cease_to_be_remembered() {
    if !ready() {
        return;
    }
    let states = &[(0..2, true), (0..2, false), (0..2, true), (1..3, true), (1..2, false)];
    let calls = &[(Place::Host, ADDRESS), (Place::Host, ADDRESS), (Place::Host, PORT), (Place::Outside, PORT)];
    let told = told(states, calls);
    assert_eq!(told, []);
}

/// Refused they may be while there is no backend; but who is told so by the node's own address, or of no route at all, was
/// led past the Service.
#[test]
fn first_backends_of_a_service_that_remembers_clients_come_and_go() {
    if !ready() {
        return;
    }
    let states = &[(0..3, true), (0..0, true), (0..1, true), (0..0, true), (2..4, false), (0..0, false)];
    let mut told = told(states, &[(Place::Host, ADDRESS), (Place::Host, ADDRESS)]);
    told.retain(|error| *error != io::ErrorKind::ConnectionRefused);
    assert_eq!(told, []);
}
