//! Making, pinning and entering namespaces. All of it happens on a thread of its own, which ends with it: a thread that
//! left the host's namespaces must never run anything else.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::statfs;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS: i64 = 0x6e73_6673;
/// Size of a pod's shared memory, as Kubernetes has it.
const SHM_OPTIONS: &str = "mode=1777,size=65536k";

/// What to make.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) net: bool,
    pub(super) ipc: bool,
    pub(super) uts: bool,
    pub(super) hostname: String,
    /// Values by path below `/proc/sys`.
    pub(super) sysctls: BTreeMap<String, String>,
}

impl Wanted {
    /// Every namespace, and nothing that is one pod's.
    pub(super) fn plain() -> Self {
        Self { net: true, ipc: true, uts: true, hostname: String::new(), sysctls: BTreeMap::new() }
    }

    /// True where it wants every namespace, as most pods do.
    pub(super) fn all(&self) -> bool {
        self.net && self.ipc && self.uts
    }

    /// Names of the pins, which are the kernel's names of the namespaces, and what the kernel calls them otherwise.
    fn namespaces(&self) -> impl Iterator<Item = (&'static str, CloneFlags)> + use<> {
        let all = [
            (self.net, "net", CloneFlags::CLONE_NEWNET),
            (self.ipc, "ipc", CloneFlags::CLONE_NEWIPC),
            (self.uts, "uts", CloneFlags::CLONE_NEWUTS),
        ];
        all.into_iter().filter(|(wanted, ..)| *wanted).map(|(_, name, flag)| (name, flag))
    }

    /// File names of the pins.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.namespaces().map(|(name, _)| name)
    }
}

/// Makes the namespaces and pins them below `dir`, which is there.
pub(super) fn pin(dir: &Path, wanted: &Wanted) -> io::Result<()> {
    apart(|| pin_here(dir, wanted))
}

/// Gives namespaces that are pinned below `dir` what `wanted` has of one pod: host name and kernel parameters.
pub(super) fn dedicate(dir: &Path, wanted: &Wanted) -> io::Result<()> {
    apart(|| {
        for (name, flag) in wanted.namespaces() {
            setns(File::open(dir.join(name))?, flag)?;
        }
        dedicate_here(wanted)
    })
}

fn apart(work: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("sandbox".to_owned()).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| io::Error::other("the sandbox thread panicked"))?
    })
}

fn dedicate_here(wanted: &Wanted) -> io::Result<()> {
    if wanted.uts {
        nix::unistd::sethostname(&wanted.hostname)?;
    }
    wanted.sysctls.iter().try_for_each(|(path, value)| set_sysctl(path, value))
}

fn pin_here(dir: &Path, wanted: &Wanted) -> io::Result<()> {
    unshare(wanted.namespaces().fold(CloneFlags::empty(), |all, (_, flag)| all | flag))?;
    if wanted.net {
        crate::sys::loopback_up()?;
    }
    dedicate_here(wanted)?;
    // The pins come last: a sandbox that has them is taken for whole.
    if wanted.ipc {
        let shm = dir.join("shm");
        fs::create_dir_all(&shm)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("shm"), &shm, Some("tmpfs"), flags, Some(SHM_OPTIONS))?;
    }
    for name in wanted.names() {
        bind(&format!("/proc/thread-self/ns/{name}"), &dir.join(name))?;
    }
    Ok(())
}

/// `/proc/sys` answers for the namespaces of the thread that opens it.
fn set_sysctl(path: &str, value: &str) -> io::Result<()> {
    let name = || path.replace('/', ".");
    fs::write(Path::new("/proc/sys").join(path), value)
        .map_err(|e| io::Error::new(e.kind(), format!("kernel parameter {}: {e}", name())))
}

/// Keeps the namespace that `from` shows alive as `to`.
pub(super) fn bind(from: &str, to: &Path) -> io::Result<()> {
    File::create(to)?;
    Ok(mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

pub(super) fn is_pinned(path: &Path) -> bool {
    statfs(path).is_ok_and(|s| s.filesystem_type().0 == NSFS)
}

/// True where everything that `wanted` has is pinned below `dir`, shared memory included.
pub(super) fn is_whole(dir: &Path, wanted: &Wanted) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    let shm = !wanted.ipc || device(&dir.join("shm")).is_some_and(|own| device(dir) != Some(own));
    shm && wanted.names().all(|name| is_pinned(&dir.join(name)))
}

/// Takes every pin away and removes the directory; what is gone already is fine.
pub(super) fn unpin(dir: &Path) -> io::Result<()> {
    for name in ["shm", "pid", "uts", "ipc", "net"] {
        // One pin may lie on another where a half-made sandbox was made again.
        while umount2(&dir.join(name), MntFlags::MNT_DETACH).is_ok() {}
    }
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik8s_core::testkit::need::{Need, met};

    #[test]
    fn a_sandbox_that_is_not_whole_has_no_pins() {
        if !met(&[Need::Root]) {
            return;
        }
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path().join("p");
        let wanted = || Wanted { net: false, ipc: true, uts: true, hostname: "h".into(), sysctls: BTreeMap::new() };
        fs::create_dir(&dir).expect("dir");
        // In the way of the shared memory.
        fs::write(dir.join("shm"), "").expect("write");
        pin(&dir, &wanted()).expect_err("no place for the shared memory");
        let pinned: Vec<_> = wanted().names().filter(|name| is_pinned(&dir.join(name))).collect();
        unpin(&dir).expect("unpin");
        assert!(pinned.is_empty(), "{pinned:?}");
    }
}
