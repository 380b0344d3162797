//! What is known of a job: files in its directory.

use super::{LocalConfig, process};
use crate::script::Left;
use jiff::Timestamp;
use minik8s_core::job::{EndReason, FileName, JobEnd, JobId, JobReport, JobState, STDERR, STDOUT, SourceFile};
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What a job needs, and when it came.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Need {
    pub(super) gpus: usize,
    /// Nanoseconds since 1970: who came first goes first.
    pub(super) came: i128,
}

impl Need {
    pub(super) fn now(gpus: usize) -> Self {
        Self { gpus, came: Timestamp::now().as_nanosecond() }
    }
}

/// One job's directory.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) id: JobId,
    pub(super) path: PathBuf,
}

fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Record {
    pub(super) fn find(config: &LocalConfig, id: &JobId) -> io::Result<Option<Self>> {
        let path = config.directory.join(id.to_string());
        Ok(path.is_dir().then(|| Self { id: id.clone(), path }))
    }

    /// Every job, the one that came first in front.
    pub(super) fn all(config: &LocalConfig) -> io::Result<Vec<Self>> {
        let mut all = Vec::new();
        for entry in absent(std::fs::read_dir(&config.directory))?.into_iter().flatten() {
            let entry = entry?;
            if let Some(id) = entry.file_name().to_str().and_then(JobId::parse) {
                let record = Self { id, path: entry.path() };
                let came = record.need()?.map_or(0, |need| need.came);
                all.push((came, record));
            }
        }
        all.sort_by_key(|(came, _)| *came);
        Ok(all.into_iter().map(|(_, record)| record).collect())
    }

    /// Makes the directory, all of it or nothing.
    pub(super) fn make(
        config: &LocalConfig,
        id: &JobId,
        need: &Need,
        files: &[SourceFile],
        source: &[SourceFile],
    ) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.directory)?;
        let fresh = tempfile::Builder::new().prefix(".new-").tempdir_in(&config.directory)?;
        let work = fresh.path().join("work");
        std::fs::create_dir(&work)?;
        write(&fresh.path().join("need"), &serde_json::to_vec(need)?, false)?;
        for (base, files) in [(fresh.path(), files), (work.as_path(), source)] {
            for file in files {
                write(&base.join(file.name.as_str()), &file.content, file.executable)?;
            }
        }
        match std::fs::rename(fresh.path(), config.directory.join(id.to_string())) {
            // Somebody else was faster with the same.
            Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                let _ = fresh.keep();
                Ok(())
            }
        }
    }

    pub(super) fn text(&self, name: &str) -> io::Result<Option<String>> {
        Ok(absent(std::fs::read_to_string(self.path.join(name)))?.map(|text| text.trim().to_owned()))
    }

    pub(super) fn need(&self) -> io::Result<Option<Need>> {
        Ok(self.text("need")?.and_then(|text| serde_json::from_str(&text).ok()))
    }

    pub(super) fn has(&self, mark: &str) -> bool {
        self.path.join(mark).exists()
    }

    pub(super) fn mark(&self, mark: &str) -> io::Result<()> {
        write(&self.path.join(mark), b"", false)
    }

    pub(super) fn unmark(&self, mark: &str) -> io::Result<()> {
        absent(std::fs::remove_file(self.path.join(mark))).map(|_| ())
    }

    pub(super) fn state(&self) -> io::Result<JobState> {
        let claim = self.text("claim")?.filter(|claim| !claim.is_empty());
        let ended = |reason| Ok(JobState::Ended(JobEnd::new(reason, None)));
        // Looked at before what it may leave behind.
        let lives = process::lives(self);
        match (self.left()?, claim) {
            (Some(left), _) if !lives => Ok(JobState::Ended(left.end())),
            (Some(_), _) => Ok(JobState::Finishing),
            (None, None) if self.has("cancelled") => ended(EndReason::Cancelled),
            (None, _) if lives && self.has("held") => Ok(JobState::Suspended),
            (None, None) if lives => Ok(JobState::Running),
            (None, None) => Ok(JobState::Queued),
            (None, Some(_)) if lives => Ok(JobState::Running),
            // It may have left something after it was looked for.
            (None, Some(_)) => match self.left()? {
                Some(left) => Ok(JobState::Ended(left.end())),
                None if self.has("cancelled") => ended(EndReason::Cancelled),
                None => ended(EndReason::Error),
            },
        }
    }

    fn left(&self) -> io::Result<Option<Left>> {
        Ok(self.text("exit")?.and_then(|line| Left::parse(&line)))
    }

    pub(super) fn report(&self) -> io::Result<JobReport> {
        let mut report = JobReport::new(&self.id, self.state()?);
        report.native_state = format!("{:?}", report.state).split('(').next().unwrap_or_default().to_uppercase();
        if report.state != JobState::Queued {
            "localhost".clone_into(&mut report.nodes);
            report.started = modified(&self.path.join("claim"));
        }
        report.ended = self.left()?.and_then(|left| Timestamp::from_second(left.at).ok());
        for stream in [STDERR, STDOUT] {
            let size = absent(std::fs::metadata(self.path.join(stream)))?;
            report.output.extend(size.map(|meta| (FileName::output(stream, None), meta.len())));
        }
        Ok(report)
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        let name = format!(".gone-{}", self.id);
        let aside = self.path.with_file_name(name);
        absent(std::fs::rename(&self.path, &aside))?;
        absent(std::fs::remove_dir_all(&aside)).map(|_| ())
    }
}

fn modified(path: &Path) -> Option<Timestamp> {
    Timestamp::try_from(path.metadata().ok()?.modified().ok()?).ok()
}

pub(super) fn write(path: &Path, content: &[u8], executable: bool) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mode = if executable { 0o700 } else { 0o600 };
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(content)
}
