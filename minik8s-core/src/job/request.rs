//! What is asked for.

use super::{FileName, JobHandle, JobId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// A job to be run. Texts may hold whatever they like: backends quote.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobRequest {
    /// Who it is.
    pub id: JobId,
    /// What people call it; empty where it has no name.
    pub name: String,
    /// The image of the container it runs in, where backends run jobs in containers.
    pub image: Option<String>,
    /// Where it may run.
    pub placement: Placement,
    /// Processes it is made of; 0 is 1.
    pub tasks: u32,
    /// How many of them on one node.
    pub tasks_per_node: Option<u32>,
    /// Processors of each.
    pub cpus_per_task: Option<u32>,
    /// Memory on each node, in bytes.
    pub memory: Option<u64>,
    /// Graphics processors on each node.
    pub gpus: Option<Gpus>,
    /// How long it may run.
    pub time_limit: Option<Duration>,
    /// The same several times over, numbered.
    pub array: Option<Array>,
    /// What it waits for.
    pub after: Vec<After>,
    /// Environment modules that are loaded before.
    pub modules: Vec<String>,
    /// Environment variables. Never shown to other users of the batch system.
    pub env: BTreeMap<String, String>,
    /// The files it starts with.
    pub source: Vec<SourceFile>,
    /// Shell commands that come first; where they fail, the job ends with [`EndReason::CompileError`].
    ///
    /// [`EndReason::CompileError`]: super::EndReason::CompileError
    pub compile: Option<String>,
    /// Shell commands.
    pub run: String,
}

impl Default for JobId {
    fn default() -> Self {
        Self::new("none", 1)
    }
}

/// Where a job may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Partition, or queue.
    pub partition: Option<String>,
    /// Who pays.
    pub account: Option<String>,
    /// Quality of service.
    pub qos: Option<String>,
    /// Features that nodes must have.
    pub constraint: Option<String>,
    /// Nodes it must not run on.
    pub exclude: Vec<String>,
}

/// Graphics processors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpus {
    /// How many.
    pub count: u32,
    /// Of which type, where that matters.
    pub kind: Option<String>,
}

/// The numbers of an array's tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// Each once, in order.
    pub indices: Vec<u32>,
    /// How many may run at a time.
    pub at_once: Option<u32>,
}

impl Array {
    /// Reads `0-9`, `1,3,5-7`, `0-15:4`, each with `%N` behind for at most N at a time.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, most: usize) -> Result<Self, String> {
        let odd =
            || format!("must be like 0-9, 1,3,5-7 or 0-15:4, with %N behind for at most N at a time, not {text:?}");
        let (list, at_once) = match text.split_once('%') {
            Some((list, number)) => (list, Some(number.parse().ok().filter(|n| *n > 0).ok_or_else(odd)?)),
            None => (text, None),
        };
        let mut indices = std::collections::BTreeSet::new();
        for part in list.split(',') {
            let (range, step) = part.split_once(':').unwrap_or((part, "1"));
            let step: usize = step.parse().ok().filter(|n| *n > 0).ok_or_else(odd)?;
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u32, u32) = (first.parse().map_err(|_| odd())?, last.parse().map_err(|_| odd())?);
            if first > last {
                return Err(odd());
            }
            for index in (first..=last).step_by(step) {
                indices.insert(index);
                if indices.len() > most {
                    return Err(format!("must not have more than {most} tasks"));
                }
            }
        }
        Ok(Self { indices: indices.into_iter().collect(), at_once })
    }
}

/// A job that this one waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    /// Which, of the same backend.
    pub job: JobHandle,
    /// For what.
    pub when: AfterWhen,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterWhen {
    /// Its success.
    Ok,
    /// Its failure.
    NotOk,
    /// Its end.
    Any,
}

/// A file that a job starts with.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name, below the directory the job runs in.
    pub name: FileName,
    /// Its content.
    pub content: Bytes,
    /// It may be executed.
    pub executable: bool,
}

impl std::fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SourceFile({}, {} bytes)", self.name, self.content.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_read() {
        let indices = |text: &str| Array::parse(text, 100).map(|array| (array.indices, array.at_once));
        assert_eq!(indices("0-3").unwrap(), (vec![0, 1, 2, 3], None));
        assert_eq!(indices("5,1,3-4,3%2").unwrap(), (vec![1, 3, 4, 5], Some(2)));
        assert_eq!(indices("0-15:4").unwrap(), (vec![0, 4, 8, 12], None));
        for odd in ["", "a", "3-1", "1-", "-1", "1%0", "1%x", "0-9:0", "1;2", "0-100", "0-4294967295"] {
            assert!(indices(odd).is_err(), "{odd}");
        }
    }
}
