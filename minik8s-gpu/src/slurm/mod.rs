//! [`SlurmBackend`]: jobs on a machine with Slurm, reached over SSH.
//!
//! A job is a directory there, made before `sbatch` is asked and removed by us alone. It holds what was handed over, the
//! output, and marks: `attempt` (sbatch was asked), `jobid` (its answer), `claim` (who runs it; the first takes it), `exit`
//! (how that ended). Whatever is lost on the way, those marks and Slurm's own tables, asked by the job's name, tell what
//! happened; nothing is handed over twice.

mod args;
mod judge;
mod parse;
#[cfg(test)]
mod recorded;
mod remote;
mod ssh;

pub use ssh::{SshConfig, Traffic};

use crate::{archive, script};
use async_trait::async_trait;
use bytes::Bytes;
use judge::Verdict;
use minik8s_core::job::{
    FileInfo, FileName, JobBackend, JobCapabilities, JobError, JobHandle, JobId, JobReport, JobRequest, JobResult,
    JobState, MOST_RESULTS, Outage,
};
use parking_lot::Mutex;
use remote::Text;
use ssh::{Answer, Ssh};
use std::collections::HashMap;
use std::io;
use std::time::Duration;

/// How a Slurm is talked to.
#[derive(Clone)]
pub struct SlurmConfig {
    /// Where it is.
    pub ssh: SshConfig,
    /// Where files of jobs go, from the home directory if it is relative.
    pub root: String,
    /// A submission without an answer may still be taken for so long.
    pub settle: Duration,
    /// What a job's wrapper leaves behind may take so long to be seen after its end.
    pub grace: Duration,
}

impl SlurmConfig {
    /// The defaults around a machine.
    pub fn new(ssh: SshConfig, root: impl Into<String>) -> Self {
        Self { ssh, root: root.into(), settle: Duration::from_secs(60), grace: Duration::from_secs(20) }
    }
}

/// Jobs asked about in one query.
const CHUNK: usize = 5000;
/// What `READ` ends with where there is no such job.
const NO_JOB: i32 = 44;

/// Jobs on a machine with Slurm.
pub struct SlurmBackend {
    config: SlurmConfig,
    ssh: Ssh,
    version: Mutex<String>,
    /// Jobs that run under another number than that of their handle.
    aliases: Mutex<HashMap<JobId, String>>,
}

impl SlurmBackend {
    /// A backend that connects when it is asked something.
    ///
    /// # Errors
    /// Where the files with keys cannot be written.
    pub fn new(config: SlurmConfig) -> io::Result<Self> {
        let ssh = Ssh::new(config.ssh.clone())?;
        Ok(Self { config, ssh, version: Mutex::default(), aliases: Mutex::default() })
    }

    /// What was exchanged with the machine so far.
    pub fn traffic(&self) -> Traffic {
        self.ssh.traffic()
    }

    async fn run(&self, text: Text, args: &[&str], input: Bytes) -> JobResult<Answer> {
        let all: Vec<&str> = std::iter::once(self.config.root.as_str()).chain(args.iter().copied()).collect();
        let answer = self.ssh.run(text, &all, input).await?;
        if answer.code == 127 {
            let why = "Slurm's commands are not found there: set spec.slurm.loginShell".to_owned();
            return Err(JobError::Away { what: Outage::SchedulerDown, why });
        }
        Ok(answer)
    }

    /// The first line that begins with a letter and `|`.
    async fn told(&self, text: Text, args: &[&str], input: Bytes) -> JobResult<(char, String)> {
        let answer = self.run(text, args, input).await?;
        let out = String::from_utf8_lossy(&answer.out);
        let mut lines = out.lines().filter_map(|line| line.split_once('|'));
        let found = lines.find_map(|(kind, rest)| Some((kind.chars().next().filter(|_| kind.len() == 1)?, rest)));
        match found {
            Some(('X', why)) => Err(away(why)),
            Some(('W', why)) => Err(JobError::Odd(format!("files there cannot be removed: {}", why.trim()))),
            Some((kind, rest)) => Ok((kind, rest.trim().to_owned())),
            None => {
                Err(JobError::Odd(format!("{text:?} ended with {} and said {:?} {:?}", answer.code, out, answer.err)))
            }
        }
    }

    async fn ask(&self, jobs: &[JobHandle]) -> JobResult<Vec<JobReport>> {
        let aliases = self.aliases.lock().clone();
        let native = |job: &JobHandle| aliases.get(&job.id).unwrap_or(&job.native).clone();
        let list: String = jobs.iter().map(|job| format!("{} {}\n", job.id, native(job))).collect();
        let answer = self.run(Text::Poll, &[], list.into()).await?;
        if answer.code != 0 {
            return Err(JobError::Odd(format!("a query ended with {}: {}", answer.code, answer.err)));
        }
        let told = parse::answer(&String::from_utf8_lossy(&answer.out));
        if let Some(why) = &told.away {
            return Err(away(why));
        }
        if told.now.is_none() {
            return Err(JobError::Odd("a query was not answered to its end".to_owned()));
        }
        let report = |job: &JobHandle| match judge::judge(job, &native(job), &told, self.config.grace) {
            Verdict::Report(report) => *report,
            Verdict::Follow(other) => {
                self.aliases.lock().insert(job.id.clone(), other);
                JobReport::new(&job.id, JobState::Unknown)
            }
        };
        Ok(jobs.iter().map(report).collect())
    }
}

