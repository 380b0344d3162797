//! The jobs of a pretended batch system.

use super::shell::{Shell, Step};
use crate::job::{
    AfterWhen, EndReason, FileInfo, FileName, JobEnd, JobError, JobHandle, JobId, JobReport, JobRequest, JobResult,
    JobState, MOST_RESULTS, STDERR, STDOUT, TaskReport,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use tokio::time::Instant;

const GPUS: u32 = 4;

/// One numbered part of a job, or all of it.
struct Task {
    index: Option<u32>,
    shell: Shell,
    state: JobState,
    until: Option<Instant>,
}

/// One job.
pub(super) struct Job {
    pub(super) request: JobRequest,
    native: u64,
    tasks: Vec<Task>,
    held: bool,
    gpus: Vec<u32>,
    forgotten: bool,
}

/// All of them.
#[derive(Default)]
pub(super) struct Table {
    pub(super) jobs: BTreeMap<JobId, Job>,
    pub(super) away: bool,
    pub(super) lost_answers: u32,
    pub(super) failing: BTreeMap<&'static str, JobError>,
    pub(super) independent: bool,
    pub(super) left: u32,
    pub(super) queries: u64,
    /// Files that were read, and from where.
    pub(super) reads: Vec<(FileName, u64)>,
    /// Reads until one breaks off.
    pub(super) breaks_after: Option<u32>,
    pub(super) started: Vec<JobId>,
    next: u64,
}

impl Table {
    /// Refuses what can never run.
    pub(super) fn check(&self, job: &JobRequest) -> JobResult<()> {
        let refused = |field, why: &str| Err(JobError::Refused { field: Some(field), why: why.to_owned() });
        match (&job.placement.partition, &job.gpus) {
            (Some(partition), _) if partition == "nowhere" => refused("placement.partition", "no such partition"),
            (_, Some(gpus)) if gpus.count > GPUS => refused("gpus", "there are 4"),
            _ if self.independent && !job.after.is_empty() => Err(JobError::Unsupported("dependencies")),
            _ => Ok(()),
        }
    }

    pub(super) fn add(&mut self, request: &JobRequest) {
        self.next += 1;
        let indices: Vec<Option<u32>> = match &request.array {
            Some(array) => array.indices.iter().copied().map(Some).collect(),
            None => vec![None],
        };
        let task = |index| Task { index, shell: Shell::new(request, index), state: JobState::Queued, until: None };
        let tasks = indices.into_iter().map(task).collect();
        let (native, request) = (self.next, request.clone());
        self.started.push(request.id.clone());
        let id = request.id.clone();
        self.jobs.insert(id, Job { request, native, tasks, held: false, gpus: Vec::new(), forgotten: false });
        self.advance();
    }

    pub(super) fn handle(&self, id: &JobId) -> Option<JobHandle> {
        self.jobs.get(id).map(|job| JobHandle::new(id, job.native.to_string()))
    }

    pub(super) fn forget(&mut self, id: &JobId) {
        self.jobs.entry(id.clone()).and_modify(|job| job.forgotten = true);
    }

    /// Lets time have its effect.
    pub(super) fn advance(&mut self) {
        let mut ids: Vec<(u64, JobId)> = self.jobs.iter().map(|(id, job)| (job.native, id.clone())).collect();
        ids.sort();
        for (_, id) in ids {
            let begins = self.jobs.get(&id).is_some_and(|job| job.waits() && !job.held);
            if begins {
                self.begin(&id);
            }
            self.jobs.entry(id).and_modify(Job::advance);
        }
    }

    fn begin(&mut self, id: &JobId) {
        let Some(job) = self.jobs.get(id) else { return };
        let mut verdicts = job.request.after.iter().map(|after| {
            let end = self.jobs.get(&after.job.id).map(|job| job.state());
            match (end, after.when) {
                (Some(JobState::Ended(end)), when) => {
                    let ok = end.reason == EndReason::Completed;
                    Some(when == AfterWhen::Any || ok == (when == AfterWhen::Ok))
                }
                _ => None,
            }
        });
        if verdicts.any(|verdict| verdict == Some(false)) {
            return self.end_one(id, EndReason::DependencyFailed);
        }
        let after = &job.request.after;
        if after.iter().any(|after| !self.jobs.get(&after.job.id).is_some_and(|job| job.state().is_ended())) {
            return;
        }
        let taken: Vec<u32> = self.jobs.values().flat_map(|job| job.gpus.iter().copied()).collect();
        let free: Vec<u32> = (0..GPUS).filter(|gpu| !taken.contains(gpu)).collect();
        let wanted = job.request.gpus.as_ref().map_or(0, |gpus| gpus.count as usize);
        if let Some(mine) = free.get(..wanted) {
            let mine = mine.to_vec();
            self.jobs.entry(id.clone()).and_modify(|job| job.start(mine));
        }
    }

    pub(super) fn end_one(&mut self, id: &JobId, reason: EndReason) {
        self.jobs.entry(id.clone()).and_modify(|job| job.end(reason, false));
    }

    pub(super) fn end_running(&mut self, reason: EndReason) {
        self.jobs.values_mut().for_each(|job| job.end(reason, true));
    }

    pub(super) fn suspend(&mut self, id: &JobId, stop: bool) {
        self.jobs.entry(id.clone()).and_modify(|job| {
            job.held = stop;
            for task in &mut job.tasks {
                match (&task.state, stop) {
                    (JobState::Running, true) => task.state = JobState::Suspended,
                    (JobState::Suspended, false) => task.state = JobState::Running,
                    _ => {}
                }
            }
        });
    }

    pub(super) fn report(&self, id: &JobId) -> Option<JobReport> {
        let job = self.jobs.get(id).filter(|job| !job.forgotten)?;
        let tasks =
            job.tasks.iter().filter_map(|task| Some(TaskReport { index: task.index?, state: task.state.clone() }));
        let output = job.outputs().map(|(name, bytes)| (name, bytes.len() as u64)).collect();
        let state = job.state();
        let nodes = if state == JobState::Queued { String::new() } else { "fake-1".to_owned() };
        let reason = if job.held { "held".to_owned() } else { String::new() };
        Some(JobReport { tasks: tasks.collect(), output, nodes, reason, ..JobReport::new(id, state) })
    }

    pub(super) fn files(&self, id: &JobId, patterns: &[String]) -> Option<Vec<FileInfo>> {
        let job = self.jobs.get(id)?;
        let mut files: Vec<FileInfo> = job.outputs().map(|(name, bytes)| FileInfo::of(name.as_str(), bytes)).collect();
        let wanted = job.results().filter(|(path, _)| patterns.iter().any(|pattern| matches(pattern, path)));
        for (path, content) in wanted.take(MOST_RESULTS + 1) {
            files.push(FileInfo::of(&format!("results/{path}"), content));
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        files.dedup_by(|a, b| a.name == b.name);
        Some(files)
    }

    pub(super) fn read(&self, id: &JobId, file: &FileName, from: u64, most: usize) -> Option<Bytes> {
        let job = self.jobs.get(id)?;
        let whole = match file.result() {
            Some(path) => job.results().find(|(name, _)| *name == path).map(|(_, content)| content.clone()),
            None => job.outputs().find(|(name, _)| name == file).map(|(_, bytes)| bytes.to_vec()),
        };
        let whole = whole.unwrap_or_default();
        let rest = usize::try_from(from).ok().and_then(|from| whole.get(from..)).unwrap_or_default();
        Some(Bytes::copy_from_slice(&rest[..most.min(rest.len())]))
    }
}

impl Job {
    fn waits(&self) -> bool {
        self.tasks.iter().all(|task| task.state == JobState::Queued)
    }

    fn start(&mut self, gpus: Vec<u32>) {
        let visible = gpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        for task in &mut self.tasks {
            task.state = JobState::Running;
            if self.request.gpus.is_some() {
                task.shell.set("CUDA_VISIBLE_DEVICES", &visible);
            }
        }
        self.gpus = gpus;
    }

    fn advance(&mut self) {
        let now = Instant::now();
        for task in self.tasks.iter_mut().filter(|task| task.state == JobState::Running) {
            while task.until.is_none_or(|until| until <= now) {
                task.until = None;
                match task.shell.step() {
                    Step::Next => {}
                    Step::Sleep(pause) => task.until = Some(now + pause),
                    Step::End(end) => {
                        task.state = JobState::Ended(end);
                        break;
                    }
                }
            }
        }
        if self.state().is_ended() {
            self.gpus.clear();
        }
    }

    fn end(&mut self, reason: EndReason, running_only: bool) {
        for task in self.tasks.iter_mut().filter(|task| !task.state.is_ended()) {
            if !running_only || task.state == JobState::Running {
                task.state = JobState::Ended(JobEnd::new(reason, None));
            }
        }
        if self.state().is_ended() {
            self.gpus.clear();
        }
    }

    /// The least far of its tasks, or their worst end.
    fn state(&self) -> JobState {
        let states = || self.tasks.iter().map(|task| &task.state);
        let unfinished = [JobState::Running, JobState::Suspended, JobState::Queued];
        if let Some(state) = unfinished.into_iter().find(|state| states().any(|is| is == state)) {
            return state;
        }
        let good = JobState::Ended(JobEnd::new(EndReason::Completed, Some(0)));
        states().find(|state| **state != good).cloned().unwrap_or(good)
    }

    fn outputs(&self) -> impl Iterator<Item = (FileName, &[u8])> {
        self.tasks.iter().flat_map(|task| {
            let name = |stream| FileName::output(stream, task.index);
            [(name(STDERR), task.shell.err.as_slice()), (name(STDOUT), task.shell.out.as_slice())]
        })
    }

    fn results(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.tasks.iter().flat_map(|task| task.shell.files.iter())
    }
}

/// A pattern with `*`, which does not reach over `/`.
fn matches(pattern: &str, path: &str) -> bool {
    fn part(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|n| part(rest, &text[n..])),
            Some((byte, rest)) => text.first() == Some(byte) && part(rest, &text[1..]),
        }
    }
    let (patterns, parts): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    patterns.len() == parts.len() && patterns.iter().zip(parts).all(|(p, t)| part(p.as_bytes(), t.as_bytes()))
}
