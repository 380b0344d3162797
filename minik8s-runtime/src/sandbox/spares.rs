//! Spares: the namespaces of sandboxes to come. They have no id, no record and no address, lie apart from the sandboxes,
//! and are in no list. A pod gets one by a rename of the directory that its pins lie in.
//!
//! The directory's name says what a spare is, so that whoever finds it after a crash knows: `making-…` is not whole yet,
//! `ready-…` is nobody's, and `taken-…` may have some of one pod's settings, so that no other may have it. Only those that
//! are ready are taken over, by one process at a time.

use super::namespaces::{Wanted, dedicate, is_whole, pin, unpin};
use super::record::{names, write_host_name};
use crate::runtime::Inner;
use minik8s_core::runtime::{RuntimeError, RuntimeResult};
use nix::fcntl::{Flock, FlockArg};
use parking_lot::Mutex;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Each holds a network namespace of the kernel's, which is memory.
pub(crate) const MOST_SPARES: usize = 64;
/// Before each that is made: whoever took the last one is starting a pod, and needs the machine more.
const REST: Duration = Duration::from_millis(500);

const MAKING: &str = "making-";
const READY: &str = "ready-";
const TAKEN: &str = "taken-";

/// The spares below one directory.
#[derive(Debug)]
pub(crate) struct Spares {
    dir: PathBuf,
    /// How many there are to be.
    count: usize,
    kept: Mutex<Kept>,
    /// Held while one is made and while all are removed. Nobody who takes one waits for it.
    making: Mutex<()>,
    wanted: Notify,
}

/// What this process has of them.
#[derive(Debug, Default)]
struct Kept {
    /// The right to the directory, which the kernel gives back when the process ends.
    right: Option<Flock<File>>,
    /// What follows the prefix in the names of those that are ready.
    ready: Vec<String>,
    closed: bool,
}

impl Spares {
    pub(super) fn new(dir: PathBuf, count: usize) -> Self {
        Self { dir, count, kept: Mutex::default(), making: Mutex::default(), wanted: Notify::new() }
    }

    fn path(&self, prefix: &str, name: &str) -> PathBuf {
        self.dir.join(format!("{prefix}{name}"))
    }

    /// Makes a spare the sandbox whose pins lie in `to`, where nothing is now. False where there is none, or none that
    /// fits: then nothing was done. Blocking.
    pub(super) fn take(&self, to: &Path, wanted: &Wanted) -> bool {
        if !wanted.all() {
            return false;
        }
        let name = self.next();
        self.wanted.notify_one();
        let Some(name) = name else { return false };
        let placed = self.place(&name, to, wanted);
        if let Err(error) = &placed {
            // What is wrong with the pod's wishes comes out again when its namespaces are made for it.
            tracing::debug!(%error, "a spare sandbox was of no use");
            for prefix in [READY, TAKEN] {
                let _ = unpin(&self.path(prefix, &name));
            }
        }
        placed.is_ok()
    }

    fn next(&self) -> Option<String> {
        let mut kept = self.kept.lock();
        if kept.right.is_none() && self.count > 0 {
            let _ = fs::create_dir(&self.dir);
        }
        self.own(&mut kept).then(|| kept.ready.pop()).flatten()
    }

    /// The last rename makes it a sandbox, which is whole then.
    fn place(&self, name: &str, to: &Path, wanted: &Wanted) -> io::Result<()> {
        let taken = self.path(TAKEN, name);
        fs::rename(self.path(READY, name), &taken)?;
        dedicate(&taken, wanted)?;
        write_host_name(&taken, wanted)?;
        fs::rename(taken, to)
    }

    /// Makes one where one is missing. False where none is, or where they are another process's. Blocking.
    pub(super) fn add(&self) -> io::Result<bool> {
        let _alone = self.making.lock();
        let lacking = {
            let mut kept = self.kept.lock();
            self.own(&mut kept) && kept.ready.len() < self.count
        };
        if !lacking {
            return Ok(false);
        }
        let name = uuid::Uuid::new_v4().simple().to_string();
        let (making, ready) = (self.path(MAKING, &name), self.path(READY, &name));
        // Not with what is above: where that is gone, so is what spares are for.
        let made = fs::create_dir(&making).and_then(|()| pin(&making, &Wanted::plain()));
        if let Err(error) = made.and_then(|()| fs::rename(&making, &ready)) {
            let _ = unpin(&making);
            return Err(error);
        }
        self.kept.lock().ready.push(name);
        Ok(true)
    }

    /// Takes all of them away, also those that a process that was killed left; those of one that lives stay. Nobody gets one
    /// from here on. Blocking, for as long as one takes to be made.
    pub(crate) fn close(&self) {
        let _alone = self.making.lock();
        let mut kept = self.kept.lock();
        if self.own(&mut kept) {
            names(&self.dir).for_each(|name| self.discard(&name));
        }
        *kept = Kept { closed: true, ..Kept::default() };
    }

    /// True where the directory is this process's. Whoever gets it finds what the last one left.
    fn own(&self, kept: &mut Kept) -> bool {
        if kept.right.is_none() && !kept.closed {
            let right = File::open(&self.dir).ok().map(|dir| Flock::lock(dir, FlockArg::LockExclusiveNonblock));
            if let Some(Ok(right)) = right {
                kept.right = Some(right);
                kept.ready = self.found();
            }
        }
        kept.right.is_some()
    }

    /// Those of an earlier process that may be used; whatever else lies there goes.
    fn found(&self) -> Vec<String> {
        let mut ready = Vec::new();
        for name in names(&self.dir) {
            match name.strip_prefix(READY) {
                Some(rest) if ready.len() < self.count && is_whole(&self.dir.join(&name), &Wanted::plain()) => {
                    ready.push(rest.to_owned());
                }
                _ => self.discard(&name),
            }
        }
        ready
    }

