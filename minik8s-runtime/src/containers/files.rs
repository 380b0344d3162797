//! Files of one container: the copy of its record, when it started, how it ended. Small, blocking, and complete or
//! absent: each is written beside its place and renamed.

use super::Record;
use minik8s_core::runtime::Exit;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug)]
pub(crate) struct ContainerFiles {
    dir: PathBuf,
}

impl ContainerFiles {
    /// Those of the container with that containerd id.
    pub(crate) fn new(root: &Path, cid: &str) -> Self {
        Self { dir: root.join("containers").join(cid) }
    }

    pub(crate) fn create(&self, record: &Record) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        self.write("record", record)
    }

    pub(crate) fn record(&self) -> Option<Record> {
        self.read("record")
    }

    pub(crate) fn set_started(&self, at: i64) -> io::Result<()> {
        self.write("started", &at)
    }

    pub(crate) fn started(&self) -> Option<i64> {
        self.read("started")
    }

    /// Notes how it ended. The first one to note it wins, also among processes. Answers what counts.
    pub(crate) fn note_exit(&self, exit: &Exit) -> io::Result<Exit> {
        let fresh = self.dir.join(format!(".exit-{}", uuid::Uuid::new_v4().simple()));
        fs::write(&fresh, serde_json::to_vec(exit)?)?;
        let linked = fs::hard_link(&fresh, self.dir.join("noted"));
        let _ = fs::remove_file(&fresh);
        match linked {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(self.noted_exit().unwrap_or_else(|| exit.clone())),
        }
    }

    /// An end that is noted, but not yet visible: its last output may not be in the log.
    pub(crate) fn noted_exit(&self) -> Option<Exit> {
        self.read("noted")
    }

    /// Makes the noted end visible.
    pub(crate) fn show_exit(&self) -> io::Result<()> {
        match fs::hard_link(self.dir.join("noted"), self.dir.join("exit")) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(()),
        }
    }

    pub(crate) fn exit(&self) -> Option<Exit> {
        self.read("exit")
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&fs::read(self.dir.join(name)).ok()?).ok()
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let fresh = self.dir.join(format!(".{name}"));
        fs::write(&fresh, serde_json::to_vec(value)?)?;
        fs::rename(fresh, self.dir.join(name))
    }
}
