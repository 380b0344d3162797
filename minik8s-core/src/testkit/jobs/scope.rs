//! What a case works in: identities of its own, helpers that wait with a bound, and the cleaning up.

use super::Needs;
use crate::job::{FileName, JobEnd, JobHandle, JobId, JobReport, JobRequest, JobState, SharedJobBackend, SourceFile};
use crate::testkit::wait::until;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// Bound of every wait.
pub(super) const SOON: Duration = Duration::from_secs(90);

type Opener = Box<dyn Fn() -> BoxFuture<'static, SharedJobBackend> + Send + Sync>;

/// Ways to break what is under test, and to look at it from outside.
#[async_trait]
pub trait Faults: Send + Sync {
    /// Which of the needs that are about faults can be met.
    fn can(&self, need: Needs) -> bool;
    /// Cuts or mends the connection.
    async fn connected(&self, connected: bool);
    /// Makes the node fail that a job runs on, or mends all nodes where there is no job.
    async fn fail_node(&self, job: Option<&JobReport>);
    /// Lets a job's time limit pass.
    async fn expire(&self, job: &JobHandle);
    /// How often the batch system was asked what has become of jobs.
    async fn queries(&self) -> u64;
}

/// The backend under test.
pub struct Subject {
    open: Opener,
    /// How it is broken, where that can be done.
    pub faults: Option<Arc<dyn Faults>>,
    /// Makes a request one that can never run.
    pub impossible: fn(&mut JobRequest),
}

impl Subject {
    /// `open` opens the backend; called again it must find the jobs that the first one was handed. `impossible` makes a
    /// request one that is refused.
    pub fn new<F, Fut>(open: F, impossible: fn(&mut JobRequest)) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = SharedJobBackend> + Send + 'static,
    {
        Self { open: Box::new(move || Box::pin(open())), faults: None, impossible }
    }

    /// The same, with faults.
    #[must_use]
    pub fn with_faults(self, faults: Arc<dyn Faults>) -> Self {
        Self { faults: Some(faults), ..self }
    }
}

/// One case's view of the backend.
pub struct Scope {
    /// The backend.
    pub backend: SharedJobBackend,
    subject: Arc<Subject>,
    made: Vec<JobId>,
}

impl Scope {
    pub(super) async fn open(subject: Arc<Subject>) -> Self {
        let backend = (subject.open)().await;
        Self { backend, subject, made: Vec::new() }
    }

    /// Drops the backend, as a controller that is killed does, and opens it anew.
    pub(super) async fn reopen(&mut self) {
        self.backend = (self.subject.open)().await;
    }

    pub(super) fn faults(&self) -> Arc<dyn Faults> {
        self.subject.faults.clone().expect("asked for by the case")
    }

    /// A request that runs these commands, under an identity of its own.
    pub(super) fn request(&mut self, run: &str) -> JobRequest {
        let id = JobId::new(uuid::Uuid::new_v4().to_string(), 1);
        self.made.push(id.clone());
        JobRequest { id, run: run.to_owned(), ..JobRequest::default() }
    }

    pub(super) fn impossible(&mut self) -> JobRequest {
        let mut request = self.request("echo never");
        (self.subject.impossible)(&mut request);
        request
    }

    pub(super) async fn submit(&mut self, run: &str) -> JobHandle {
        let request = self.request(run);
        self.backend.submit(&request).await.expect("submit")
    }

    pub(super) async fn report(&self, job: &JobHandle) -> JobReport {
        let mut reports = self.backend.poll(std::slice::from_ref(job)).await.expect("poll");
        assert_eq!(reports.len(), 1, "one report for each job");
        reports.remove(0)
    }

    /// Waits until a job is in a state that `wanted` takes.
    pub(super) async fn reaches(&self, job: &JobHandle, what: &str, wanted: impl Fn(&JobReport) -> bool) -> JobReport {
        let last = std::sync::Mutex::new(None);
        let wait = until(what, SOON, || async {
            let report = self.report(job).await;
            *last.lock().unwrap() = Some(report.clone());
            wanted(&report).then_some(report)
        });
        match tokio::time::timeout(SOON - Duration::from_secs(1), wait).await {
            Ok(report) => report,
            Err(_) => panic!("waited in vain until {what}; last: {:?}", last.lock().unwrap()),
        }
    }

    pub(super) async fn runs(&self, job: &JobHandle) -> JobReport {
        self.reaches(job, "the job runs", |report| {
            assert!(!report.state.is_ended(), "ended instead of running: {report:?}");
            report.state == JobState::Running
        })
        .await
    }

    pub(super) async fn ends(&self, job: &JobHandle) -> JobEnd {
        match self.reaches(job, "the job ends", |report| report.state.is_ended()).await.state {
            JobState::Ended(end) => end,
            other => panic!("{other:?} is no end"),
        }
    }

    /// All of a file.
    pub(super) async fn content(&self, job: &JobHandle, name: &str) -> Vec<u8> {
        let (name, mut all) = (FileName::new(name).unwrap(), Vec::new());
        loop {
            let more = self.backend.read(job, &name, all.len() as u64, 256 * 1024).await.expect("read");
            if more.is_empty() {
                return all;
            }
            all.extend_from_slice(&more);
        }
    }

    pub(super) async fn text(&self, job: &JobHandle, name: &str) -> String {
        String::from_utf8(self.content(job, name).await).expect("text")
    }

    pub(super) async fn clean_up(&mut self) {
        for id in std::mem::take(&mut self.made) {
            self.backend.remove(&id).await.expect("remove");
            let kept = self.backend.kept().await.expect("kept");
            assert!(!kept.contains(&id), "{id} is still kept");
        }
    }
}

/// A source file.
pub(super) fn source(name: &str, content: &str, executable: bool) -> SourceFile {
    let (name, content) = (FileName::new(name).unwrap(), Bytes::copy_from_slice(content.as_bytes()));
    SourceFile { name, content, executable }
}
