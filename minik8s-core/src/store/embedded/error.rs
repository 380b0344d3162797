//! Why a directory could not be opened as a store.

use std::path::{Path, PathBuf};

/// Why a directory could not be opened as a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another handle of this one, has it open.
    #[error("store {} is in use by process {holder}: stop that one, or choose another directory", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process id that the holder left, or a question mark.
        holder: String,
    },
    /// What is on disk is not what was written there.
    #[error("store file {} is damaged at byte {offset}: {why}; restore the directory from a backup", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where it stops making sense.
        offset: u64,
        /// What is wrong there.
        why: String,
    },
    /// The operating system refused.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl OpenError {
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }

    pub(super) fn corrupt(path: &Path, offset: u64, why: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), offset, why: why.into() }
    }
}
