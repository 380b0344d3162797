//! Output and results of jobs at home: files below one directory, which grow while jobs run and are read by whoever asks.
//! They are no objects: the store holds names, sizes and digests only.

mod read;

use minik8s_core::beneath;
use minik8s_core::job::FileName;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tokio::sync::watch;

/// Says that an attempt's files are as complete as they will ever be.
const COMPLETE: &str = ".complete";

/// The files of jobs, below one directory that only its owner can read.
#[derive(Debug)]
pub struct Outputs {
    directory: PathBuf,
    /// Who waits for a job's files to grow, by uid.
    changes: Mutex<HashMap<String, watch::Sender<u64>>>,
}

impl Outputs {
    /// Files below this directory, which is made when there is something to put into it.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), changes: Mutex::default() }
    }

    fn of_job(&self, uid: &str) -> PathBuf {
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
        self.directory.join(uid.chars().map(safe).collect::<String>())
    }

    fn of_attempt(&self, uid: &str, attempt: u32) -> PathBuf {
        self.of_job(uid).join(attempt.to_string())
    }

    fn path(&self, uid: &str, attempt: u32, name: &FileName) -> PathBuf {
        self.of_attempt(uid, attempt).join(name.as_str())
    }

    /// How much of a file is here.
    pub(crate) async fn size(&self, uid: &str, attempt: u32, name: &FileName) -> io::Result<u64> {
        match tokio::fs::metadata(self.path(uid, attempt, name)).await {
            Ok(meta) => Ok(meta.len()),
            Err(error) if is_absent(&error) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Writes what comes at an offset; whatever was behind it goes.
    pub(crate) async fn write(
        &self,
        uid: &str,
        attempt: u32,
        name: &FileName,
        at: u64,
        bytes: bytes::Bytes,
    ) -> io::Result<()> {
        let path = self.path(uid, attempt, name);
        blocking(move || {
            if let Some(parent) = path.parent() {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            }
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            file.set_len(at)?;
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&bytes)
        })
        .await?;
        self.changed(uid);
        Ok(())
    }

    /// SHA-256 of what is here of a file.
    pub(crate) async fn digest(&self, uid: &str, attempt: u32, name: &FileName) -> io::Result<String> {
        let path = self.path(uid, attempt, name);
        blocking(move || digest_of(&path)).await
    }

    /// Says that an attempt's files are complete.
    pub(crate) async fn complete(&self, uid: &str, attempt: u32) -> io::Result<()> {
        let directory = self.of_attempt(uid, attempt);
        blocking(move || {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
            std::fs::write(directory.join(COMPLETE), b"")
        })
        .await?;
        self.changed(uid);
        Ok(())
    }

    async fn is_complete(&self, uid: &str, attempt: u32) -> bool {
        tokio::fs::try_exists(self.of_attempt(uid, attempt).join(COMPLETE)).await.unwrap_or(false)
    }

    /// Deletes the files of a job.
    pub(crate) async fn remove(&self, uid: &str) -> io::Result<()> {
        let removed = tokio::fs::remove_dir_all(self.of_job(uid)).await;
        // Whoever still waits is told that nothing comes any more.
        drop(self.changes.lock().remove(uid));
        match removed {
            Err(error) if !is_absent(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn changed(&self, uid: &str) {
        if let Some(sender) = self.changes.lock().get(uid) {
            sender.send_modify(|count| *count += 1);
        }
    }

    /// Tells of every change from now on; ends with the job's files.
    fn follow(&self, uid: &str) -> watch::Receiver<u64> {
        let mut changes = self.changes.lock();
        changes.retain(|_, sender| sender.receiver_count() > 0);
        changes.entry(uid.to_owned()).or_insert_with(|| watch::channel(0).0).subscribe()
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// SHA-256 of a file; of an absent one, that of nothing.
fn digest_of(path: &Path) -> io::Result<String> {
    match std::fs::File::open(path) {
        Err(error) if is_absent(&error) => beneath::digest(io::empty()),
        opened => beneath::digest(opened?),
    }
}
