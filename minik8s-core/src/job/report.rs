//! What has become of a job.

use super::{FileName, JobId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It waits.
    Queued,
    /// It runs.
    Running,
    /// It is stopped for a while.
    Suspended,
    /// It ends; how is not known yet.
    Finishing,
    /// It has ended.
    Ended(JobEnd),
    /// The batch system answered, and knows nothing of it.
    Missing,
    /// The batch system says something that nobody here knows.
    Unknown,
}

impl JobState {
    /// True for what does not change any more.
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEnd {
    /// Why.
    pub reason: EndReason,
    /// The exit code of its commands, or 128 and the number of the signal that ended them; `None` where there is none.
    pub exit_code: Option<i32>,
}

impl JobEnd {
    /// An end.
    pub fn new(reason: EndReason, exit_code: Option<i32>) -> Self {
        Self { reason, exit_code }
    }
}

/// Why a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EndReason {
    /// All its commands succeeded.
    Completed,
    /// A command failed.
    Error,
    /// A command of its preparation failed.
    CompileError,
    /// It could not be started.
    LaunchError,
    /// It took too long.
    Timeout,
    /// It took too much memory.
    OutOfMemory,
    /// Its node failed.
    NodeFailure,
    /// It had to make room for another.
    Preempted,
    /// Somebody ended it.
    Cancelled,
    /// What it waited for can never come.
    DependencyFailed,
    /// It wrote until the disk was full, or more than it may.
    DiskFull,
    /// It is gone, and nobody knows what became of it.
    Lost,
}

impl EndReason {
    /// One word for conditions and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Error => "Error",
            Self::CompileError => "CompileError",
            Self::LaunchError => "LaunchError",
            Self::Timeout => "Timeout",
            Self::OutOfMemory => "OutOfMemory",
            Self::NodeFailure => "NodeFailure",
            Self::Preempted => "Preempted",
            Self::Cancelled => "Cancelled",
            Self::DependencyFailed => "DependencyFailed",
            Self::DiskFull => "DiskFull",
            Self::Lost => "Lost",
        }
    }

    /// True where the job is not to blame, and another attempt is as good as the first.
    pub fn is_disruption(self) -> bool {
        matches!(self, Self::NodeFailure | Self::Preempted)
    }
}

/// What has become of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobReport {
    /// Which.
    pub id: JobId,
    /// How far it is; of an array, the least far of its tasks, and their worst end.
    pub state: JobState,
    /// The batch system's own word for that.
    pub native_state: String,
    /// Why it waits, or ended, in the batch system's words.
    pub reason: String,
    /// Nodes it runs or ran on.
    pub nodes: String,
    /// When it will probably start, while it waits.
    pub start_estimate: Option<Timestamp>,
    /// When it started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How often the batch system began it anew.
    pub restarts: u32,
    /// Its output so far: files and their sizes.
    pub output: Vec<(FileName, u64)>,
    /// The tasks of an array.
    pub tasks: Vec<TaskReport>,
}

impl JobReport {
    /// A report that says no more than the state.
    pub fn new(id: &JobId, state: JobState) -> Self {
        Self {
            id: id.clone(),
            state,
            native_state: String::new(),
            reason: String::new(),
            nodes: String::new(),
            start_estimate: None,
            started: None,
            ended: None,
            restarts: 0,
            output: Vec::new(),
            tasks: Vec::new(),
        }
    }
}

/// What has become of one task of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskReport {
    /// Its number.
    pub index: u32,
    /// How far it is.
    pub state: JobState,
}
