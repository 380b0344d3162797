//! How a worker looks at the world: the runtime's list, the changes of the record, the probes that should run.

use super::{Worker, ops};
use crate::blocking;
use crate::node::lifecycle::{Busy, Health, Life, Seen, ending};
use crate::node::pod::{self, Role};
use crate::node::pods::Slot;
use crate::node::probe::{Place, ProbeKind, Target};
use crate::node::{ids, lifecycle};
use crate::runtime::{ContainerInfo, ContainerState, RuntimeResult};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// How much of a container's last words is shown.
const WORDS: u64 = 4096;
/// How much of its log stands in for them.
const LOG_WORDS: usize = 2048;
const LOG_LINES: usize = 80;
/// How much of the log is read for them.
const LOG_BYTES: u64 = 256 << 10;

impl Worker {
    pub(super) async fn look(&mut self, slot: &Slot) -> RuntimeResult<()> {
        if slot.doubt {
            let all = self.context.runtime.sandboxes().await?;
            self.sandbox = all.into_iter().find(|sandbox| sandbox.spec.id == self.uid);
        }
        if !self.memory.torn_down {
            self.containers = self.context.runtime.containers(Some(&self.uid)).await?;
        }
        if slot.changed {
            self.changed(&slot.pod);
        }
        self.memory.evicted.clone_from(&slot.evicted);
        self.note_attempts();
        self.note_health(&slot.pod);
        self.note_lost(&slot.pod);
        self.note_last_words(&slot.pod).await;
        Ok(())
    }

    /// The record or something it refers to is new: what failed for want of it may work now.
    fn changed(&mut self, pod: &Pod) {
        let now = self.context.clock.now();
        for (_, container) in pod::containers(pod) {
            let image = container.image.clone();
            if self.images.insert(container.name.clone(), image.clone()).is_some_and(|before| before != image) {
                self.memory.failures.remove(&container.name);
            }
        }
        let config = |failure: &&mut lifecycle::Failure| failure.reason == "CreateContainerConfigError";
        self.memory.failures.values_mut().filter(config).for_each(|failure| failure.retry_at = now);
        if let Some(failure) = &mut self.memory.setup_failure {
            failure.retry_at = now;
        }
        (self.stale, self.refresh_at) = (true, None);
    }

    fn note_attempts(&mut self) {
        for info in &self.containers {
            let highest = self.memory.attempts.entry(ids::name(info).to_owned()).or_default();
            *highest = (*highest).max(ids::attempt(info));
        }
        let lives = |id: &String| self.containers.iter().any(|info| info.id == *id);
        self.memory.health.retain(|id, _| lives(id));
        self.memory.images.retain(|id, _| lives(id));
        self.memory.last_words.retain(|id, _| lives(id));
    }

    /// A new agent believes what the last one wrote about the very same container, until its own probes speak.
    fn note_health(&mut self, pod: &Pod) {
        for info in self.containers.iter().filter(|info| info.state == ContainerState::Running) {
            if self.memory.health.contains_key(&info.id) {
                continue;
            }
            let recorded = pod::recorded(pod, ids::name(info));
            let same =
                recorded.filter(|r| r.container_id.as_ref().is_some_and(|id| id.ends_with(&format!("//{}", info.id))));
            let health = Health {
                ready: same.map(|status| status.ready),
                startup: same.and_then(|status| status.started.filter(|started| *started)),
                unhealthy: None,
            };
            self.memory.health.insert(info.id.clone(), health);
        }
    }

    /// Containers that should be there and are not.
    fn note_lost(&mut self, pod: &Pod) {
        let now = self.context.clock.now();
        for (_, container) in pod::containers(pod) {
            let name = &container.name;
            let here = self.containers.iter().any(|info| ids::name(info) == name);
            let known = self.memory.attempts.contains_key(name);
            let busy = self.memory.pod_busy || self.memory.torn_down || self.memory.busy.contains_key(name);
            if here {
                self.memory.lost.remove(name);
            } else if known && !busy {
                self.memory.lost.entry(name.clone()).or_insert(now);
            }
        }
    }

