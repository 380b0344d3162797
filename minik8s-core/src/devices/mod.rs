//! Which device of this machine is whose. One table for all who hand devices out, whatever process they are in: a
//! directory with a file for each device that somebody has, which names its holder.
//!
//! A holder is a path that exists as long as the holder may use its devices (a job's directory, a pod's). Whoever is killed
//! gives nothing back; what it held is free again once that path is gone.

mod cdi;
mod driver;
mod gpus;
mod grant;

pub use gpus::{GPU, Gpus};
pub use grant::Grant;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The table. Clones, and other values over the same directory, are the same table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    directory: PathBuf,
}

impl Devices {
    /// The table in this directory, which is made when there is something to put into it.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Gives a holder `count` of these devices, those that it has already among them; `None`, and nothing, where not so many
    /// are free.
    ///
    /// # Errors
    /// Where the table cannot be read or written.
    pub fn take(&self, holder: &Path, all: &[String], count: usize) -> io::Result<Option<Vec<String>>> {
        if count == 0 {
            return Ok(Some(Vec::new()));
        }
        if holder.is_relative() {
            let why = format!(
                "the holder {} is no absolute path: others could not tell whether it is there",
                holder.display()
            );
            return Err(io::Error::new(ErrorKind::InvalidInput, why));
        }
        std::fs::create_dir_all(&self.directory)?;
        let _lock = self.lock()?;
        let held = self.read()?;
        let mine = all.iter().filter(|device| held.get(*device).is_some_and(|of| of == holder));
        let free = all.iter().filter(|device| !held.contains_key(*device));
        let given: Vec<String> = mine.chain(free).take(count).cloned().collect();
        if given.len() < count {
            return Ok(None);
        }
        for device in &given {
            std::fs::write(self.directory.join(device), holder.as_os_str().as_encoded_bytes())?;
        }
        Ok(Some(given))
    }

    /// Takes everything back from a holder. Nothing to take is success.
    ///
    /// # Errors
    /// Where the table cannot be read or written.
    pub fn release(&self, holder: &Path) -> io::Result<()> {
        if !self.directory.is_dir() {
            return Ok(());
        }
        let _lock = self.lock()?;
        for (device, of) in self.read()? {
            if of == holder {
                gone(std::fs::remove_file(self.directory.join(device)))?;
            }
        }
        Ok(())
    }

    /// Who has what.
    ///
    /// # Errors
    /// Where the table cannot be read.
    pub fn held(&self) -> io::Result<BTreeMap<String, PathBuf>> {
        if !self.directory.is_dir() {
            return Ok(BTreeMap::new());
        }
        let _lock = self.lock()?;
        self.read()
    }

    /// Where the table is, for who watches it; made where it is missing.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn place(&self) -> io::Result<&Path> {
        std::fs::create_dir_all(&self.directory)?;
        Ok(&self.directory)
    }

    /// Held until it is dropped; its own file, so that no device is called like it.
    fn lock(&self) -> io::Result<File> {
        let path = self.directory.join(".lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        file.lock()?;
        Ok(file)
    }

    /// What is held by somebody who still exists.
    fn read(&self) -> io::Result<BTreeMap<String, PathBuf>> {
        let mut held = BTreeMap::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().filter(|name| !name.starts_with('.')).map(str::to_owned) else {
                continue;
            };
            let holder = PathBuf::from(std::fs::read_to_string(entry.path())?);
            // One of which that cannot be told keeps what it has.
            if holder.try_exists().unwrap_or(true) {
                held.insert(name, holder);
            }
        }
        Ok(held)
    }
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_one_holders_at_a_time_whoever_asks() {
        let dir = tempfile::tempdir().unwrap();
        let holder = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let (one, two) = (Devices::new(dir.path().join("table")), Devices::new(dir.path().join("table")));
        let all = ["0", "1", "2"].map(str::to_owned);
        let (a, b) = (holder("a"), holder("b"));
        let words = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(one.take(&a, &all, 0).unwrap(), words(&[]));
        assert_eq!(one.held().unwrap().len(), 0);
        assert_eq!(one.take(&a, &all, 2).unwrap(), words(&["0", "1"]));
        assert_eq!(one.take(&a, &all, 2).unwrap(), words(&["0", "1"]), "what it has is its own");
        assert_eq!(two.take(&b, &all, 2).unwrap(), None);
        assert_eq!(two.take(&b, &all, 1).unwrap(), words(&["2"]));
        assert_eq!(two.held().unwrap().len(), 3);
        one.release(&a).unwrap();
        one.release(&a).unwrap();
        assert_eq!(two.take(&b, &all, 3).unwrap(), words(&["2", "0", "1"]));
        std::fs::remove_dir(&b).unwrap();
        assert_eq!(one.take(&a, &all, 3).unwrap(), words(&["0", "1", "2"]), "who is gone holds nothing");
    }

    #[test]
    fn many_at_once_never_get_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<String> = (0..4).map(|number| number.to_string()).collect();
        let got: Vec<Option<Vec<String>>> = std::thread::scope(|scope| {
            let one = |number: usize| {
                let (all, path) = (&all, dir.path());
                scope.spawn(move || {
                    let holder = path.join(format!("h{number}"));
                    std::fs::create_dir(&holder).unwrap();
                    Devices::new(path.join("table")).take(&holder, all, 1).unwrap()
                })
            };
            let threads: Vec<_> = (0..10).map(one).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut given: Vec<String> = got.into_iter().flatten().flatten().collect();
        given.sort();
        assert_eq!(given, all);
    }
}
