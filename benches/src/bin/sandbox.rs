//! A pod's start in the node's hands, call by call: sandbox, network, container, process; with sandboxes made ahead and
//! without, in turns, on the same containerd. Needs root, containerd and runc; works in a network namespace of its own.

use anyhow::{Context, Result, bail};
use minik8s_benches::{Table, Timings, again_in_own_network, show, times};
use minik8s_core::network::{NetworkPlugin, PodAttachment};
use minik8s_core::runtime::{ContainerSpec, Containers, Images, SandboxSpec, Sandboxes};
use minik8s_net::{BridgeConfig, BridgeNetwork};
use minik8s_runtime::{ContainerdConfig, ContainerdRuntime, PrivateContainerd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ROUNDS: usize = 40;
const SPARES: usize = 2;
const IMAGE: &str = "localhost/minik8s-bench:1";

fn main() -> Result<()> {
    again_in_own_network(inside)
}

async fn inside() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().to_owned();
    let containerd = tokio::task::spawn_blocking(move || PrivateContainerd::start(path.join("containerd"))).await??;
    let archive = minik8s_runtime::testing::busybox_image(directory.path())?;
    let network = BridgeNetwork::new(BridgeConfig {
        node: "bench".into(),
        ..BridgeConfig::new(directory.path().join("network"))
    })?;
    network.setup().await?;
    let logs = directory.path().join("logs");
    let mut sides = Vec::new();
    for spares in [0, SPARES] {
        sides.push(Side::open(&containerd, directory.path(), &archive, spares).await?);
    }
    for round in 0..=ROUNDS {
        for side in &mut sides {
            side.start(&network, &logs, round).await?;
        }
    }
    print(&sides);
    network.teardown().await?;
    drop(sides);
    tokio::task::spawn_blocking(move || containerd.destroy()).await??;
    Ok(())
}

const CALLS: [&str; 4] = ["sandbox", "network", "create", "start"];

/// A runtime with some spares, or none, and how long its calls took.
struct Side {
    runtime: ContainerdRuntime,
    config: ContainerdConfig,
    calls: [Timings; 4],
    all: Timings,
}

impl Side {
    async fn open(containerd: &PrivateContainerd, home: &Path, archive: &Path, spares: usize) -> Result<Self> {
        let mut config = containerd.config();
        config.namespace = format!("bench-{spares}");
        config.root = home.join(format!("records-{spares}"));
        config.state = config.state.with_file_name(format!("rt-{spares}"));
        config.spare_sandboxes = spares;
        let runtime = ContainerdRuntime::connect(config.clone()).await?;
        runtime.import(archive.to_owned(), Some(IMAGE)).await?;
        Ok(Self { runtime, config, calls: Default::default(), all: Timings::default() })
    }

    /// One pod, from its sandbox to its process, and gone again. The first one is not counted: it makes what is made once.
    async fn start(&mut self, network: &BridgeNetwork, logs: &Path, round: usize) -> Result<()> {
        if round > 0 {
            self.rest().await?;
        }
        let id = format!("{}-{round}", self.config.namespace);
        let sandbox = SandboxSpec { id: id.clone(), hostname: id.clone(), ..SandboxSpec::default() };
        let container = ContainerSpec {
            id: format!("{id}-c"),
            image: IMAGE.into(),
            command: vec!["sleep".into(), "1000000".into()],
            log_path: logs.join(&id),
            ..ContainerSpec::default()
        };
        let mut took = Vec::new();
        let mut at = Instant::now();
        let mut lap = || took.push(std::mem::replace(&mut at, Instant::now()).elapsed());
        let made = self.runtime.run_sandbox(&sandbox).await?;
        lap();
        let netns: PathBuf = made.netns.context("no network namespace")?;
        let pod = PodAttachment {
            id: id.clone(),
            namespace: "default".into(),
            name: id.clone(),
            netns,
            host_ports: Vec::new(),
        };
        network.attach(&pod).await?;
        lap();
        self.runtime.create_container(&id, &container).await?;
        lap();
        self.runtime.start_container(&container.id).await?;
        lap();
        network.detach(&id).await?;
        self.runtime.remove_sandbox(&id).await?;
        if round > 0 {
            self.all.add(took.iter().sum());
            self.calls.iter_mut().zip(took).for_each(|(timings, took)| timings.add(took));
        }
        Ok(())
    }

    /// Until the machine has done what the last pod left it to do: spares are there again.
    async fn rest(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(30);
        tokio::time::sleep(Duration::from_millis(200)).await;
        while self.ready() < self.config.spare_sandboxes {
            if Instant::now() > end {
                bail!("no spares are made");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn ready(&self) -> usize {
        let all = std::fs::read_dir(self.config.state.join("spares")).into_iter().flatten().flatten();
        all.filter(|entry| entry.file_name().to_string_lossy().starts_with("ready-")).count()
    }
}

fn print(sides: &[Side]) {
    let [without, with] = sides else { return };
    let mut table = Table::new(["call", "made p50", "made p95", "spare p50", "spare p95", "ratio"]);
    let mut row = |name: &str, made: &Timings, spare: &Timings| {
        let of = |timings: &Timings, share| show(timings.percentile(share));
        let ratio = times(spare.percentile(0.5), made.percentile(0.5));
        table.row([name.to_owned(), of(made, 0.5), of(made, 0.95), of(spare, 0.5), of(spare, 0.95), ratio]);
    };
    for (name, (made, spare)) in CALLS.iter().zip(without.calls.iter().zip(&with.calls)) {
        row(name, made, spare);
    }
    row("all", &without.all, &with.all);
    table.print("a pod's start, call by call, with its sandbox made for it and with one made ahead");
}
