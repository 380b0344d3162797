//! How long service rules take: ten thousand services of ten endpoints from nothing, and one changed endpoint among
//! them; beside them the floor, `nft` fed with the same rules. Runs as root in a network namespace of its own.

#![allow(clippy::print_stdout, reason = "a report")]

use anyhow::{Context, Result};
use minik8s_core::network::{Endpoint, NetworkPlugin, ServiceEntry, ServicePortEntry, ServiceTable};
use minik8s_net::{BridgeConfig, BridgeNetwork};
use nix::sched::{CloneFlags, unshare};
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ENDPOINTS: u32 = 10;
const ROUNDS: u32 = 50;

fn main() -> Result<()> {
    let run = || {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace needs root")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        [100, 1_000, 10_000].into_iter().try_for_each(|count| runtime.block_on(measure(count)))
    };
    std::thread::spawn(run).join().map_err(|_| anyhow::anyhow!("the measurement panicked"))?
}

async fn measure(count: u32) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = BridgeConfig { dns_port: None, ..BridgeConfig::new(dir.path().join("state")) };
    let network = BridgeNetwork::new(config)?;
    network.setup().await?;
    let mut table = ServiceTable::default();
    for i in 0..count {
        let entry = service(i, 0);
        table.services.insert((entry.namespace.clone(), entry.name.clone()), Arc::new(entry));
    }
    let from_nothing = timed(network.sync_services(Arc::new(table.clone()))).await?;
    let listed = dir.path().join("rules.nft");
    let mut changes = Vec::new();
    for round in 1..=ROUNDS {
        let entry = service(count / 2, round);
        table.services.insert((entry.namespace.clone(), entry.name.clone()), Arc::new(entry));
        let next = Arc::new(table.clone());
        changes.push(timed(network.sync_services(next)).await?);
    }
    changes.sort();
    std::fs::write(&listed, script(count))?;
    network.teardown().await?;
    let floor = nft(&listed)?;
    let chain = format!("svc/default/svc-{:05}/tcp/80", count / 2);
    let one = dir.path().join("one.nft");
    std::fs::write(&one, format!("flush chain ip minik8s {chain}\nadd rule ip minik8s {chain} {}\n", dnat(count / 2)))?;
    let mut floors = (0..ROUNDS).map(|_| nft(&one)).collect::<Result<Vec<_>>>()?;
    floors.sort();
    Command::new("nft").args(["delete", "table", "ip", "minik8s"]).status()?;
    println!(
        "{count:>6} services x {ENDPOINTS}: from nothing {from_nothing:>9.2?} (nft -f {floor:>9.2?}), one change {:>9.2?} \
         worst {:>9.2?} (nft -f {:>9.2?})",
        changes[changes.len() / 2],
        changes[changes.len() - 1],
        floors[floors.len() / 2],
    );
    Ok(())
}

async fn timed(work: impl Future<Output = Result<(), minik8s_core::network::NetworkError>>) -> Result<Duration> {
    let start = Instant::now();
    work.await?;
    Ok(start.elapsed())
}

fn nft(file: &std::path::Path) -> Result<Duration> {
    let start = Instant::now();
    let status = Command::new("nft").arg("-f").arg(file).status()?;
    anyhow::ensure!(status.success(), "nft -f {}", file.display());
    Ok(start.elapsed())
}

fn backend(service: u32, endpoint: u32, round: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 0, 2)) + (service * ENDPOINTS + endpoint + round) % 60_000)
}

fn dnat(service: u32) -> String {
    let all: Vec<String> = (0..ENDPOINTS).map(|i| format!("{i} : {} . 8080", backend(service, i, 0))).collect();
    format!("meta l4proto tcp dnat ip to numgen random mod {ENDPOINTS} map {{ {} }}", all.join(", "))
}

/// The same services in nft's own words, as other implementations write them.
fn script(count: u32) -> String {
    let name = |i| format!("svc/default/svc-{i:05}/tcp/80");
    let chains: String = (0..count).map(|i| format!("chain {} {{ {}; }}\n", name(i), dnat(i))).collect();
    let address = |i| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 1)) + i);
    let elements: Vec<String> = (0..count).map(|i| format!("{} . tcp . 80 : goto {}", address(i), name(i))).collect();
    format!(
        "table ip minik8s {{\n{chains}map services {{ type ipv4_addr . inet_proto . inet_service : verdict; \
         elements = {{ {} }}; }}\nchain prerouting {{ type nat hook prerouting priority dstnat; \
         ip daddr . meta l4proto . th dport vmap @services; }}\n}}\n",
        elements.join(",\n")
    )
}

fn service(i: u32, round: u32) -> ServiceEntry {
    let endpoint = |e| Endpoint::new(backend(i, e, round), 8080);
    ServiceEntry {
        namespace: "default".to_owned(),
        name: format!("svc-{i:05}"),
        cluster_ips: vec![Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 1)) + i).into()],
        ports: vec![ServicePortEntry {
            port: 80,
            endpoints: (0..ENDPOINTS).map(endpoint).collect(),
            ..ServicePortEntry::default()
        }],
        ..ServiceEntry::default()
    }
}
