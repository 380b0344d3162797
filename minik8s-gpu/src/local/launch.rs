//! Starts what may start: who came first goes first, with graphics processors that nobody else has.

use super::LocalConfig;
use super::process::{START, is_runnable, lives};
use super::record::Record;
use minik8s_core::job::JobState;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A wrapper that has not said who it is by then did not start.
const STARTED: Duration = Duration::from_secs(10);

/// Where a job's programs are, unless it says otherwise in its `env`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/cuda/bin";

/// Starts what may start. Only one does so at a time, whatever process it is in.
pub(super) fn advance(config: &LocalConfig) -> io::Result<()> {
    if !config.directory.exists() {
        return Ok(());
    }
    let lock =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(config.directory.join(".lock"))?;
    lock.lock()?;
    let (mut waiting, mut running) = (Vec::new(), 0);
    let held = config.devices.held()?;
    for record in Record::all(config)? {
        match record.state()? {
            JobState::Ended(_) if held.values().any(|holder| *holder == record.path) => {
                config.devices.release(&record.path)?;
            }
            JobState::Ended(_) => {}
            JobState::Queued => waiting.push(record),
            _ => running += 1,
        }
    }
    for record in waiting.into_iter().filter(|record| !record.has("held")) {
        if running >= config.slots {
            break;
        }
        let wanted = record.need()?.map_or(0, |need| need.gpus);
        // Who wants more than is free is not overtaken: it would wait for ever.
        let Some(mine) = config.devices.take(&record.path, &config.gpus, wanted)? else { break };
        start(&record, &mine)?;
        running += 1;
    }
    Ok(())
}

fn output(record: &Record, name: &str) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(record.path.join(name))
}

/// Starts a job's wrapper. A crash in here starts it a second time, which does nothing where the first did: each start has a
/// name of its own, and the first name that claims the job has it.
fn start(record: &Record, gpus: &[String]) -> io::Result<()> {
    if !is_runnable(&record.path) {
        return Ok(());
    }
    let name = format!("{}-{}", std::process::id(), minik8s_core::random::word(12));
    let mut command = Command::new("setsid");
    command.arg("bash").arg("-c").arg(START).arg("minik8s").arg(&record.path);
    // Whatever the control plane was started with is none of a job's business.
    command.env_clear().env("PATH", PATH).env("HOME", record.path.join("work")).env("LANG", "C.UTF-8");
    command.env("MINIK8S_JOB_ID", name);
    // An empty list hides all of them from who did not ask.
    command.env("CUDA_VISIBLE_DEVICES", gpus.join(",")).env("NVIDIA_VISIBLE_DEVICES", gpus.join(","));
    command
        .current_dir(&record.path)
        .stdin(Stdio::null())
        .stdout(output(record, "stdout")?)
        .stderr(output(record, "stderr")?);
    let mut child = command.spawn()?;
    let until = Instant::now() + STARTED;
    while !record.has("pid") && Instant::now() < until && child.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    // Whoever ends must be waited for.
    std::thread::spawn(move || child.wait());
    if lives(record) || record.has("claim") { Ok(()) } else { Err(io::Error::other("the job's wrapper did not start")) }
}
