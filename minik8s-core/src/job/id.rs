//! Who a job is.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The identity of one attempt at a job, chosen and written down before anything is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobId {
    /// The object's uid: letters, digits and dashes.
    pub uid: String,
    /// Which attempt, from 1.
    pub attempt: u32,
}

const PREFIX: &str = "mk8s-";

impl JobId {
    /// An attempt at the job of an object.
    pub fn new(uid: impl Into<String>, attempt: u32) -> Self {
        Self { uid: uid.into(), attempt }
    }

    /// Reads what `Display` writes.
    pub fn parse(name: &str) -> Option<Self> {
        let (uid, attempt) = name.strip_prefix(PREFIX)?.rsplit_once('-')?;
        let plain = !uid.is_empty() && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let canonical = attempt.parse::<u32>().ok().filter(|number| number.to_string() == attempt)?;
        plain.then(|| Self::new(uid, canonical))
    }
}

/// A name that is safe in paths, in command lines, and as the name of a job: `mk8s-UID-ATTEMPT`.
impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
        write!(f, "{PREFIX}{}-{}", self.uid.chars().map(safe).collect::<String>(), self.attempt)
    }
}

/// A job that was handed over. May be stored, and used by another process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobHandle {
    /// Version of this form.
    pub version: u32,
    /// The identity it was handed over under.
    pub id: JobId,
    /// What the batch system calls it.
    pub native: String,
}

impl JobHandle {
    /// A handle of the present form.
    pub fn new(id: &JobId, native: impl Into<String>) -> Self {
        Self { version: 1, id: id.clone(), native: native.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_nothing_else_is() {
        let id = JobId::new("5f0c-11", 12);
        assert_eq!((id.to_string().as_str(), JobId::parse("mk8s-5f0c-11-12")), ("mk8s-5f0c-11-12", Some(id)));
        for odd in ["mk8s-", "mk8s--1", "mk8s-a", "mk8s-a-01", "mk8s-a/b-1", "other-a-1", "mk8s-a-4294967296"] {
            assert_eq!(JobId::parse(odd), None, "{odd}");
        }
        assert_eq!(JobId::new("../x y", 1).to_string(), "mk8s----x-y-1");
    }
}
