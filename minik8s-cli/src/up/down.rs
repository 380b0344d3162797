//! `down`: everything that `up` made on this machine goes. Each step is tried, whatever became of the others.

use super::data::{self, Owner};
use super::parts;
use super::record::{Lock, Record};
use crate::args::{Down, NetworkKind, RuntimeKind};
use crate::output::say;
use anyhow::{Context, Result, bail};
use minik8s_core::runtime::SharedRuntime;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::time::Duration;

/// How long a running cluster gets to stop: its gateway waits for up to a minute for requests to end.
const STOP: Duration = Duration::from_secs(90);

pub(crate) async fn down(options: &Down) -> Result<()> {
    let data = &options.data.data_dir;
    if !data.is_dir() {
        say(&format!("nothing to remove: {} does not exist", data.display()));
        return Ok(());
    }
    if data::check(data)? == Owner::Nobody {
        say(&format!("nothing to remove: no cluster ran from {}", data.display()));
        return Ok(());
    }
    let lock = stop_running(data).await?;
    let mut problems = Vec::new();
    match Record::read(data)? {
        Some(record) => {
            super::host_dns::undo(&record, data);
            remove(&record, options, &mut problems).await;
        }
        None => {
            say(&format!("no cluster ran from {}", data.display()));
            // `image pull` starts one without any cluster.
            remove_containerd(options, &mut problems);
        }
    }
    if !problems.is_empty() {
        bail!("some things could not be removed; run `minik8s down` again:\n  {}", problems.join("\n  "));
    }
    Record::remove(data)?;
    if !options.purge {
        say("removed; objects are kept (--purge deletes them)");
        return Ok(());
    }
    let left = data::purge(data)?;
    drop(lock);
    say("removed, and all data deleted");
    if !left.is_empty() {
        say(&format!("left in {}, as minik8s did not make it: {}", data.display(), left.join(", ")));
    }
    Ok(())
}

fn remove_containerd(options: &Down, problems: &mut Vec<String>) {
    if let Err(error) = parts::stop_private(&options.data.data_dir, options.purge) {
        problems.push(format!("containerd: {error:#}"));
    }
}

/// Stops the cluster where it runs. The lock tells who has it, so that no other process is ever signalled.
async fn stop_running(data: &Path) -> Result<Lock> {
    let end = tokio::time::Instant::now() + STOP;
    let mut told = false;
    loop {
        match Lock::attempt(data)? {
            Ok(lock) => return Ok(lock),
            Err(0) => {}
            Err(pid) if !told => {
                say(&format!("stopping process {pid}"));
                kill(Pid::from_raw(pid), Signal::SIGTERM).with_context(|| format!("cannot stop process {pid}"))?;
                told = true;
            }
            Err(pid) if tokio::time::Instant::now() > end => bail!("process {pid} does not stop; end it and try again"),
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn remove(record: &Record, options: &Down, problems: &mut Vec<String>) {
    let data = &options.data.data_dir;
    let mut runtime = None;
    if record.runtime == RuntimeKind::Containerd {
        let found = parts::runtime(record, data, None, 0).await;
        let removed = match &found {
            Ok(runtime) => remove_pods(runtime).await,
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        problems.extend(removed.err().map(|error| format!("pods: {error:#}")));
        runtime = found.ok();
    }
    if record.network == NetworkKind::Bridge
        && let Err(error) = remove_network(record, data).await
    {
        problems.push(format!("network: {error:#}"));
    }
    if let Err(error) = parts::remove_volumes(runtime.as_ref(), data).await {
        problems.push(format!("volumes: {error:#}"));
    }
    // Also where another one was used: `image pull` may have started it.
    remove_containerd(options, problems);
}

async fn remove_pods(runtime: &SharedRuntime) -> Result<()> {
    let mut failed = Vec::new();
    for sandbox in runtime.sandboxes().await? {
        if let Err(error) = runtime.remove_sandbox(&sandbox.spec.id).await {
            failed.push(format!("{}: {error}", sandbox.spec.id));
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}

async fn remove_network(record: &Record, data: &Path) -> Result<()> {
    // A machine that was never given a range made no network.
    if record.pod_cidr.is_none() {
        return Ok(());
    }
    let network = parts::network(record, data, &std::sync::Arc::default())?;
    let mut failed = Vec::new();
    for attachment in network.attachments().await? {
        if let Err(error) = network.detach(&attachment.id).await {
            failed.push(error.to_string());
        }
    }
    if let Err(error) = network.teardown().await {
        failed.push(error.to_string());
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}
