//! Playing many seeds, each in a process of its own: what else a process has done by then (how many runtimes it has
//! started, what is cached) would otherwise change the run.

use super::{Report, Simulation};
use std::env::var;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::process::{Child, Command, Stdio};

/// Names the seeds: `7`, or `100..200`.
const SEEDS: &str = "MINIK8S_SEEDS";
/// Set for the process that plays the one seed.
const ALONE: &str = "MINIK8S_SEED_ALONE";
/// Names a file into which every commit and every fault of a seed is written.
const TRACE: &str = "MINIK8S_TRACE";
/// Before a report in the output of such a process.
const MARK: &str = "simulation report: ";

/// Plays seeds from the test named `test` (its whole path, as the test binary lists it): those that the variable
/// `MINIK8S_SEEDS` names, else the `usual` ones. Answers a line for each.
///
/// # Errors
/// All that was said about the first seed that failed, with the command that repeats it.
pub fn play(test: &str, usual: Range<u64>, simulation: &Simulation) -> Result<Vec<String>, String> {
    if let Some(seed) = alone()? {
        return one(simulation, seed).map(|line| vec![line]);
    }
    let (mut left, mut running, mut lines) = (asked()?.unwrap_or(usual), Vec::new(), Vec::new());
    let width = std::thread::available_parallelism().map_or(1, usize::from);
    loop {
        while running.len() < width
            && let Some(seed) = left.next()
        {
            running.push((seed, start(test, seed)?));
        }
        if running.is_empty() {
            return Ok(lines);
        }
        let (seed, child) = running.remove(0);
        match finish(seed, child) {
            Ok(line) => lines.push(line),
            Err(why) => {
                let others = running.into_iter().map(|(seed, child)| finish(seed, child));
                others.for_each(drop);
                return Err(why);
            }
        }
    }
}

fn one(simulation: &Simulation, seed: u64) -> Result<String, String> {
    let mut simulation = simulation.clone();
    if let Ok(path) = var(TRACE) {
        let file = File::create(&path).map_err(|e| format!("cannot write {path}: {e}"))?;
        // A trace that cannot be written ends; the run goes on.
        simulation = simulation.listener(move |line| drop(writeln!(&file, "{line}")));
    }
    let report: Report = simulation.run(seed).map_err(|failure| failure.to_string())?;
    Ok(format!("{MARK}seed {seed}: {report:?}"))
}

/// Whether this is a process that [`play`] started for one seed.
pub fn is_alone() -> bool {
    var(ALONE).is_ok()
}

fn alone() -> Result<Option<u64>, String> {
    var(ALONE).ok().map(|text| number(&text)).transpose()
}

fn asked() -> Result<Option<Range<u64>>, String> {
    let Ok(text) = var(SEEDS) else { return Ok(None) };
    let (from, to) = text.split_once("..").unwrap_or((&text, ""));
    let from = number(from)?;
    Ok(Some(from..if to.is_empty() { from + 1 } else { number(to)? }))
}

fn number(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("{SEEDS} is a seed, or a range such as 100..200, not {text:?}"))
}

fn start(test: &str, seed: u64) -> Result<Child, String> {
    let binary = std::env::current_exe().map_err(|e| format!("the test binary has no path: {e}"))?;
    let mut command = Command::new(binary);
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ALONE, seed.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map_err(|e| format!("cannot play seed {seed}: {e}"))
}

fn finish(seed: u64, child: Child) -> Result<String, String> {
    let output = child.wait_with_output().map_err(|e| format!("cannot wait for seed {seed}: {e}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.lines().find_map(|line| Some(line.split_once(MARK)?.1)) {
        Some(line) if output.status.success() => Ok(line.to_owned()),
        _ => {
            let complaint = String::from_utf8_lossy(&output.stderr);
            Err(format!("{said}{complaint}\nrepeat it with: make simulate SEEDS={seed}"))
        }
    }
}