fn away(why: &str) -> JobError {
    JobError::Away { what: Outage::SchedulerDown, why: format!("Slurm does not answer: {}", why.trim()) }
}

#[async_trait]
impl JobBackend for SlurmBackend {
    fn capabilities(&self) -> JobCapabilities {
        JobCapabilities {
            version: self.version.lock().clone(),
            suspend: true,
            arrays: true,
            dependencies: true,
            gpus: true,
            memory_limits: true,
            time_limits: true,
        }
    }

    async fn submit(&self, job: &JobRequest) -> JobResult<JobHandle> {
        script::without_image(job)?;
        let (name, settle) = (job.id.to_string(), self.config.settle.as_secs().to_string());
        let own = args::sbatch(job);
        let suffix = if job.array.is_some() { ".%a" } else { "" };
        let args: Vec<&str> =
            [name.as_str(), settle.as_str(), suffix].into_iter().chain(own.iter().map(String::as_str)).collect();
        match self.told(Text::Submit, &args, archive::of_job(job, script::files(job))?.into()).await? {
            ('I', id) => Ok(JobHandle::new(&job.id, id)),
            ('R', why) => Err(JobError::Refused { field: args::blamed(&why), why }),
            ('D', why) => Err(JobError::DiskFull(why)),
            ('U', why) => Err(JobError::Unclear(why)),
            (kind, rest) => Err(JobError::Odd(format!("{kind}|{rest}"))),
        }
    }

    async fn find(&self, id: &JobId) -> JobResult<Option<JobHandle>> {
        match self.told(Text::Find, &[&id.to_string()], Bytes::new()).await? {
            ('I', native) => Ok(Some(JobHandle::new(id, native))),
            ('N', _) => Ok(None),
            (_, why) => Err(JobError::Unclear(why)),
        }
    }

    async fn poll(&self, jobs: &[JobHandle]) -> JobResult<Vec<JobReport>> {
        let mut reports = Vec::with_capacity(jobs.len());
        for chunk in jobs.chunks(CHUNK) {
            reports.extend(self.ask(chunk).await?);
        }
        Ok(reports)
    }

    async fn cancel(&self, id: &JobId) -> JobResult<()> {
        self.told(Text::Cancel, &[&id.to_string(), "no"], Bytes::new()).await.map(|_| ())
    }

    async fn suspend(&self, job: &JobHandle, stop: bool) -> JobResult<()> {
        let native = self.aliases.lock().get(&job.id).unwrap_or(&job.native).clone();
        match self.told(Text::Suspend, &[&native, if stop { "stop" } else { "go" }], Bytes::new()).await? {
            ('R', why) => Err(JobError::Refused { field: Some("suspend"), why }),
            _ => Ok(()),
        }
    }

    async fn files(&self, job: &JobHandle, patterns: &[String]) -> JobResult<Vec<FileInfo>> {
        let (name, most) = (job.id.to_string(), (MOST_RESULTS + 1).to_string());
        let own = [name.as_str(), most.as_str()].into_iter();
        let args: Vec<&str> = own.chain(patterns.iter().map(String::as_str)).collect();
        let answer = self.run(Text::Files, &args, Bytes::new()).await?;
        let out = String::from_utf8_lossy(&answer.out);
        if out.lines().any(|line| line == "N|") {
            return Err(JobError::NotFound(job.id.clone()));
        }
        let one = |line: &str| {
            let mut parts = line.strip_prefix("D|")?.splitn(3, '|');
            let (size, sha256, name) = (parts.next()?.parse().ok()?, parts.next()?.to_owned(), parts.next()?);
            Some(FileInfo { name: FileName::new(name).ok()?, size, sha256 })
        };
        let mut files: Vec<FileInfo> = out.lines().filter_map(one).collect();
        files.retain(|file| file.name.is_output() || file.name.result().is_some());
        files.sort_by(|a, b| a.name.cmp(&b.name));
        files.dedup_by(|a, b| a.name == b.name);
        Ok(files)
    }

    async fn read(&self, job: &JobHandle, file: &FileName, from: u64, most: usize) -> JobResult<Bytes> {
        let (name, from, bytes) = (job.id.to_string(), from.to_string(), most.to_string());
        let answer = self.run(Text::Read, &[&name, file.as_str(), &from, &bytes], Bytes::new()).await?;
        match answer.code {
            NO_JOB => Err(JobError::NotFound(job.id.clone())),
            0 => Ok(answer.out.into()),
            code => Err(JobError::Odd(format!("reading {file} ended with {code}: {}", answer.err))),
        }
    }

    async fn remove(&self, id: &JobId) -> JobResult<()> {
        self.aliases.lock().remove(id);
        self.told(Text::Cancel, &[&id.to_string(), "yes"], Bytes::new()).await.map(|_| ())
    }

    async fn kept(&self) -> JobResult<Vec<JobId>> {
        let answer = self.run(Text::Kept, &[], Bytes::new()).await?;
        let out = String::from_utf8_lossy(&answer.out).into_owned();
        let told = |kind: &'static str| out.lines().filter_map(move |line| line.strip_prefix(kind));
        if let Some(why) = told("X|").next() {
            return Err(away(why));
        }
        match told("V|").next() {
            Some(version) => *self.version.lock() = version.trim().to_owned(),
            None => return Err(JobError::Odd(format!("{:?} {:?}", out, answer.err))),
        }
        Ok(told("K|").filter_map(JobId::parse).collect())
    }

    async fn leave(&self) -> JobResult<()> {
        self.told(Text::Leave, &[], Bytes::new()).await.map(|_| ())
    }
}
