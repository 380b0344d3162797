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

    pub(crate) fn clear_started(&self) {
        let _ = fs::remove_file(self.dir.join("started"));
    }

    pub(crate) fn set_exit(&self, exit: &Exit) -> io::Result<()> {
        self.write("exit", exit)
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
