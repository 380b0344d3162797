//! How many questions a second the cluster's name server answers by UDP, asked by Debian's `dnsperf` for addresses of a
//! thousand Services, one answer in ten being that there is no such name. Asker and server share the processors of this
//! machine, in a network namespace of its own; runs as root and takes half a minute. Needs Debian's `dnsperf`.
//!
//! The floor is the same asker and a socket that sends every question back as its answer, for which no work is done.

use anyhow::{Context, Result};
use minik8s_benches::{Table, in_own_network};
use minik8s_core::network::{NetworkPlugin, ServiceEntry, ServicePortEntry, ServiceTable};
use minik8s_net::{BridgeConfig, BridgeNetwork};
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

const SERVICES: u32 = 1_000;
const ROUNDS: usize = 5;
const SECONDS: &str = "3";

fn main() -> Result<()> {
    in_own_network(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(measure())
    })
}

async fn measure() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = BridgeConfig { upstreams: Some(Vec::new()), ..BridgeConfig::new(dir.path().join("state")) };
    let network = BridgeNetwork::new(config)?;
    network.setup().await?;
    let services = (0..SERVICES).map(service).map(|e| ((e.namespace.clone(), e.name.clone()), Arc::new(e))).collect();
    network.sync_services(Arc::new(ServiceTable { services })).await?;
    let questions = dir.path().join("questions");
    std::fs::write(&questions, script())?;
    let ours = network.dns_address().await.context("no name server")?;
    let mirror = UdpSocket::bind((ours.ip(), 0))?;
    let floor = mirror.local_addr()?;
    std::thread::spawn(move || reflect(&mirror));
    let (mut seen, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        seen.push(ask(&questions, ours).await?);
        floors.push(ask(&questions, floor).await?);
    }
    network.teardown().await?;
    let (ours, floor) = (median(seen), median(floors));
    let mut table = Table::new(["server", "questions a second", "of the floor"]);
    table.row(["minik8s".to_owned(), format!("{ours:.0}"), format!("{:.3}×", ours / floor)]);
    table.row(["floor: every question sent back".to_owned(), format!("{floor:.0}"), "1.000×".to_owned()]);
    table.print(&format!(
        "How many questions are answered? Medians of {ROUNDS} rounds; the asker has part of the cores."
    ));
    Ok(())
}

/// Lets `dnsperf` ask for a while. Returns answers in a second.
async fn ask(questions: &Path, server: SocketAddr) -> Result<f64> {
    let (questions, ip, port) = (questions.to_owned(), server.ip().to_string(), server.port().to_string());
    let run = move || {
        let mut command = Command::new("dnsperf");
        command
            .arg("-d")
            .arg(questions)
            .args(["-s", &ip, "-p", &port, "-l", SECONDS, "-c", "8", "-T", "1", "-q", "200"]);
        command.output()
    };
    let output = tokio::task::spawn_blocking(run).await?.context("dnsperf")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = text.lines().find_map(|line| line.trim().strip_prefix("Queries per second:"));
    rate.with_context(|| format!("dnsperf said: {text}"))?.trim().parse().context("a number of questions")
}

fn reflect(socket: &UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        if let Some(flags) = buffer.get_mut(2) {
            *flags |= 0x80;
        }
        let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), peer);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn script() -> String {
    (0..SERVICES).fold(String::new(), |mut text, i| {
        let name = if i % 10 == 9 { "none" } else { "svc" };
        let _ = writeln!(text, "{name}-{i:05}.default.svc.cluster.local A");
        text
    })
}

fn service(i: u32) -> ServiceEntry {
    ServiceEntry {
        namespace: "default".to_owned(),
        name: format!("svc-{i:05}"),
        cluster_ips: vec![Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 1)) + i).into()],
        ports: vec![ServicePortEntry { port: 80, ..ServicePortEntry::default() }],
        ..ServiceEntry::default()
    }
}
