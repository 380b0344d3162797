//! Settings below `/proc/sys/net` of the calling thread's network namespace, and undoing them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Reads a setting, named by path: `net/ipv4/ip_forward`.
pub(crate) fn read(name: &str) -> io::Result<String> {
    Ok(std::fs::read_to_string(path(name))?.trim().to_owned())
}

/// Sets a setting, where it is not so already.
pub(crate) fn write(name: &str, value: &str) -> io::Result<()> {
    if read(name)? == value { Ok(()) } else { std::fs::write(path(name), value) }
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

/// What settings were before the first change, in a file, so that a successor can put them back.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Saved {
    values: BTreeMap<String, Change>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    before: String,
    after: String,
}

impl Saved {
    /// What a predecessor noted; nothing where there is none, or where its note is unreadable.
    pub(crate) fn load(file: &Path) -> Self {
        std::fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Sets a setting, having noted in `file` what it was.
    pub(crate) fn set(&mut self, file: &Path, name: &str, value: &str) -> io::Result<()> {
        let before = read(name)?;
        if before == value {
            return Ok(());
        }
        let change = Change { before, after: value.to_owned() };
        self.values.entry(name.to_owned()).or_insert(change);
        crate::ledger::write_atomically(file, &serde_json::to_vec(self)?)?;
        write(name, value)
    }

    /// Puts back every setting that still has the value it was given. Returns what went wrong.
    pub(crate) fn restore(&mut self, file: &Path) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, change) in std::mem::take(&mut self.values) {
            let result = match read(&name) {
                Ok(now) if now == change.after => write(&name, &change.before),
                Ok(_) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            };
            problems.extend(result.err().map(|error| format!("restore {name}: {error}")));
        }
        let _ = std::fs::remove_file(file);
        problems
    }
}
