//! What is remembered of a run between two looks at it.

use super::calls::Inbox;
use crate::workflow::machine::RunState;
use crate::workflow::objects::WorkflowRun;
use crate::workflow::program::Workflow;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
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
}

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

    pub(super) fn remember(&self, revision: String, workflow: Arc<Workflow>) {
        let mut compiled = self.compiled.lock();
        if compiled.len() >= COMPILED {
            compiled.clear();
        }
        compiled.insert(revision, workflow);
    }
}
