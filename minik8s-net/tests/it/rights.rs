//! What pods may not do to each other, and what they are given all the same where there is no room for more.

use crate::machine::{Machine, ip, on_machine, output};
use crate::traffic::udp;
use minik8s_core::network::{
    Endpoint, HostPort, NetworkPlugin, PodAttachment, Protocol, ServiceEntry, ServicePortEntry, ServiceTable,
};
use minik8s_core::testkit::need::{self, Need};
use minik8s_core::testkit::network::{Answer, Bed, Place};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 10);

fn met() -> bool {
    need::met(&[Need::Root, Need::Program("ip"), Need::Program("nft")])
}

async fn pod(machine: &Machine, id: &str, host_ports: Vec<HostPort>) -> (Place, Ipv4Addr) {
    let request =
        PodAttachment { id: id.to_owned(), netns: machine.place().await, host_ports, ..PodAttachment::default() };
    let network = machine.bridge().attach(&request).await.unwrap();
    (Place::Pod(request.netns), network.ips[0].to_string().parse().unwrap())
}

#[test]
fn pods_send_with_their_own_address_only() {
    if !met() {
        return;
    }
    on_machine(async |machine| {
        let network = machine.bridge();
        network.setup().await.unwrap();
        let ((a, own), (_, other), (c, target)) =
            (pod(&machine, "a", vec![]).await, pod(&machine, "b", vec![]).await, pod(&machine, "c", vec![]).await);
        // Whatever the machine has set for all links.
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "2").unwrap();
        let socket = machine.namespace(&c).run(|| udp((Ipv4Addr::UNSPECIFIED, 9000).into())).await.unwrap();
        let inside = machine.namespace(&a);
        let sent = inside.run(move || {
            for (from, word) in [(other, "forged"), (Ipv4Addr::new(192, 0, 2, 9), "forged"), (own, "true")] {
                if from != own {
                    ip(&format!("addr add {from}/32 dev eth0"));
                }
                let socket = std::net::UdpSocket::bind((from, 0)).unwrap();
                socket.send_to(word.as_bytes(), (target, 9000)).unwrap();
            }
        });
        sent.await;
        let mut buffer = [0; 64];
        let came = tokio::time::timeout(Duration::from_secs(60), socket.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert_eq!((&buffer[..came.0], came.1.ip()), (&b"true"[..], IpAddr::V4(own)));
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").unwrap();
        network.teardown().await.unwrap();
    });
}

fn sticky(backends: &[Ipv4Addr], seconds: u32) -> Arc<ServiceTable> {
    let endpoints = backends.iter().map(|ip| Endpoint::new(*ip, 8080)).collect();
    let ports = vec![ServicePortEntry { port: 80, endpoints, ..ServicePortEntry::default() }];
    let entry = ServiceEntry {
        namespace: "d".into(),
        name: "web".into(),
        cluster_ips: vec![ADDRESS.into()],
        affinity_seconds: Some(seconds),
        ports,
        ..ServiceEntry::default()
    };
    Arc::new(ServiceTable { services: [(("d".to_owned(), "web".to_owned()), Arc::new(entry))].into() })
}

#[test]
fn clients_are_served_though_there_is_no_room_to_remember_them_and_known_when_their_time_changes() {
    if !met() {
        return;
    }
    on_machine(async |machine| {
        let network = machine.bridge();
        network.setup().await.unwrap();
        let ((client, _), (a, a_ip), (b, b_ip)) =
            (pod(&machine, "c", vec![]).await, pod(&machine, "a", vec![]).await, pod(&machine, "b", vec![]).await);
        let _servers =
            (machine.serve(&a, Protocol::Tcp, 8080, "a").await, machine.serve(&b, Protocol::Tcp, 8080, "b").await);
        network.sync_services(sticky(&[a_ip, b_ip], 600)).await.unwrap();
        let ask = async |from: &Place| match machine.ask(from, Protocol::Tcp, (ADDRESS, 80).into(), None).await {
            Answer::Said(words, _) => words,
            other => panic!("{other:?}"),
        };
        let first = ask(&client).await;
        let table = output("nft -a list tables");
        network.sync_services(sticky(&[a_ip, b_ip], 900)).await.unwrap();
        assert_eq!(output("nft -a list tables"), table, "the table was made anew");
        for _ in 0..10 {
            assert_eq!(ask(&client).await, first, "the client was forgotten");
        }
        for backend in [a_ip, b_ip] {
            let mut script = format!("add element ip minik8s svc/d/web/tcp/80/{backend}/8080 {{");
            (0..65_535u32).for_each(|n| write!(script, "{} timeout 1h,", Ipv4Addr::from(0xac10_0000 + n)).unwrap());
            let file = tempfile::NamedTempFile::new().unwrap();
            // The client is remembered already, so that there is no room for the last.
            std::fs::write(file.path(), script.replace("172.16.0.0 timeout 1h,", "") + "}").unwrap();
            let done = std::process::Command::new("nft").arg("-f").arg(file.path()).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            let _ = std::process::Command::new("nft")
                .arg(format!("add element ip minik8s svc/d/web/tcp/80/{backend}/8080 {{ 172.16.0.0 timeout 1h }}"))
                .output();
        }
        assert_eq!(ask(&client).await, first, "who is remembered stays");
        let new = ask(&Place::Host).await;
        assert!(["a", "b"].contains(&new.as_str()), "{new}");
        network.teardown().await.unwrap();
    });
}

#[test]
fn a_port_of_all_addresses_is_one_however_it_is_spelled() {
    if !met() {
        return;
    }
    on_machine(async |machine| {
        let network = machine.bridge();
        network.setup().await.unwrap();
        let port = |ip: Option<Ipv4Addr>, container_port| HostPort {
            host_ip: ip.map(Into::into),
            host_port: 9000,
            container_port,
            protocol: Protocol::Tcp,
        };
        let all = Some(Ipv4Addr::UNSPECIFIED);
        let (a, _) = pod(&machine, "a", vec![port(None, 80), port(all, 81)]).await;
        let _server = machine.serve(&a, Protocol::Tcp, 80, "first").await;
        let to = (machine.node_address(), 9000).into();
        let answer = machine.ask(&Place::Outside, Protocol::Tcp, to, None).await;
        assert!(matches!(&answer, Answer::Said(words, _) if words == "first"), "{answer:?}");
        let netns = machine.place().await;
        let again =
            PodAttachment { id: "b".into(), netns, host_ports: vec![port(all, 80)], ..PodAttachment::default() };
        let refused = network.attach(&again).await;
        assert!(refused.is_err(), "two pods have one port: {refused:?}");
        network.detach("a").await.unwrap();
        let left = output("nft list map ip minik8s host-ports");
        assert!(!left.contains("9000"), "{left}");
        network.teardown().await.unwrap();
    });
}
