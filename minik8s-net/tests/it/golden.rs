//! What is encoded by hand reads in `nft list` as it was meant.

use crate::machine::{on_machine, output};
use minik8s_core::network::{
    Endpoint, HostPort, NetworkPlugin, PodAttachment, Protocol, ServiceEntry, ServicePortEntry, ServiceTable,
};
use minik8s_core::testkit::need::{self, Need};
use minik8s_core::testkit::network::Bed;
use std::net::Ipv4Addr;
use std::sync::Arc;

fn service(name: &str, last: u8, backends: &[u8]) -> ServiceEntry {
    let endpoint = |i: &u8| Endpoint {
        node: Some(if *i < 10 { "here" } else { "there" }.to_owned()),
        ..Endpoint::new(Ipv4Addr::new(10, 77, 0, *i), 8080)
    };
    ServiceEntry {
        namespace: "default".into(),
        name: name.into(),
        cluster_ips: vec![Ipv4Addr::new(10, 78, 0, last).into()],
        ports: vec![ServicePortEntry {
            port: 80,
            endpoints: backends.iter().map(endpoint).collect(),
            ..ServicePortEntry::default()
        }],
        ..ServiceEntry::default()
    }
}

fn table() -> ServiceTable {
    let mut local = service("local", 3, &[2, 12]);
    local.external_traffic_local = true;
    local.ports[0].node_port = 30080;
    let mut udp = service("udp", 5, &[2]);
    udp.ports[0].protocol = Protocol::Udp;
    let all = [
        service("many", 1, &[2, 3, 4]),
        ServiceEntry { affinity_seconds: Some(600), ..service("sticky", 2, &[2, 3]) },
        local,
        service("empty", 4, &[]),
        udp,
    ];
    ServiceTable { services: all.into_iter().map(|e| ((e.namespace.clone(), e.name.clone()), Arc::new(e))).collect() }
}

#[test]
fn the_table_reads_as_it_was_meant() {
    if !need::met(&[Need::Root, Need::Program("ip"), Need::Program("nft")]) {
        return;
    }
    on_machine(async |machine| {
        let network = machine.bridge();
        network.setup().await.unwrap();
        let port = |host_ip: Option<Ipv4Addr>, host_port| HostPort {
            host_ip: host_ip.map(Into::into),
            host_port,
            container_port: 80,
            protocol: Protocol::Tcp,
        };
        let request = PodAttachment {
            id: "a".into(),
            netns: machine.place().await,
            host_ports: vec![port(None, 9000), port(Some(Ipv4Addr::new(192, 0, 2, 2)), 9001)],
            ..PodAttachment::default()
        };
        network.attach(&request).await.unwrap();
        network.sync_services(Arc::new(table())).await.unwrap();
        let found = normal(&output("nft list table ip minik8s"));
        let wanted = normal(include_str!("golden.nft"));
        assert!(found == wanted, "wanted:\n{wanted}\nfound:\n{found}");
        network.teardown().await.unwrap();
    });
}

/// The order of a map's elements is the kernel's affair.
fn normal(text: &str) -> String {
    let mut out = String::new();
    let mut elements: Option<Vec<String>> = None;
    for line in text.lines().map(str::trim) {
        let first = line.strip_prefix("elements = {");
        if let Some(rest) = first.or(elements.is_some().then_some(line)) {
            let parts = rest.trim_end_matches('}').split(',').map(|part| part.trim().to_owned());
            elements.get_or_insert_default().extend(parts.filter(|part| !part.is_empty()));
            if line.ends_with('}') {
                let mut sorted = elements.take().unwrap_or_default();
                sorted.sort();
                sorted.iter().for_each(|element| out.push_str(&format!("element {element}\n")));
            }
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}
