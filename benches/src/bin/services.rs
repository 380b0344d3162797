//! How long service rules take: up to ten thousand services of ten endpoints from nothing, and one changed endpoint among
//! them; beside them the same services as kube-proxy writes them, loaded by `iptables-restore`, in the same run. Runs as
//! root in network namespaces of its own; needs Debian's `iptables`.

use anyhow::{Context, Result};
use minik8s_benches::{Table, Timings, in_own_network, progress, show};
use minik8s_core::network::{Endpoint, NetworkPlugin, ServiceEntry, ServicePortEntry, ServiceTable};
use minik8s_net::{BridgeConfig, BridgeNetwork};
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const ENDPOINTS: u32 = 10;
const ROUNDS: u32 = 50;
/// Others take longer for each.
const OTHER_ROUNDS: u32 = 7;

fn main() -> Result<()> {
    let mut table =
        Table::new(["services", "from nothing", "iptables-restore", "one change", "slowest", "iptables-restore"]);
    for count in [100, 1_000, 10_000] {
        progress(&format!("{count} services"));
        let ours = in_own_network(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(measure(count))
        })?;
        let theirs = in_own_network(move || measure_iptables(count))?;
        table.row([
            format!("{count} x {ENDPOINTS}"),
            show(ours.from_nothing),
            show(theirs.from_nothing),
            show(ours.changes.percentile(0.5)),
            show(ours.changes.percentile(1.0)),
            show(theirs.changes.percentile(0.5)),
        ]);
    }
    table.print("How long do service rules take?");
    Ok(())
}

/// What was seen.
struct Seen {
    from_nothing: Duration,
    changes: Timings,
}

async fn measure(count: u32) -> Result<Seen> {
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
    let mut changes = Timings::default();
    for round in 1..=ROUNDS {
        let entry = service(count / 2, round);
        table.services.insert((entry.namespace.clone(), entry.name.clone()), Arc::new(entry));
        changes.add(timed(network.sync_services(Arc::new(table.clone()))).await?);
    }
    network.teardown().await?;
    Ok(Seen { from_nothing, changes })
}

fn measure_iptables(count: u32) -> Result<Seen> {
    let all: Vec<String> = (0..count).map(|i| kube_proxy(i, 0)).collect();
    let dispatch: Vec<String> = (0..count)
        .map(|i| format!("-A KUBE-SERVICES -d {}/32 -p tcp --dport 80 -j KUBE-SVC-{i}\n", virtual_address(i)))
        .collect();
    let chains = |declare: bool| {
        move |text: &String| {
            text.lines()
                .filter(|line| line.starts_with(':') == declare)
                .map(|line| format!("{line}\n"))
                .collect::<String>()
        }
    };
    let (declared, rules): (String, String) =
        (all.iter().map(chains(true)).collect(), all.iter().map(chains(false)).collect());
    let script = format!(
        "*nat\n:KUBE-SERVICES - [0:0]\n{declared}-A PREROUTING -j KUBE-SERVICES\n{}{rules}COMMIT\n",
        dispatch.concat()
    );
    let from_nothing = iptables_restore(&[], script)?;
    let mut changes = Timings::default();
    for round in 1..=OTHER_ROUNDS {
        let one = format!("*nat\n{}COMMIT\n", kube_proxy(count / 2, round));
        changes.add(iptables_restore(&["--noflush"], one)?);
    }
    Ok(Seen { from_nothing, changes })
}

/// The chains of a service and of its endpoints.
fn kube_proxy(service: u32, round: u32) -> String {
    let mut declared = format!(":KUBE-SVC-{service} - [0:0]\n");
    let mut rules = String::new();
    for i in 0..ENDPOINTS {
        declared.push_str(&format!(":KUBE-SEP-{service}-{i} - [0:0]\n"));
        let chance = match ENDPOINTS - i {
            1 => String::new(),
            left => format!("-m statistic --mode random --probability {:.10} ", 1.0 / f64::from(left)),
        };
        rules.push_str(&format!("-A KUBE-SVC-{service} {chance}-j KUBE-SEP-{service}-{i}\n"));
        let to = backend(service, i, round);
        rules.push_str(&format!("-A KUBE-SEP-{service}-{i} -p tcp -j DNAT --to-destination {to}:8080\n"));
    }
    declared + &rules
}

fn iptables_restore(arguments: &[&str], script: String) -> Result<Duration> {
    let start = Instant::now();
    let mut child = Command::new("iptables-restore").args(arguments).stdin(Stdio::piped()).spawn()?;
    child.stdin.take().context("a pipe")?.write_all(script.as_bytes())?;
    anyhow::ensure!(child.wait()?.success(), "iptables-restore");
    Ok(start.elapsed())
}

async fn timed(work: impl Future<Output = Result<(), minik8s_core::network::NetworkError>>) -> Result<Duration> {
    let start = Instant::now();
    work.await?;
    Ok(start.elapsed())
}

fn backend(service: u32, endpoint: u32, round: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 0, 2)) + (service * ENDPOINTS + endpoint + round) % 60_000)
}

fn virtual_address(i: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 1)) + i)
}

fn service(i: u32, round: u32) -> ServiceEntry {
    let endpoint = |e| Endpoint::new(backend(i, e, round), 8080);
    ServiceEntry {
        namespace: "default".to_owned(),
        name: format!("svc-{i:05}"),
        cluster_ips: vec![virtual_address(i).into()],
        ports: vec![ServicePortEntry {
            port: 80,
            endpoints: (0..ENDPOINTS).map(endpoint).collect(),
            ..ServicePortEntry::default()
        }],
        ..ServiceEntry::default()
    }
}
