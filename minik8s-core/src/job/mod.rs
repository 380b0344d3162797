//! The contract of a batch system: jobs are handed over, followed, and their files fetched. A cluster with Slurm is one,
//! and so is a machine that runs processes.
//!
//! The controller of jobs is its only caller. A backend keeps its own records where the jobs are (a directory per job, the
//! batch system's tables), so that a controller killed at any instant finds everything again by the [`JobId`] it wrote
//! down before it asked; it never asks the API. Every call is idempotent.
//!
//! The least there must be, a backend whose jobs end at once:
//!
//! ```
//! use bytes::Bytes;
//! use minik8s_core::job::*;
//! use std::{collections::BTreeMap, sync::Mutex};
//!
//! #[derive(Default)]
//! struct Echo(Mutex<BTreeMap<JobId, String>>);
//!
//! #[async_trait::async_trait]
//! impl JobBackend for Echo {
//!     fn capabilities(&self) -> JobCapabilities {
//!         JobCapabilities { version: "echo".into(), ..JobCapabilities::default() }
//!     }
//!     async fn submit(&self, job: &JobRequest) -> JobResult<JobHandle> {
//!         // The first answer to an identity is the only one.
//!         self.0.lock().unwrap().entry(job.id.clone()).or_insert_with(|| job.run.clone());
//!         Ok(JobHandle::new(&job.id, "1"))
//!     }
//!     async fn find(&self, id: &JobId) -> JobResult<Option<JobHandle>> {
//!         Ok(self.0.lock().unwrap().contains_key(id).then(|| JobHandle::new(id, "1")))
//!     }
//!     async fn poll(&self, jobs: &[JobHandle]) -> JobResult<Vec<JobReport>> {
//!         let known = self.0.lock().unwrap();
//!         let state = |id| match known.contains_key(id) {
//!             true => JobState::Ended(JobEnd::new(EndReason::Completed, Some(0))),
//!             false => JobState::Missing,
//!         };
//!         Ok(jobs.iter().map(|job| JobReport::new(&job.id, state(&job.id))).collect())
//!     }
//!     async fn cancel(&self, _: &JobId) -> JobResult<()> {
//!         Ok(())
//!     }
//!     async fn suspend(&self, _: &JobHandle, _: bool) -> JobResult<()> {
//!         Err(JobError::Unsupported("suspending jobs"))
//!     }
//!     async fn files(&self, job: &JobHandle, _: &[String]) -> JobResult<Vec<FileInfo>> {
//!         let known = self.0.lock().unwrap();
//!         let text = known.get(&job.id).ok_or_else(|| JobError::NotFound(job.id.clone()))?;
//!         Ok(vec![FileInfo::of("stdout", text.as_bytes()), FileInfo::of("stderr", b"")])
//!     }
//!     async fn read(&self, job: &JobHandle, file: &FileName, from: u64, most: usize) -> JobResult<Bytes> {
//!         let known = self.0.lock().unwrap();
//!         let text = known.get(&job.id).ok_or_else(|| JobError::NotFound(job.id.clone()))?;
//!         let bytes = if file.as_str() == "stdout" { text.as_bytes() } else { b"" };
//!         let rest = bytes.get(from as usize..).unwrap_or_default();
//!         Ok(Bytes::copy_from_slice(&rest[..most.min(rest.len())]))
//!     }
//!     async fn remove(&self, id: &JobId) -> JobResult<()> {
//!         self.0.lock().unwrap().remove(id);
//!         Ok(())
//!     }
//!     async fn kept(&self) -> JobResult<Vec<JobId>> {
//!         Ok(self.0.lock().unwrap().keys().cloned().collect())
//!     }
//! }
//! ```

mod error;
mod file;
mod id;
mod report;
mod request;

pub use error::{Denial, JobError, JobResult, Outage};
pub use file::{FileInfo, FileName, MOST_RESULTS, STDERR, STDOUT, digest};
pub use id::{JobHandle, JobId};
pub use report::{EndReason, JobEnd, JobReport, JobState, TaskReport};
pub use request::{After, AfterWhen, Array, Gpus, JobRequest, Placement, SourceFile};

