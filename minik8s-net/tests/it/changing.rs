//! Who calls a Service at the very moment in which its backends change.

use crate::machine::{Machine, on_machine};
use minik8s_core::network::{Endpoint, NetworkPlugin, PodAttachment, ServiceEntry, ServicePortEntry, ServiceTable};
use minik8s_core::testkit::need::{self, Need};
use minik8s_core::testkit::network::{Bed, Place};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpSocket;

const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
/// The backends: ports of one pod, of which this many at most are behind the Service.
const PORTS: std::ops::Range<u16> = 8080..8085;
/// Changes of the Service.
const CHANGES: usize = 1000;
/// A packet that meets a change may be lost, and is sent again after a second; two changes in a row, after three.
const PATIENCE: Duration = Duration::from_secs(20);

/// The Service with these backends.
fn service(pod: IpAddr, ports: &[u16]) -> Arc<ServiceTable> {
    let endpoint = |port: &u16| Endpoint { node: Some("here".to_owned()), ..Endpoint::new(pod, *port) };
    let port =
        ServicePortEntry { port: 80, endpoints: ports.iter().map(endpoint).collect(), ..ServicePortEntry::default() };
    let entry = ServiceEntry {
        namespace: "default".into(),
        name: "it".into(),
        cluster_ips: vec![VIRTUAL.into()],
        ports: vec![port],
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
fn call(stop: &AtomicBool) -> (usize, Vec<String>) {
    let (mut taken, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        match TcpStream::connect_timeout(&SocketAddr::new(VIRTUAL.into(), 80), PATIENCE) {
            Ok(mut stream) => {
                // Who closes last has its port again at once.
                let _ = stream.read_to_end(&mut Vec::new());
                taken += 1;
            }
            Err(error) => failed.push(error.to_string()),
        }
    }
    (taken, failed)
}

#[test]
fn nobody_is_turned_away_while_backends_come_and_go() {
    if !need::met(&[Need::Root, Need::Program("ip"), Need::Program("nft")]) {
        return;
    }
    on_machine(async |machine| {
        let network = machine.bridge();
        network.setup().await.unwrap();
        let netns = machine.place().await;
        let request = PodAttachment { id: "server".into(), netns: netns.clone(), ..PodAttachment::default() };
        let ip = network.attach(&request).await.unwrap().ips[0];
        let ports: Vec<u16> = PORTS.collect();
        for port in &ports {
            take(&machine, &Place::Pod(netns.clone()), *port).await;
        }
        network.sync_services(service(ip, &ports)).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let calling: Vec<_> = (0..2)
            .map(|_| {
                let stop = stop.clone();
                let host = machine.namespace(&Place::Host);
                tokio::spawn(async move { host.run(move || call(&stop)).await })
            })
            .collect();
        // More, fewer, and as many but others.
        for change in 0..CHANGES {
            let some = &ports[change % 2..][..1 + change % 4];
            network.sync_services(service(ip, some)).await.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        for called in calling {
            let (taken, failed) = called.await.unwrap();
            assert_eq!(failed, Vec::<String>::new(), "of {taken} calls");
            assert!(taken > CHANGES / 10, "{taken} calls");
        }
        network.teardown().await.unwrap();
    });
}
