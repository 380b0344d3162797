//! Control groups of a host: a group of its own in every hierarchy of the machine, which it takes for the root.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the processes of the host are: a root with processes could not hand controllers down (version 2).
const MAIN: &str = "main";

/// The groups of one host; removed with everything below when dropped.
#[derive(Debug)]
pub(super) struct Groups {
    /// Where each hierarchy is mounted, and the group's name below.
    mounts: Vec<PathBuf>,
    label: String,
}

impl Groups {
    /// Makes them. Where the machine has none, or they cannot be written, the host shares those of the machine.
    pub(super) fn make(label: &str) -> Self {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = mounts(&mountinfo).into_iter().filter(|at| prepare(at, label).is_ok()).collect();
        Self { mounts, label: label.to_owned() }
    }

    /// Pairs of what to mount where inside of the host.
    pub(super) fn binds(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.mounts.iter().flat_map(|at| [at.join(&self.label), at.clone()])
    }

    /// The groups that processes of the host belong to.
    pub(super) fn joins(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.mounts.iter().map(|at| at.join(&self.label).join(MAIN))
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.mounts.iter().for_each(|at| remove_tree(&at.join(&self.label)));
    }
}

/// Where hierarchies are mounted.
pub(super) fn mounts(mountinfo: &str) -> Vec<PathBuf> {
    let is_group = |line: &&str| line.split_once(" - ").is_some_and(|(_, right)| right.starts_with("cgroup"));
    let mut all: Vec<PathBuf> =
        mountinfo.lines().filter(is_group).filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect();
    all.dedup();
    all
}

fn prepare(at: &Path, label: &str) -> io::Result<()> {
    // Version 2 hands controllers down level by level; what the machine does not have, the host does not either.
    let controllers = fs::read_to_string(at.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = fs::write(at.join("cgroup.subtree_control"), format!("+{controller}"));
    }
    let dir = at.join(label);
    for level in [dir.clone(), dir.join(MAIN)] {
        fs::create_dir(&level)?;
        // Version 1 starts with no processor at all, and lets nobody in.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = fs::read_to_string(at.join(file)) {
                let _ = fs::write(level.join(file), value);
            }
        }
    }
    Ok(())
}

/// Groups hold only virtual files, so directories are removed from the leaves up. The last process may be just ending.
fn remove_tree(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    for _ in 0..100 {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(Duration::from_millis(5)),
            _ => return,
        }
    }
}
