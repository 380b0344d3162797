//! What every benchmark shares: percentiles, an aligned table with a ratio to the floor, and one line that says on what
//! machine the figures were taken. A figure without its floor, measured in the same run, says little.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark's output is what it prints")]

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, unshare};
use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long each of many repetitions took.
#[derive(Clone, Debug, Default)]
pub struct Timings(Vec<Duration>);

impl Timings {
    /// Notes one repetition.
    pub fn add(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    /// Adds those of another.
    pub fn merge(&mut self, other: Timings) {
        self.0.extend(other.0);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The duration that the given share of repetitions stayed within; zero where there is none.
    pub fn percentile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let index = (last as f64 * share).round() as usize;
        sorted.get(index).copied().unwrap_or_default()
    }
}

/// A duration in the unit that fits it.
pub fn show(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    match micros {
        m if m < 10.0 => format!("{m:.2} µs"),
        m if m < 1e3 => format!("{m:.0} µs"),
        m if m < 1e6 => format!("{:.2} ms", m / 1e3),
        m => format!("{:.2} s", m / 1e6),
    }
}

/// CPU that this process has used, with all its threads: what a figure costs, whatever else the machine is doing. Zero
/// where the kernel does not tell.
pub fn cpu_time() -> Duration {
    cpu_time_of(std::process::id())
}

/// The same of any process.
pub fn cpu_time_of(process: u32) -> Duration {
    /// The kernel tells it in hundredths of a second, on every architecture that we build for.
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything; user and system time are the 12th and 13th fields behind it.
    let behind = stat.rsplit_once(')').map(|(_, behind)| behind).unwrap_or_default();
    let ticks: u32 = behind.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    TICK * ticks
}

/// Threads of a gateway: as `minik8s` has it, and as nginx does (`worker_processes auto`).
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How often something happens in a second.
pub fn per_second(count: usize, took: Duration) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let count = count as f64;
    count / took.as_secs_f64()
}

/// `value` as a multiple of the floor.
pub fn times(value: Duration, floor: Duration) -> String {
    format!("{:.2}×", value.as_secs_f64() / floor.as_secs_f64().max(f64::MIN_POSITIVE))
}

/// Rows of cells under headings: the first column to the left, numbers to the right.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned).to_vec()] }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// The table as text.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = if column == 0 { write!(text, "{cell:<width$}") } else { write!(text, "  {cell:>width$}") };
            }
            text.push('\n');
        }
        text
    }

    /// Prints the table under its question.
    pub fn print(&self, question: &str) {
        println!("{question}\n{}\n\n{}", machine(), self.render());
    }
}

/// Runs something on a thread of its own in a network namespace of its own, so that the machine's links and rules are
/// never touched. Threads that it makes are of that namespace, too.
///
/// # Errors
/// Without root, and what it fails with itself.
pub fn in_own_network<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let run = || {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace needs root")?;
        loopback_up()?;
        work()
    };
    std::thread::spawn(run).join().map_err(|_| anyhow!("the measurement panicked"))?
}

/// The same for programs whose children must be there, too: this program starts itself again. The runtime's log writer,
/// which is this program as well, does its work instead.
///
/// # Errors
/// Where it cannot be started again, and what it fails with itself.
pub fn again_in_own_network<F: Future<Output = Result<()>>>(inside: impl FnOnce() -> F) -> Result<()> {
    if let Some(code) = minik8s_runtime::log_driver::run_if_asked() {
        std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
    }
    if std::env::args().nth(1).as_deref() == Some(INSIDE) {
        loopback_up()?;
        return tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(inside());
    }
    let status = Command::new("unshare").arg("--net").arg(std::env::current_exe()?).arg(INSIDE).status();
    if !status.context("unshare does not start")?.success() {
        bail!("the benchmark failed; it needs root, containerd and runc");
    }
    Ok(())
}

/// Tells a program that it was started again.
const INSIDE: &str = "--inside";

fn loopback_up() -> Result<()> {
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("ip does not start")?;
    if !status.success() {
        bail!("ip link set lo up failed");
    }
    Ok(())
}

/// Says on standard error what comes next: tables are printed when they are complete, which may take a while.
pub fn progress(what: &str) {
    eprintln!("… {what}");
}

/// Processor, cores, kernel, load and build profile.
pub fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    let profile = if cfg!(debug_assertions) { "debug build: figures mean nothing" } else { "release build" };
    format!("{}, {cores} cores, Linux {}, load {load}, {profile}", model.unwrap_or("unknown processor"), kernel.trim())
}

/// An empty directory on a real disk: `MINIK8S_BENCH_DIR` where it is set, else below `target`.
///
/// # Errors
/// Where it cannot be made.
pub fn directory() -> std::io::Result<tempfile::TempDir> {
    let parent = std::env::var_os("MINIK8S_BENCH_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    std::fs::create_dir_all(&parent)?;
    tempfile::Builder::new().prefix("bench-").tempdir_in(parent)
}

/// A file for the floor of durable writes. Its size is set beforehand, as a sync that need not record a new one is the
/// fastest that the disk can do.
///
/// # Errors
/// Where it cannot be made.
pub fn floor_file(directory: &Path, bytes: u64) -> std::io::Result<File> {
    let file = File::create(directory.join("floor"))?;
    file.set_len(bytes)?;
    file.sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_the_sorted_repetitions() {
        let mut timings = Timings::default();
        (1..=100).rev().for_each(|ms| timings.add(Duration::from_millis(ms)));
        let at = |share| timings.percentile(share).as_millis();
        assert_eq!([at(0.0), at(0.5), at(0.99), at(1.0)], [1, 51, 99, 100]);
        assert_eq!(Timings::default().percentile(0.5), Duration::ZERO);
    }

    #[test]
    fn tables_are_aligned() {
        let mut table = Table::new(["store", "µs"]);
        table.row(["memory".to_owned(), "1".to_owned()]);
        assert_eq!(table.render(), "store   µs\nmemory   1\n");
    }

    #[test]
    fn durations_have_fitting_units() {
        let shown = [900, 45_000, 1_500_000, 2_000_000_000].map(|ns| show(Duration::from_nanos(ns)));
        assert_eq!(shown, ["0.90 µs", "45 µs", "1.50 ms", "2.00 s"]);
    }
}
