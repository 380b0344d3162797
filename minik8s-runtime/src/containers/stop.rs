//! Stopping: a polite signal, patience, then SIGKILL.

use super::{Record, containerd_id};
use crate::connection::{Tolerate, past_leaving_shims, unavailable};
use crate::problems::Problems;
use crate::runtime::Inner;
use containerd_client::services::v1 as api;
use minik8s_core::runtime::{RuntimeError, RuntimeResult};
use nix::sys::signal::Signal;
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

/// A process that survives SIGKILL for so long hangs in the kernel.
const KILL_PATIENCE: Duration = Duration::from_secs(20);

impl Inner {
    /// Needs no lock: signals do no harm twice, and of overlapping calls the shortest grace kills first.
    pub(crate) async fn stop_container(self: &Arc<Self>, id: &str, grace: Duration) -> RuntimeResult<()> {
        let cid = containerd_id(id);
        let Some(record) = self.record(&cid).await? else { return Ok(()) };
        // What is frozen hears no signal but SIGKILL: that one is sent whatever becomes of this.
        let thawed = self.thaw(&cid).await;
        if !grace.is_zero() {
            if !self.signal(&cid, stop_signal(&record), false).await? {
                return self.wait(&cid).await;
            }
            if let Ok(ended) = tokio::time::timeout(grace, self.wait(&cid)).await {
                return ended;
            }
        }
        ended(thawed, self.kill_task(&cid).await)
    }

    /// Kills every process of the container and waits for the end.
    pub(crate) async fn kill_task(&self, cid: &str) -> RuntimeResult<()> {
        self.signal(cid, Signal::SIGKILL, true).await?;
        match tokio::time::timeout(KILL_PATIENCE, self.wait(cid)).await {
            Ok(ended) => ended,
            Err(_) => Err(RuntimeError::Unavailable {
                operation: "killing a container",
                cause: format!("{cid} still runs after SIGKILL"),
            }),
        }
    }

    /// False where there is nothing to signal any more.
    async fn signal(&self, cid: &str, signal: Signal, all: bool) -> RuntimeResult<bool> {
        let request = || api::KillRequest {
            container_id: cid.to_owned(),
            exec_id: String::new(),
            signal: u32::try_from(signal as i32).unwrap_or_default(),
            all,
        };
        let sent =
            past_leaving_shims(|| async { self.connection.tasks().kill(self.connection.request(request())).await });
        Ok(sent.await.tolerate(Code::NotFound).map_err(unavailable("signalling a container"))?.is_some())
    }
}

/// What a kill came to: where it worked, it does not matter that the container could not be resumed before it.
fn ended(thawed: RuntimeResult<()>, killed: RuntimeResult<()>) -> RuntimeResult<()> {
    if killed.is_ok() {
        return Ok(());
    }
    let mut problems = Problems::default();
    problems.note(thawed);
    problems.note(killed);
    problems.none()
}

/// The image may name its signal, with or without `SIG`, or as a number.
fn stop_signal(record: &Record) -> Signal {
    let name = record.stop_signal.trim().to_ascii_uppercase();
    if let Some(signal) = name.parse::<i32>().ok().and_then(|n| Signal::try_from(n).ok()) {
        return signal;
    }
    let full = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    full.parse().unwrap_or(Signal::SIGTERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kill_that_fails_tells_what_failed_before_it() {
        let failed = |text: &str| Err(RuntimeError::Invalid(text.to_owned()));
        for (thawed, killed, told) in [
            (Ok(()), Ok(()), vec![]),
            (failed("thaw"), Ok(()), vec![]),
            (Ok(()), failed("kill"), vec!["kill"]),
            (failed("thaw"), failed("kill"), vec!["thaw", "kill"]),
        ] {
            let error = ended(thawed, killed).map_err(|error| error.to_string()).err().unwrap_or_default();
            assert_eq!(error.is_empty(), told.is_empty(), "{error}");
            assert!(told.iter().all(|word| error.contains(word)), "{error}");
        }
    }

    #[test]
    fn images_spell_their_signal_in_several_ways() {
        for (text, signal) in [
            ("", Signal::SIGTERM),
            ("SIGQUIT", Signal::SIGQUIT),
            ("quit", Signal::SIGQUIT),
            ("3", Signal::SIGQUIT),
            ("nonsense", Signal::SIGTERM),
        ] {
            let record = Record { stop_signal: text.into(), ..Record::default() };
            assert_eq!(stop_signal(&record), signal, "{text:?}");
        }
    }
}