    fn discard(&self, name: &str) {
        if let Err(error) = unpin(&self.dir.join(name)) {
            tracing::warn!(%error, name, "a spare sandbox does not go");
        }
    }
}

/// Makes spares as they are taken, one at a time, until it is stopped.
pub(crate) async fn keep_spares(inner: Arc<Inner>, stop: CancellationToken) {
    let keep = async {
        loop {
            inner.sandboxes.spares().wanted.notified().await;
            loop {
                tokio::time::sleep(REST).await;
                match add(&inner).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    // The next sandbox has it tried again.
                    Err(error) => {
                        tracing::warn!(%error, "no spare sandbox");
                        break;
                    }
                }
            }
        }
    };
    let _: Option<()> = stop.run_until_cancelled(keep).await;
}

async fn add(inner: &Arc<Inner>) -> RuntimeResult<bool> {
    let failed = |e: io::Error| RuntimeError::Unavailable { operation: "making a spare sandbox", cause: e.to_string() };
    inner.blocking(move |this| this.sandboxes.spares().add().map_err(failed)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik8s_core::testkit::need::{Need, met};
    use std::collections::BTreeSet;
    use std::os::unix::fs::MetadataExt;

    fn listed(dir: &Path) -> BTreeSet<String> {
        names(dir).collect()
    }

    fn number(pin: &Path) -> u64 {
        fs::metadata(pin).expect("a pin").ino()
    }

    fn filled(dir: &Path, count: usize) -> Spares {
        let spares = Spares::new(dir.to_path_buf(), count);
        fs::create_dir_all(dir).expect("dir");
        while spares.add().expect("add") {}
        spares
    }

    fn pod(name: &str) -> Wanted {
        Wanted { hostname: name.to_owned(), ..Wanted::plain() }
    }

    #[test]
    fn whoever_comes_after_a_crash_takes_over_what_is_whole_and_removes_the_rest() {
        if !met(&[Need::Root]) {
            return;
        }
        let home = tempfile::tempdir().expect("dir");
        let (dir, pods) = (home.path().join("spares"), home.path().join("pods"));
        fs::create_dir_all(&pods).expect("dir");
        let first = filled(&dir, 4);
        let all: Vec<String> = listed(&dir).into_iter().collect();
        let [whole, taken, making, torn] = all.as_slice() else { panic!("{all:?}") };
        let net = number(&dir.join(whole).join("net"));
        let rest = |name: &str| name.strip_prefix(READY).expect("ready").to_owned();
        // It died with a spare half settled, with one half made, and with one that lost its shared memory.
        drop(first);
        fs::rename(dir.join(taken), dir.join(format!("{TAKEN}{}", rest(taken)))).expect("rename");
        fs::rename(dir.join(making), dir.join(format!("{MAKING}{}", rest(making)))).expect("rename");
        nix::mount::umount(&dir.join(torn).join("shm")).expect("umount");
        fs::create_dir(dir.join("ready-never")).expect("dir");
        let second = Spares::new(dir.clone(), 4);
        assert!(second.take(&pods.join("a"), &pod("a")));
        assert_eq!(number(&pods.join("a/net")), net);
        assert_eq!(listed(&dir), BTreeSet::new());
        assert!(!second.take(&pods.join("b"), &pod("b")) && !pods.join("b").exists());
        unpin(&pods.join("a")).expect("unpin");
        second.close();
    }

    #[test]
    fn no_more_are_taken_over_than_are_wanted() {
        if !met(&[Need::Root]) {
            return;
        }
        let home = tempfile::tempdir().expect("dir");
        let dir = home.path().join("spares");
        drop(filled(&dir, 3));
        let fewer = filled(&dir, 1);
        assert_eq!(listed(&dir).len(), 1);
        drop(fewer);
        let none = Spares::new(dir.clone(), 0);
        assert!(!none.take(&home.path().join("a"), &pod("a")));
        assert_eq!(listed(&dir), BTreeSet::new());
    }

    #[test]
    fn nothing_is_made_once_they_are_closed() {
        if !met(&[Need::Root]) {
            return;
        }
        let home = tempfile::tempdir().expect("dir");
        let dir = home.path().join("spares");
        let spares = filled(&dir, 2);
        let next = Spares::new(dir.clone(), 2);
        assert!(!next.add().expect("add"), "they are another's");
        next.close();
        assert_eq!(listed(&dir).len(), 2, "another's stay");
        spares.close();
        assert_eq!(listed(&dir), BTreeSet::new());
        assert!(!spares.add().expect("add") && !spares.take(&home.path().join("a"), &pod("a")));
        assert_eq!(listed(&dir), BTreeSet::new());
    }

    #[test]
    fn a_spare_that_is_of_no_use_goes_and_leaves_the_place_free() {
        if !met(&[Need::Root]) {
            return;
        }
        let home = tempfile::tempdir().expect("dir");
        let (dir, to) = (home.path().join("spares"), home.path().join("a"));
        let spares = filled(&dir, 1);
        let sysctls = [("net/no/such".to_owned(), "1".to_owned())].into();
        assert!(!spares.take(&to, &Wanted { sysctls, ..pod("a") }));
        assert!(listed(&dir).is_empty() && !to.exists());
        assert!(spares.add().expect("add"));
        assert!(spares.take(&to, &pod("a")), "the next one is whole");
        assert_eq!(fs::read_to_string(to.join("hostname")).expect("file"), "a\n");
        unpin(&to).expect("unpin");
        spares.close();
    }
}