    async fn note_last_words(&mut self, pod: &Pod) {
        for info in &self.containers {
            let ContainerState::Exited(exit) = &info.state else { continue };
            if self.memory.last_words.contains_key(&info.id) {
                continue;
            }
            let Some((_, container)) = pod::find(pod, ids::name(info)) else { continue };
            let file = ops::words_file(&self.context, &self.uid, ids::name(info), ids::attempt(info));
            let mut words = last_words(&file).await;
            let fall_back = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
            if words.is_empty() && fall_back && exit.code != 0 {
                words = log_tail(&info.log_path).await;
            }
            if !words.is_empty() {
                self.memory.last_words.insert(info.id.clone(), words);
            }
        }
    }

    /// Runs the probes that should run now, and no others.
    pub(super) fn probe(&mut self, slot: &Slot) {
        let view = self.view(slot);
        let ends = ending(&view);
        let mut targets = Vec::new();
        for (role, container) in pod::containers(&slot.pod).filter(|(role, _)| *role != Role::Init) {
            let seen = Seen::of(&view, &container.name);
            let (Some(info), Life::Running) = (seen.current, seen.life(view.now)) else { continue };
            let busy = self.memory.busy.get(&container.name);
            let health = self.memory.health.get(&info.id).cloned().unwrap_or_default();
            // Who stands still cannot answer, and is as well as it was before.
            let still = info.paused || pod::is_to_pause(&slot.pod);
            let kinds = if still { Vec::new() } else { kinds(role, container, busy, &health, ends) };
            targets.push(Target {
                container,
                id: info.id.clone(),
                started_at: lifecycle::backoff::from_millis(info.started_at),
                kinds,
                ready: health.ready,
                place: Place::new(self.memory.ips.first().copied(), container),
            });
        }
        self.probes.reconcile(targets);
    }
}

fn kinds(_role: Role, container: &Container, busy: Option<&Busy>, health: &Health, ends: bool) -> Vec<ProbeKind> {
    let open = container.startup_probe.is_some() && health.startup != Some(true);
    match busy {
        // Its hook may still run.
        Some(Busy::Starting) => Vec::new(),
        _ if open && !ends => vec![ProbeKind::Startup],
        _ if open => Vec::new(),
        None if !ends && health.unhealthy.is_none() => vec![ProbeKind::Readiness, ProbeKind::Liveness],
        // What ends should not be restarted, but traffic must know.
        _ => vec![ProbeKind::Readiness],
    }
}

/// The end of a file that may have any length: a container writes it.
async fn tail(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let path = path.to_owned();
    let read = move || {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    blocking::run(read).await.unwrap_or_else(|e| Err(std::io::Error::other(e)))
}

async fn last_words(path: &Path) -> String {
    let bytes = tail(path, WORDS).await.unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
}

async fn log_tail(path: &Path) -> String {
    let text = tail(path, LOG_BYTES).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default()).collect();
    let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    let mut start = last.len().saturating_sub(LOG_WORDS);
    while !last.is_char_boundary(start) {
        start += 1;
    }
    last[start..].to_owned()
}

/// The containers of one pod, newest life first.
pub(crate) fn lives<'a>(containers: &'a [ContainerInfo], name: &str) -> Vec<&'a ContainerInfo> {
    let mut lives: Vec<&ContainerInfo> = containers.iter().filter(|info| ids::name(info) == name).collect();
    lives.sort_by_key(|info| std::cmp::Reverse(ids::attempt(info)));
    lives
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn last_words_are_the_end_of_a_file_of_any_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("termination-log");
        assert_eq!(last_words(&path).await, "");
        std::fs::write(&path, "short").unwrap();
        assert_eq!(last_words(&path).await, "short");
        // Longer than is shown, and empty but for its end.
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"the end", (1 << 20) - 7).unwrap();
        let words = last_words(&path).await;
        assert_eq!((words.len(), words.ends_with("the end")), (4096, true));
        let line = |n: usize| format!("2026-01-01T00:00:00Z stdout F line {n}\n");
        std::fs::write(&path, (0..20_000).map(line).collect::<String>()).unwrap();
        let text = log_tail(&path).await;
        assert!(text.ends_with("line 19998\nline 19999") && text.lines().count() == LOG_LINES, "{text}");
    }
}
