//! Files of jobs: names that cannot lead out, and digests.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// Name of the file with a job's output.
pub const STDOUT: &str = "stdout";
/// Name of the file with a job's errors.
pub const STDERR: &str = "stderr";

/// Results of one job, at most: whoever has more packs them.
pub const MOST_RESULTS: usize = 1000;

/// The name of a file, relative, which leads nowhere but down.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

impl FileName {
    /// Checks a name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(name: impl Into<String>) -> Result<Self, String> {
        let name = name.into();
        let parts = || name.split('/');
        let why = if name.is_empty() {
            "must not be empty"
        } else if name.len() > 4000 || parts().any(|part| part.len() > 255) {
            "must not be longer than 4000 bytes, nor a part of it longer than 255"
        } else if name.starts_with('/') {
            "must be relative"
        } else if parts().any(|part| part == "..") {
            "must not contain '..'"
        } else if parts().any(|part| part.is_empty() || part == ".") {
            "must not contain '//' or '.' as a part"
        } else if name.chars().any(char::is_control) {
            "must not contain control characters"
        } else {
            return Ok(Self(name));
        };
        Err(why.to_owned())
    }

    /// The file with a job's output, or with that of one task of an array.
    pub fn output(stream: &str, task: Option<u32>) -> Self {
        Self(task.map_or_else(|| stream.to_owned(), |task| format!("{stream}.{task}")))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path below the directory the job runs in, for a result.
    pub fn result(&self) -> Option<&str> {
        self.0.strip_prefix("results/")
    }

    /// True for what a job writes to its output and errors.
    pub fn is_output(&self) -> bool {
        let (stem, task) = self.0.split_once('.').map_or((self.0.as_str(), None), |(stem, task)| (stem, Some(task)));
        [STDOUT, STDERR].contains(&stem) && task.is_none_or(|task| task.parse::<u32>().is_ok())
    }
}

impl TryFrom<String> for FileName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::new(name)
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A file as it is where the job ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Its name.
    pub name: FileName,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of its content, in lower-case hexadecimal digits; empty where it is too large for that.
    pub sha256: String,
}

impl FileInfo {
    /// Of a file whose content is at hand.
    ///
    /// # Panics
    /// For names that are none, which are the caller's own.
    pub fn of(name: &str, content: &[u8]) -> Self {
        #[allow(clippy::expect_used, reason = "a literal of the caller")]
        let name = FileName::new(name).expect("a file name");
        Self { name, size: content.len() as u64, sha256: digest(content) }
    }
}

/// SHA-256, in lower-case hexadecimal digits.
pub fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_but_down() {
        for fine in ["stdout", "results/a b/$(x)'\"`;", "results/..a", "a.b/c"] {
            assert!(FileName::new(fine).is_ok(), "{fine}");
        }
        for odd in ["", "/etc/passwd", "..", "a/../b", "a//b", "./a", "a\nb", "a/", "a\0b"] {
            assert!(FileName::new(odd).is_err(), "{odd}");
        }
        assert!(FileName::new("x".repeat(256)).is_err());
    }

    #[test]
    fn outputs_are_known_by_name() {
        for (name, is) in [("stdout", true), ("stderr.12", true), ("stdout.x", false), ("results/stdout", false)] {
            assert_eq!(FileName::new(name).unwrap().is_output(), is, "{name}");
        }
        assert_eq!(FileName::output(STDERR, Some(3)).as_str(), "stderr.3");
    }
}
