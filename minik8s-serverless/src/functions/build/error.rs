//! Why a revision cannot be built.

use super::layer::ArchiveError;
use crate::registry::RegistryError;
use std::io;

/// Why a revision cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The source was never uploaded, or is not here.
    #[error("the files {0} are not in the registry: upload them with `minik8s function update NAME -f DIR`")]
    NoSource(String),
    /// What it is laid on is not here.
    #[error(
        "the base image {0} is not in the registry: add it with `minik8s function base {0} -f ARCHIVE`, or --from IMAGE"
    )]
    NoBase(String),
    /// The files.
    #[error("the archive is no good: {0}")]
    Archive(#[from] ArchiveError),
    /// What is required could not be installed.
    #[error("its requirements cannot be installed: {why}")]
    Install {
        /// In a few words.
        why: String,
        /// What was said meanwhile.
        log: String,
        /// Another time it may work.
        again: bool,
    },
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl BuildError {
    /// Trying again would not help.
    pub fn is_hopeless(&self) -> bool {
        match self {
            Self::Archive(ArchiveError::Unreadable(error)) => error.kind() != io::ErrorKind::NotFound,
            Self::Archive(_) => true,
            Self::Install { again, .. } => !again,
            _ => false,
        }
    }

    /// All there is to say.
    pub fn log(&self) -> String {
        match self {
            Self::Install { log, .. } if !log.is_empty() => log.clone(),
            other => other.to_string(),
        }
    }

    /// The same, where the archive is not the user's.
    pub(super) fn of_packages(self) -> Self {
        match self {
            Self::Archive(error) if !matches!(error, ArchiveError::Unreadable(_)) => {
                let why = format!("what was installed makes no layer: {error}");
                Self::Install { why, log: String::new(), again: false }
            }
            other => other,
        }
    }
}
