//! [`LocalBackend`]: jobs as processes of this machine, each in a session of its own, with graphics processors handed out
//! exclusively.
//!
//! All that is known of a job stands in its directory, in the same marks that jobs on Slurm leave (`claim`, `exit`), and in
//! `/proc`: a process that is killed and started again goes on where it was, and its jobs have not noticed.

mod launch;
mod process;
mod record;
mod walk;

use crate::script;
use async_trait::async_trait;
use bytes::Bytes;
use minik8s_core::devices::{Devices, Gpus};
use minik8s_core::job::{
    FileInfo, FileName, JobBackend, JobCapabilities, JobError, JobHandle, JobId, JobReport, JobRequest, JobResult,
    JobState,
};
use record::{Need, Record};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What this machine gives to jobs.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// Where files of jobs go.
    pub directory: PathBuf,
    /// Jobs at a time.
    pub slots: usize,
    /// Graphics processors, as programs are told of them: `0`, `1`.
    pub gpus: Vec<String>,
    /// Which of them is whose: the same for all that hand out processors of this machine.
    pub devices: Devices,
}

impl LocalConfig {
    /// This machine without graphics processors.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        let slots = std::thread::available_parallelism().map_or(1, usize::from);
        let directory = directory.into();
        let devices = Devices::new(directory.join(".devices"));
        Self { slots, gpus: Vec::new(), devices, directory }
    }

    /// The same with these graphics processors, which others may hand out too.
    #[must_use]
    pub fn with_gpus(self, gpus: Gpus) -> Self {
        Self { gpus: gpus.numbers, devices: gpus.table, ..self }
    }
}

/// Jobs as processes of this machine.
#[derive(Clone)]
pub struct LocalBackend(Arc<LocalConfig>);

/// What is asked to end gets so long before it is made to.
const PATIENCE: Duration = Duration::from_secs(2);

fn broken(error: &io::Error) -> JobError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => JobError::DiskFull(error.to_string()),
        _ => JobError::Odd(format!("files of jobs cannot be used: {error}")),
    }
}

impl LocalBackend {
    /// A backend over a directory. Jobs that it finds there go on.
    pub fn new(config: LocalConfig) -> Self {
        Self(Arc::new(config))
    }

    /// Does work on files where it may block.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LocalConfig) -> io::Result<T> + Send + 'static,
    ) -> JobResult<T> {
        let config = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&config)).await;
        done.map_err(|error| JobError::Odd(error.to_string()))?.map_err(|error| broken(&error))
    }

    fn check(&self, job: &JobRequest) -> JobResult<()> {
        script::without_image(job)?;
        let wanted = job.gpus.as_ref().map_or(0, |gpus| gpus.count as usize);
        if wanted > self.0.gpus.len() {
            let why = format!("this machine has {} graphics processors", self.0.gpus.len());
            return Err(JobError::Refused { field: Some("gpus"), why });
        }
        if job.array.is_some() {
            return Err(JobError::Unsupported("arrays"));
        }
        if job.after.is_empty() { Ok(()) } else { Err(JobError::Unsupported("dependencies")) }
    }

    async fn known(&self, job: &JobHandle) -> JobResult<Record> {
        let id = job.id.clone();
        let found = self.with(move |config| Record::find(config, &id)).await?;
        found.ok_or_else(|| JobError::NotFound(job.id.clone()))
    }
}

#[async_trait]
impl JobBackend for LocalBackend {
    fn capabilities(&self) -> JobCapabilities {
        JobCapabilities {
            version: format!("local, {} graphics processors", self.0.gpus.len()),
            suspend: true,
            gpus: !self.0.gpus.is_empty(),
            time_limits: true,
            ..JobCapabilities::default()
        }
    }

    async fn submit(&self, job: &JobRequest) -> JobResult<JobHandle> {
        let handle = JobHandle::new(&job.id, job.id.to_string());
        let id = job.id.clone();
        if self.with(move |config| Record::find(config, &id)).await?.is_none() {
            self.check(job)?;
            let gpus = job.gpus.as_ref().map_or(0, |gpus| gpus.count as usize);
            let (id, files, source) = (job.id.clone(), script::files(job), job.source.clone());
            self.with(move |config| Record::make(config, &id, &Need::now(gpus), &files, &source)).await?;
        }
        self.with(launch::advance).await?;
        Ok(handle)
    }

    async fn find(&self, id: &JobId) -> JobResult<Option<JobHandle>> {
        let wanted = id.clone();
        let found = self.with(move |config| Record::find(config, &wanted)).await?;
        Ok(found.map(|record| JobHandle::new(id, record.id.to_string())))
    }

    async fn poll(&self, jobs: &[JobHandle]) -> JobResult<Vec<JobReport>> {
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id.clone()).collect();
        self.with(move |config| {
            launch::advance(config)?;
            let one = |id: &JobId| match Record::find(config, id)? {
                Some(record) => record.report(),
                None => Ok(JobReport::new(id, JobState::Missing)),
            };
            ids.iter().map(one).collect()
        })
        .await
    }

    async fn cancel(&self, id: &JobId) -> JobResult<()> {
        let id = id.clone();
        self.with(move |config| match Record::find(config, &id)? {
            Some(record) if !record.state()?.is_ended() => {
                record.mark("cancelled")?;
                process::end(&record, PATIENCE)
            }
            _ => Ok(()),
        })
        .await
    }

    async fn suspend(&self, job: &JobHandle, stop: bool) -> JobResult<()> {
        let record = self.known(job).await?;
        self.with(move |config| {
            if record.state()?.is_ended() {
                return Ok(());
            }
            if stop {
                record.mark("held")?
            } else {
                record.unmark("held")?
            }
            process::stop(&record, stop);
            launch::advance(config)
        })
        .await
    }

    async fn files(&self, job: &JobHandle, patterns: &[String]) -> JobResult<Vec<FileInfo>> {
        let (record, patterns) = (self.known(job).await?, patterns.to_vec());
        self.with(move |_| walk::files(&record.path, &patterns)).await
    }

    async fn read(&self, job: &JobHandle, file: &FileName, from: u64, most: usize) -> JobResult<Bytes> {
        let (record, file) = (self.known(job).await?, file.clone());
        self.with(move |_| {
            let Some(mut open) = walk::open(&record.path, &file)? else { return Ok(Bytes::new()) };
            open.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            open.take(most as u64).read_to_end(&mut bytes)?;
            Ok(bytes.into())
        })
        .await
    }

    async fn remove(&self, id: &JobId) -> JobResult<()> {
        let id = id.clone();
        self.with(move |config| {
            let Some(record) = Record::find(config, &id)? else { return Ok(()) };
            record.mark("cancelled")?;
            process::end(&record, PATIENCE)?;
            config.devices.release(&record.path)?;
            record.remove()?;
            launch::advance(config)
        })
        .await
    }

    async fn kept(&self) -> JobResult<Vec<JobId>> {
        self.with(|config| Ok(Record::all(config)?.into_iter().map(|record| record.id).collect())).await
    }

    async fn leave(&self) -> JobResult<()> {
        self.with(|config| match std::fs::remove_dir_all(&config.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }
}
