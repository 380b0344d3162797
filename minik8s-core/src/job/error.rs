//! Why a call of a backend did not work, told apart by what can be done about it.

use super::JobId;

/// The result of a call of a backend.
pub type JobResult<T> = Result<T, JobError>;

/// What is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outage {
    /// The machine cannot be reached.
    Unreachable,
    /// The connection broke off or fell silent in the middle.
    Lost,
    /// The machine answers, its batch system does not.
    SchedulerDown,
}

/// What is wrong with how we show who we are, or they do. Only a person can mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    /// The machine's key is not the one that is known.
    HostKey,
    /// Our key is not taken.
    Key,
}

/// Why a call of a backend did not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// It will never be taken as it is.
    #[error("the batch system refuses the job: {why}")]
    Refused {
        /// The field of the request to blame, where that is known: `placement.partition`.
        field: Option<&'static str>,
        /// Its words.
        why: String,
    },
    /// It may have been taken, or not. Ask again with the same identity.
    #[error("it is not clear yet whether the job was taken: {0}")]
    Unclear(String),
    /// There is no such job.
    #[error("there is no job {0} there")]
    NotFound(JobId),
    /// Something is away; try again later.
    #[error("{why}")]
    Away {
        /// What.
        what: Outage,
        /// How that showed.
        why: String,
    },
    /// Not before a person has changed something.
    #[error("{why}")]
    Denied {
        /// Whose key is wrong.
        what: Denial,
        /// What to do.
        why: String,
    },
    /// There is no room where the job's files go.
    #[error("no room is left for files of jobs: {0}")]
    DiskFull(String),
    /// The backend cannot do this.
    #[error("this batch system does not support {0}")]
    Unsupported(&'static str),
    /// The answer makes no sense.
    #[error("an answer of the batch system cannot be read: {0}")]
    Odd(String),
}

impl JobError {
    /// One word for conditions and events.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "Refused",
            Self::Unclear(_) => "SubmissionUnclear",
            Self::NotFound(_) => "NotFound",
            Self::Away { what: Outage::Unreachable, .. } => "Unreachable",
            Self::Away { what: Outage::Lost, .. } => "ConnectionLost",
            Self::Away { what: Outage::SchedulerDown, .. } => "SchedulerDown",
            Self::Denied { what: Denial::HostKey, .. } => "HostKeyChanged",
            Self::Denied { what: Denial::Key, .. } => "KeyRefused",
            Self::DiskFull(_) => "DiskFull",
            Self::Unsupported(_) => "Unsupported",
            Self::Odd(_) => "OddAnswer",
        }
    }

    /// True where asking again later may work without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unclear(_) | Self::Away { .. } | Self::DiskFull(_) | Self::Odd(_))
    }
}
