//! What is remembered of a run between two looks at it.

use super::calls::Inbox;
use crate::workflow::machine::RunState;
use crate::workflow::objects::WorkflowRun;
use crate::workflow::program::Workflow;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

/// A run under way.
pub(super) struct Live {
    /// The run as this process wrote or read it last.
    pub(super) run: WorkflowRun,
    /// What is run.
    pub(super) workflow: Arc<Workflow>,
    /// What expressions see as `run`.
    pub(super) about: Value,
    /// What the history says.
    pub(super) state: RunState,
    /// What happened since.
    pub(super) inbox: Inbox,
    /// Writing it failed: it must be read anew.
    pub(super) stale: bool,
    /// Tasks under way, by key.
    pub(super) calls: HashMap<String, DropGuard>,
}

impl Live {
    pub(super) fn uid(&self) -> &str {
        self.run.metadata.uid.as_deref().unwrap_or_default()
    }
}

/// The runs under way, but those that a worker has in its hands.
#[derive(Default)]
pub(super) struct Lives {
    runs: Mutex<HashMap<String, Live>>,
    /// Compiled workflows by the name of their revision: many runs share one.
    compiled: Mutex<HashMap<String, Arc<Workflow>>>,
    /// Revisions of workflows by uid and generation.
    revisions: Mutex<HashMap<String, String>>,
    /// Runs whose records are not there: how often in a row that was seen, and since when.
    missing: Mutex<HashMap<String, (u32, Instant)>>,
}

/// After so many looks, and so long, a record that is not there is gone.
const PATIENCE: (u32, Duration) = (5, Duration::from_secs(5));

/// Compiled workflows that are remembered at most.
const COMPILED: usize = 1024;

impl Lives {
    pub(super) fn take(&self, key: &str) -> Option<Live> {
        self.runs.lock().remove(key)
    }

    pub(super) fn put(&self, key: &str, live: Live) {
        self.runs.lock().insert(key.to_owned(), live);
    }

    pub(super) fn compiled(&self, revision: &str) -> Option<Arc<Workflow>> {
        self.compiled.lock().get(revision).cloned()
    }

    pub(super) fn revision(&self, generation: &str) -> Option<String> {
        self.revisions.lock().get(generation).cloned()
    }

    pub(super) fn remember_revision(&self, generation: String, revision: String) {
        let mut revisions = self.revisions.lock();
        if revisions.len() >= COMPILED {
            revisions.clear();
        }
        revisions.insert(generation, revision);
    }

    /// Nobody has the record of a revision any more: it must be kept again.
    pub(super) fn forget_revision(&self, revision: &str) {
        self.revisions.lock().retain(|_, known| known != revision);
    }

    /// The records of a run are not there; whether that is certain by now. What is not there may be there in a moment.
    pub(super) fn is_gone(&self, key: &str, now: Instant) -> bool {
        let mut missing = self.missing.lock();
        let (looks, since) = missing.entry(key.to_owned()).or_insert((0, now));
        *looks += 1;
        *looks >= PATIENCE.0 && now.saturating_duration_since(*since) >= PATIENCE.1
    }

    /// The records of a run are there, or nobody needs them.
    pub(super) fn is_found(&self, key: &str) {
        self.missing.lock().remove(key);
    }

    pub(super) fn remember(&self, revision: String, workflow: Arc<Workflow>) {
        let mut compiled = self.compiled.lock();
        if compiled.len() >= COMPILED {
            compiled.clear();
        }
        compiled.insert(revision, workflow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_gone_after_several_looks_and_some_seconds() {
        let (lives, start) = (Lives::default(), Instant::now());
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        assert!((0..20).all(|_| !lives.is_gone("r", start)), "so soon");
        assert!(!lives.is_gone("s", after(9)), "each run for itself");
        assert!(lives.is_gone("r", after(5)));
        lives.is_found("r");
        assert!(!lives.is_gone("r", after(9)) && !lives.is_gone("r", after(60)), "too few looks");
    }

    #[test]
    fn a_revision_that_is_gone_is_kept_again() {
        let lives = Lives::default();
        for (generation, revision) in [("u/1", "a"), ("u/2", "b"), ("v/1", "a")] {
            lives.remember_revision(generation.into(), revision.into());
        }
        lives.forget_revision("a");
        assert_eq!(["u/1", "u/2", "v/1"].map(|known| lives.revision(known)), [None, Some("b".to_owned()), None]);
    }
}
