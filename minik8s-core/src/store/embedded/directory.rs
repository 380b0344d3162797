//! The directory of a store: its lock and the names of its files. `log-R` holds the commits after revision R,
//! `snapshot-R` the state at R; files come to be under another name and are renamed when they are complete.

use super::error::OpenError;
use crate::api::Revision;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const LOCK: &str = "lock";
const UNFINISHED: &str = ".unfinished";

/// A locked directory. The lock ends with it, or with the process.
pub(super) struct Directory {
    path: PathBuf,
    lock: File,
}

/// The files found, each sorted by revision.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) snapshots: Vec<Revision>,
    pub(super) logs: Vec<Revision>,
}

impl Drop for Directory {
    /// Unlocks by word, not by closing: a child process that was forked this moment still holds a copy of the descriptor
    /// until its exec, and with it the lock.
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(path = %self.path.display(), %error, "the store's lock was not given back");
        }
    }
}

impl Directory {
    /// Makes the directory where it is missing and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |operation| OpenError::io(operation, path);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("create directory"))?;
        let lock = path.join(LOCK);
        let is_new = !lock.exists();
        let mut file = private(OpenOptions::new().read(true).write(true).create(true).truncate(false))
            .open(&lock)
            .map_err(OpenError::io("open", &lock))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::Locked { path: path.to_owned(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(OpenError::io("lock", &lock)(source)),
        }
        let note = |file: &mut File| file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        note(&mut file).map_err(OpenError::io("write", &lock))?;
        if is_new && let Some(parent) = path.canonicalize().ok().as_deref().and_then(Path::parent) {
            File::open(parent).and_then(|dir| dir.sync_all()).map_err(OpenError::io("sync directory", parent))?;
        }
        Ok(Self { path: path.to_owned(), lock: file })
    }

    pub(super) fn log(&self, revision: Revision) -> PathBuf {
        self.path.join(format!("log-{revision:020}"))
    }

    pub(super) fn snapshot(&self, revision: Revision) -> PathBuf {
        self.path.join(format!("snapshot-{revision:020}"))
    }

    /// Removes files that were never finished, and says what else is there.
    pub(super) fn clean_up(&self) -> Result<Found, OpenError> {
        for item in self.path.read_dir().map_err(OpenError::io("read directory", &self.path))? {
            let path = item.map_err(OpenError::io("read directory", &self.path))?.path();
            if path.as_os_str().as_encoded_bytes().ends_with(UNFINISHED.as_bytes()) {
                self.remove(&path)?;
            }
        }
        self.scan()
    }

    /// What is there. Files of others are left alone.
    pub(super) fn scan(&self) -> Result<Found, OpenError> {
        let mut found = Found::default();
        for item in self.path.read_dir().map_err(OpenError::io("read directory", &self.path))? {
            let item = item.map_err(OpenError::io("read directory", &self.path))?;
            let name = item.file_name();
            let name = name.to_string_lossy();
            if let Some(revision) = name.strip_prefix("log-").and_then(|r| r.parse().ok()) {
                found.logs.push(revision);
            } else if let Some(revision) = name.strip_prefix("snapshot-").and_then(|r| r.parse().ok()) {
                found.snapshots.push(revision);
            }
        }
        found.snapshots.sort_unstable();
        found.logs.sort_unstable();
        Ok(found)
    }

    /// Makes a file that appears under its name only when `write` is done and its content is on disk.
    pub(super) fn create<T>(
        &self,
        path: &Path,
        write: impl FnOnce(&mut File) -> Result<T, std::io::Error>,
    ) -> Result<(File, T), OpenError> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        let mut file = private(OpenOptions::new().read(true).write(true).create(true).truncate(true))
            .open(&unfinished)
            .map_err(OpenError::io("create", &unfinished))?;
        let written = write(&mut file).and_then(|out| file.sync_all().map(|()| out));
        let out = written.map_err(OpenError::io("write", &unfinished))?;
        std::fs::rename(&unfinished, path).map_err(OpenError::io("rename to", path))?;
        self.sync()?;
        Ok((file, out))
    }

    /// Removes a file; a missing one is fine.
    pub(super) fn remove(&self, path: &Path) -> Result<(), OpenError> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(OpenError::io("remove", path)(error)),
            _ => Ok(()),
        }
    }

    fn sync(&self) -> Result<(), OpenError> {
        File::open(&self.path).and_then(|dir| dir.sync_all()).map_err(OpenError::io("sync directory", &self.path))
    }
}

/// Secrets are stored here: nobody else may read the files.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600)
}

fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    match lock.read_to_string(&mut text) {
        Ok(_) if !text.is_empty() => text,
        _ => "?".to_owned(),
    }
}
