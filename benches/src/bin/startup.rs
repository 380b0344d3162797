//! How soon does a cluster answer, and how much memory does it hold when nothing happens?
//!
//! The program `minik8s up --runtime fake --network noop --store memory` is started as a user would: from `exec` to the
//! first answer of `/readyz` over TLS. Beside it, the floor: starting the same program to print its version, which is
//! what the kernel and the loader take.

use anyhow::{Context, Result, bail};
use minik8s_benches::{Table, Timings, show, times};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RUNS: usize = 20;
/// Idle means: nothing was asked for so long.
const IDLE: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    let program = program()?;
    let mut floor = Timings::default();
    for _ in 0..RUNS {
        let began = Instant::now();
        Command::new(&program).args(["version", "--client"]).stdout(Stdio::null()).status()?;
        floor.add(began.elapsed());
    }
    let mut table =
        Table::new(["store", "ready p50", "ready p99", "program start p50", "ratio", "idle memory", "goal"]);
    for store in ["memory", "embedded"] {
        let mut ready = Timings::default();
        for _ in 0..RUNS {
            let directory = tempfile::tempdir()?;
            let began = Instant::now();
            let cluster = Up::start(&program, directory.path(), store)?;
            ready.add(began.elapsed());
            drop(cluster);
        }
        let directory = tempfile::tempdir()?;
        let cluster = Up::start(&program, directory.path(), store)?;
        std::thread::sleep(IDLE);
        let memory = cluster.memory()?;
        let (p50, base) = (ready.percentile(0.5), floor.percentile(0.5));
        table.row([
            store.to_owned(),
            show(p50),
            show(ready.percentile(0.99)),
            show(base),
            times(p50, base),
            format!("{:.1} MiB", memory as f64 / f64::from(1 << 20)),
            "50 ms, 50 MB".to_owned(),
        ]);
    }
    table.print("process start to a ready API, and memory when idle (resident, shared pages included)");
    Ok(())
}

/// The program beside this one, built by the same call.
fn program() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("minik8s");
    if !path.is_file() {
        bail!("{} is not built; `make bench` builds it", path.display());
    }
    Ok(path)
}

struct Up(Child);

impl Up {
    /// Started, and ready: it says so only when the API answers.
    fn start(program: &Path, data: &Path, store: &str) -> Result<Self> {
        let mut child = Command::new(program)
            .args(["up", "--listen", "127.0.0.1:0", "--runtime", "fake", "--network", "noop", "--store", store])
            .arg("--data-dir")
            .arg(data.join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let out = child.stdout.take().context("no pipe")?;
        let up = Self(child);
        let line = BufReader::new(out).lines().next().context("it ended at once")??;
        if !line.starts_with("ready ") {
            bail!("it said {line:?}");
        }
        Ok(up)
    }

    /// Bytes resident, as the kernel counts them.
    fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
