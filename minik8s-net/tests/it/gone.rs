//! Whoever is connected to a pod that is no more, or still asks for one.

use crate::machine::{Machine, NEIGHBOUR, on_machine, output};
use minik8s_core::network::{
    Endpoint, NetworkPlugin, Peer, PodAttachment, Protocol, ServiceEntry, ServicePortEntry, ServiceTable,
};
use minik8s_core::testkit::need::{self, Need};
use minik8s_core::testkit::network::{Bed, Place};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

async fn attach(machine: &Machine, id: &str) -> (Place, IpAddr) {
    let netns = machine.place().await;
    let request = PodAttachment { id: id.into(), netns: netns.clone(), ..PodAttachment::default() };
    let network = machine.bridge().attach(&request).await.unwrap();
    (Place::Pod(netns), network.ips[0])
}

fn service(pod: IpAddr) -> ServiceTable {
    let entry = ServiceEntry {
        namespace: "default".into(),
        name: "it".into(),
        cluster_ips: vec![VIRTUAL.into()],
        ports: vec![ServicePortEntry {
            port: 80,
            protocol: Protocol::Tcp,
            endpoints: vec![Endpoint { node: Some("here".to_owned()), ..Endpoint::new(pod, 8080) }],
            ..ServicePortEntry::default()
        }],
        ..ServiceEntry::default()
    };
    ServiceTable { services: [(("default".to_owned(), "it".to_owned()), Arc::new(entry))].into() }
}

async fn listen(machine: &Machine, at: &Place) -> TcpListener {
    let listen = || {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::UNSPECIFIED, 8080).into())?;
        socket.listen(64)
    };
    machine.namespace(at).run(listen).await.unwrap()
}

async fn connect(machine: &Machine, from: &Place, to: SocketAddr) -> TcpStream {
    let socket = machine.namespace(from).run(TcpSocket::new_v4).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), socket.connect(to)).await.expect("it listens").unwrap()
}

/// What becomes of somebody who says something, and waits.
async fn says(stream: &mut TcpStream) -> io::Result<usize> {
    let exchange = async {
        stream.write_all(b"still there?").await?;
        stream.read(&mut [0; 8]).await
    };
    tokio::time::timeout(Duration::from_secs(60), exchange).await.expect("it is told that nobody is there")
}

#[test]
fn connections_to_a_pod_that_went_without_a_word_are_reset() {
    if !need::met(&[Need::Root, Need::Program("ip"), Need::Program("nft")]) {
        return;
    }
    on_machine(async |machine| {
        let network = machine.bridge();
        network.setup().await.unwrap();
        let (client, _) = attach(&machine, "client").await;
        let (server, ip) = attach(&machine, "server").await;
        network.sync_services(Arc::new(service(ip))).await.unwrap();
        let listener = listen(&machine, &server).await;
        let (direct, by_service) = (SocketAddr::new(ip, 8080), SocketAddr::new(VIRTUAL.into(), 80));
        let mut all = Vec::new();
        for (from, to) in [(&Place::Host, direct), (&Place::Host, by_service), (&client, direct), (&client, by_service)]
        {
            all.push((from, to, connect(&machine, from, to).await));
        }
        // A pod that lives is nobody's to refuse: what it accepted it hears.
        for (from, to, stream) in &mut all {
            let (mut accepted, _) = listener.accept().await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            let mut heard = [0; 5];
            accepted.read_exact(&mut heard).await.unwrap_or_else(|error| panic!("{from:?} {to}: {error}"));
            // The connection stays as it is: its end would be told, were there still a way.
            std::mem::forget(accepted);
        }
        let (other, ip) = attach(&machine, "other").await;
        let _listening = listen(&machine, &other).await;
        network.sync_services(Arc::new(service(ip))).await.unwrap();
        network.detach("server").await.unwrap();
        for (from, to, stream) in &mut all {
            let error = says(stream).await.expect_err("nobody is there");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{from:?} {to}");
        }
        let asked = async |from: &Place| {
            let socket = machine.namespace(from).run(TcpSocket::new_v4).await.unwrap();
            tokio::time::timeout(Duration::from_secs(60), socket.connect(direct)).await
        };
        for from in [&Place::Host, &client] {
            let error = asked(from).await.expect("it is told at once").expect_err("nobody is there");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{from:?}");
        }
        drop(listener);
        network.teardown().await.unwrap();
    });
}

#[test]
fn who_still_asks_a_backend_of_another_node_is_led_elsewhere_when_that_one_goes() {
    if !need::met(&[Need::Root, Need::Program("ip"), Need::Program("nft")]) {
        return;
    }
    on_machine(async |machine| {
        let network = machine.bridge();
        network.setup().await.unwrap();
        let (client, _) = attach(&machine, "client").await;
        let (server, ip) = attach(&machine, "server").await;
        let listener = listen(&machine, &server).await;
        let by_service = SocketAddr::new(VIRTUAL.into(), 80);
        network.sync_services(Arc::new(service(ip))).await.unwrap();
        let mut before = connect(&machine, &client, by_service).await;
        let (mut accepted, _) = listener.accept().await.unwrap();
        // A node that says nothing: what is sent there is for nobody.
        let peer = Peer { node: "there".into(), address: NEIGHBOUR.into(), pod_cidr: "10.77.9.0/24".parse().unwrap() };
        network.sync_peers(&[peer]).await.unwrap();
        network.sync_services(Arc::new(service(Ipv4Addr::new(10, 77, 9, 2).into()))).await.unwrap();
        let asking = futures::future::join_all([&Place::Host, &client].map(|from| connect(&machine, from, by_service)));
        let changed = async {
            let asked = || output("cat /proc/net/nf_conntrack").matches("UNREPLIED] src=10.77.9.2").count();
            while asked() < 2 {
                tokio::task::yield_now().await;
            }
            network.sync_services(Arc::new(service(ip))).await.unwrap();
        };
        tokio::join!(asking, changed);
        // Who was connected to one that others are not led to any more still is.
        before.write_all(b"hello").await.unwrap();
        accepted.read_exact(&mut [0; 5]).await.unwrap();
        network.teardown().await.unwrap();
    });
}
