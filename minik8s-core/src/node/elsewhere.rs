//! How many of the machine's graphics processors others have: jobs that run beside pods, or another agent's pods. What they have
//! is nothing that a scheduler may give away.

use super::config::NodeConfig;
use super::notify::Notify;
use crate::devices::Gpus;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A holder that only vanishes changes nothing in the table: while others have some, they are counted so often.
const LOOK: Duration = Duration::from_secs(10);

/// The table of processors, as one agent sees it.
pub(super) struct Elsewhere {
    gpus: Option<Gpus>,
    /// Holders below it are pods of this agent.
    own: PathBuf,
    /// The kernel's word that the table has changed; without it, changes are seen from time to time.
    notify: Option<Notify>,
    /// What was counted last, for when the table cannot be read.
    last: AtomicUsize,
}

impl Elsewhere {
    /// Watches from now on.
    pub(super) fn watch(config: &NodeConfig) -> Self {
        let gpus = config.gpus.clone().filter(|gpus| !gpus.numbers.is_empty());
        let watch = |gpus: &Gpus| gpus.table.place().and_then(Notify::new);
        let notify = gpus.as_ref().map(watch).transpose().unwrap_or_else(|error| {
            tracing::warn!(%error, "the table of graphics processors cannot be watched");
            None
        });
        Self { gpus, own: config.pods_dir(), notify, last: AtomicUsize::new(0) }
    }

    /// How many others have now.
    pub(super) async fn count(&self) -> usize {
        let Some(gpus) = self.gpus.clone() else { return 0 };
        let own = self.own.clone();
        let count = move || -> std::io::Result<usize> {
            let held = gpus.table.held()?;
            let others =
                held.iter().filter(|(device, holder)| gpus.numbers.contains(device) && !holder.starts_with(&own));
            Ok(others.count())
        };
        match tokio::task::spawn_blocking(count).await.map_err(std::io::Error::other).flatten() {
            Ok(count) => {
                self.last.store(count, Ordering::Relaxed);
                count
            }
            Err(error) => {
                tracing::warn!(%error, "the table of graphics processors cannot be read");
                self.last.load(Ordering::Relaxed)
            }
        }
    }

    /// Returns once others have not so many.
    pub(super) async fn differs(&self, known: usize) {
        let Some(notify) = &self.notify else { return std::future::pending().await };
        loop {
            let changed = match known {
                0 => notify.changed().await,
                _ => tokio::time::timeout(LOOK, notify.changed()).await.unwrap_or(Ok(())),
            };
            if changed.is_err() {
                return std::future::pending().await;
            }
            if self.count().await != known {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_others_take_and_give_back_is_seen_at_once() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["dev", "job", "node/pods/u/devices/c"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        for name in ["nvidia0", "nvidia1"] {
            std::fs::write(dir.path().join("dev").join(name), "").unwrap();
        }
        let gpus = Gpus::discover(dir.path().join("dev"));
        let config = NodeConfig {
            gpus: Some(gpus.clone()),
            ..NodeConfig::new("n", dir.path().join("node").display().to_string())
        };
        let (pod, job) = (config.pods_dir().join("u/devices/c"), dir.path().join("job"));
        assert!(pod.is_dir(), "where pods of an agent are");
        let elsewhere = Elsewhere::watch(&config);
        assert_eq!(elsewhere.count().await, 0);
        gpus.table.take(&pod, &gpus.numbers, 1).unwrap();
        assert_eq!(elsewhere.count().await, 0, "its own pod");
        for (known, now) in [(0, 1), (1, 0)] {
            match now {
                1 => drop(gpus.table.take(&job, &gpus.numbers, 1).unwrap().expect("one is free")),
                _ => gpus.table.release(&job).unwrap(),
            }
            let seen = tokio::time::timeout(Duration::from_secs(60), elsewhere.differs(known)).await;
            assert!(seen.is_ok(), "not told that others have {now}");
            assert_eq!(elsewhere.count().await, now);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_only_vanishes_is_missed_after_a_while() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["dev", "job", "node"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("dev/nvidia0"), "").unwrap();
        let gpus = Gpus::discover(dir.path().join("dev"));
        let config = NodeConfig {
            gpus: Some(gpus.clone()),
            ..NodeConfig::new("n", dir.path().join("node").display().to_string())
        };
        let job = dir.path().join("job");
        gpus.table.take(&job, &gpus.numbers, 1).unwrap().expect("it is free");
        let elsewhere = Elsewhere::watch(&config);
        assert_eq!(elsewhere.count().await, 1);
        std::fs::remove_dir(&job).unwrap();
        let seen = tokio::time::timeout(Duration::from_secs(600), elsewhere.differs(1)).await;
        assert!(seen.is_ok(), "nobody has it any more");
        assert_eq!(elsewhere.count().await, 0);
    }
}