use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;

/// What an implementation can do beyond the required.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobCapabilities {
    /// Name and version, for people.
    pub version: String,
    /// Jobs can be stopped for a while.
    pub suspend: bool,
    /// A request may be for several numbered tasks.
    pub arrays: bool,
    /// A job may wait for others.
    pub dependencies: bool,
    /// Jobs get graphics processors of their own.
    pub gpus: bool,
    /// A job that takes more memory than it asked for is ended for it.
    pub memory_limits: bool,
    /// A job that takes longer than it asked for is ended for it; to the second.
    pub time_limits: bool,
}

/// A batch system.
///
/// Calls may be made from several tasks at once. Dropping a call's future leaves what it asked for done or not done,
/// never half done; asking again tells which.
#[async_trait]
pub trait JobBackend: Send + Sync + 'static {
    /// What this implementation can do.
    fn capabilities(&self) -> JobCapabilities;

    /// Hands a job over, exactly once: of an identity that was handed over before, whatever became of that call, the
    /// answer is the handle of what was started then, and the request is not looked at.
    ///
    /// # Errors
    /// `Refused` where the batch system will never take it, with the field to blame where that is known; `Unclear` where it
    /// may have been taken (ask again, with the same identity); `Unsupported` for what the capabilities deny;
    /// `DiskFull`, and the outages every call may meet.
    async fn submit(&self, job: &JobRequest) -> JobResult<JobHandle>;

    /// The handle of what was handed over under an identity; `None` where nothing was.
    ///
    /// # Errors
    /// `Unclear` where that cannot be known yet.
    async fn find(&self, id: &JobId) -> JobResult<Option<JobHandle>>;

    /// What has become of jobs: one report for each, in order. However many there are, this is one query of the batch
    /// system. A job that it does not know is [`JobState::Missing`], never an error and never a failure of the job.
    ///
    /// # Errors
    /// Outages. Nothing is known of any job then.
    async fn poll(&self, jobs: &[JobHandle]) -> JobResult<Vec<JobReport>>;

    /// Ends whatever was handed over under an identity. Returns when that is asked for; a poll tells when it has happened.
    /// What has ended, and what was never there, is success.
    async fn cancel(&self, id: &JobId) -> JobResult<()>;

    /// Stops a job that runs, or keeps one that waits from starting; and lets it go on. Ended is success.
    ///
    /// # Errors
    /// `Unsupported` where the capabilities deny it, `Refused` where the batch system does.
    async fn suspend(&self, job: &JobHandle, stop: bool) -> JobResult<()>;

    /// The files of a job, with sizes and digests: its output ([`STDOUT`], [`STDERR`], with `.INDEX` behind for tasks of
    /// an array), and as `results/PATH` what matches the patterns, which are relative to the directory it runs in. Links,
    /// and whatever lies outside of that directory, are left out. In order of names. No more than [`MOST_RESULTS`] results
    /// and one: who gets more than [`MOST_RESULTS`] knows that there are more.
    ///
    /// # Errors
    /// `NotFound`.
    async fn files(&self, job: &JobHandle, patterns: &[String]) -> JobResult<Vec<FileInfo>>;

    /// Up to `most` bytes of a file from an offset; empty at its end and behind it, and while it does not exist yet.
    ///
    /// # Errors
    /// `NotFound` where there is no such job.
    async fn read(&self, job: &JobHandle, file: &FileName, from: u64, most: usize) -> JobResult<Bytes>;

    /// Forgets a job and deletes its files. Missing is success. A job that has not ended is cancelled first.
    async fn remove(&self, id: &JobId) -> JobResult<()>;

    /// Every identity something is still kept of.
    async fn kept(&self) -> JobResult<Vec<JobId>>;

    /// Removes what the backend keeps besides jobs, because it is not used any more. Called when nothing is kept of jobs;
    /// used again, it begins anew. Missing is success.
    async fn leave(&self) -> JobResult<()> {
        Ok(())
    }
}

/// A shared backend.
pub type SharedJobBackend = Arc<dyn JobBackend>;
