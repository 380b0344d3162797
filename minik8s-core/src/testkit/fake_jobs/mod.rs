//! A batch system that pretends: jobs are a few words of shell, time is tokio's, and outages are asked for.

mod shell;
mod table;

use crate::job::{
    FileInfo, FileName, JobBackend, JobCapabilities, JobError, JobHandle, JobId, JobReport, JobRequest, JobResult,
    JobState, Outage,
};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use table::Table;

/// A batch system that pretends. Clones share its jobs, so that a clone is what a restarted process finds.
///
/// It has one node with four graphics processors, and refuses the partition `nowhere`. Its shell knows `echo`, `printf %s`,
/// `cat`, `mkdir -p`, `ln -s`, `sleep`, `kill -9 $$`, `exit`, variables, quotes, `>`, `>>` and `>&2`.
#[derive(Clone, Default)]
pub struct FakeJobs {
    table: Arc<Mutex<Table>>,
}

impl FakeJobs {
    /// An empty batch system.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts or mends the connection: every call is answered `Away` while it is cut.
    pub fn connected(&self, connected: bool) {
        self.table.lock().away = !connected;
    }

    /// The next submission is taken, but the answer is lost.
    pub fn lose_next_answer(&self) {
        self.lose_answers(1);
    }

    /// So many submissions are taken without an answer; the same one again counts too.
    pub fn lose_answers(&self, count: u32) {
        self.table.lock().lost_answers = count;
    }

    /// Every call of this name (`submit`, `kept`, …; `*` for all) fails with this, until `None` is said.
    pub fn fail(&self, call: &'static str, error: Option<JobError>) {
        let mut table = self.table.lock();
        match error {
            Some(error) => table.failing.insert(call, error),
            None => table.failing.remove(call),
        };
    }

    /// Jobs cannot wait for others there.
    pub fn without_dependencies(&self) {
        self.table.lock().independent = true;
    }

    /// What a controller that is gone has left: a job that no object knows.
    pub fn strand(&self, id: &JobId) {
        self.table.lock().add(&JobRequest { id: id.clone(), run: "sleep 100000".to_owned(), ..JobRequest::default() });
    }

    /// How often it was told that it is not used any more.
    pub fn left(&self) -> u32 {
        self.table.lock().left
    }

    /// The node fails: what runs there ends.
    pub fn fail_node(&self) {
        self.table.lock().end_running(crate::job::EndReason::NodeFailure);
    }

    /// The time limit of a job passes.
    pub fn expire(&self, id: &JobId) {
        self.table.lock().end_one(id, crate::job::EndReason::Timeout);
    }

    /// It takes more memory than it may.
    pub fn exhaust(&self, id: &JobId) {
        self.table.lock().end_one(id, crate::job::EndReason::OutOfMemory);
    }

    /// Forgets a job, as a batch system does after a while; its files stay.
    pub fn forget(&self, id: &JobId) {
        self.table.lock().forget(id);
    }

    /// How often it was asked what has become of jobs.
    pub fn queries(&self) -> u64 {
        self.table.lock().queries
    }

    /// Files of which something was read, and from where, in order.
    pub fn reads(&self) -> Vec<(FileName, u64)> {
        self.table.lock().reads.clone()
    }

    /// After so many more reads the connection is lost once.
    pub fn break_a_read_after(&self, count: u32) {
        self.table.lock().breaks_after = Some(count);
    }

    /// Identities that were started, in order; one that was started twice is there twice.
    pub fn started(&self) -> Vec<JobId> {
        self.table.lock().started.clone()
    }

    /// What was asked for under an identity.
    pub fn request(&self, id: &JobId) -> Option<JobRequest> {
        self.table.lock().jobs.get(id).map(|job| job.request.clone())
    }

    fn with<T>(&self, call: &str, work: impl FnOnce(&mut Table) -> JobResult<T>) -> JobResult<T> {
        let mut table = self.table.lock();
        if table.away {
            let why = "the pretended machine cannot be reached".to_owned();
            return Err(JobError::Away { what: Outage::Unreachable, why });
        }
        if let Some(error) = table.failing.get(call).or_else(|| table.failing.get("*")) {
            return Err(error.clone());
        }
        table.advance();
        work(&mut table)
    }
}

#[async_trait]
impl JobBackend for FakeJobs {
    fn capabilities(&self) -> JobCapabilities {
        JobCapabilities {
            version: "fake 1".to_owned(),
            suspend: true,
            arrays: true,
            dependencies: !self.table.lock().independent,
            gpus: true,
            memory_limits: false,
            time_limits: false,
        }
    }

    async fn submit(&self, job: &JobRequest) -> JobResult<JobHandle> {
        self.with("submit", |table| {
            if !table.jobs.contains_key(&job.id) {
                table.check(job)?;
                table.add(job);
            }
            let handle = table.handle(&job.id).ok_or_else(|| JobError::NotFound(job.id.clone()))?;
            match table.lost_answers.checked_sub(1) {
                Some(left) => {
                    table.lost_answers = left;
                    Err(JobError::Unclear("the answer was lost".to_owned()))
                }
                None => Ok(handle),
            }
        })
    }

    async fn find(&self, id: &JobId) -> JobResult<Option<JobHandle>> {
        self.with("find", |table| Ok(table.handle(id)))
    }

    async fn poll(&self, jobs: &[JobHandle]) -> JobResult<Vec<JobReport>> {
        self.with("poll", |table| {
            table.queries += 1;
            let report = |job: &JobHandle| table.report(&job.id);
            Ok(jobs.iter().map(|job| report(job).unwrap_or_else(|| missing(job))).collect())
        })
    }

    async fn cancel(&self, id: &JobId) -> JobResult<()> {
        self.with("cancel", |table| {
            table.end_one(id, crate::job::EndReason::Cancelled);
            Ok(())
        })
    }

    async fn suspend(&self, job: &JobHandle, stop: bool) -> JobResult<()> {
        self.with("suspend", |table| {
            table.suspend(&job.id, stop);
            Ok(())
        })
    }

    async fn files(&self, job: &JobHandle, patterns: &[String]) -> JobResult<Vec<FileInfo>> {
        self.with("files", |table| table.files(&job.id, patterns).ok_or_else(|| JobError::NotFound(job.id.clone())))
    }

    async fn read(&self, job: &JobHandle, file: &FileName, from: u64, most: usize) -> JobResult<Bytes> {
        self.with("read", |table| {
            if table.breaks_after == Some(0) {
                table.breaks_after = None;
                return Err(JobError::Away { what: Outage::Lost, why: "the connection broke off".to_owned() });
            }
            table.breaks_after = table.breaks_after.map(|count| count - 1);
            table.reads.push((file.clone(), from));
            table.read(&job.id, file, from, most).ok_or_else(|| JobError::NotFound(job.id.clone()))
        })
    }

    async fn remove(&self, id: &JobId) -> JobResult<()> {
        self.with("remove", |table| {
            table.jobs.remove(id);
            Ok(())
        })
    }

    async fn kept(&self) -> JobResult<Vec<JobId>> {
        self.with("kept", |table| Ok(table.jobs.keys().cloned().collect()))
    }

    async fn leave(&self) -> JobResult<()> {
        self.with("leave", |table| {
            table.left += 1;
            Ok(())
        })
    }
}

fn missing(job: &JobHandle) -> JobReport {
    JobReport::new(&job.id, JobState::Missing)
}
