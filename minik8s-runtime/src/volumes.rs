//! Volumes in memory: file systems that the containers of a pod share, mounted where the agent says.

use crate::leftovers::{mounts_below, unescape};
use minik8s_core::runtime::{MemoryVolume, RuntimeError, RuntimeResult};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Writable for all; with a group, what is made in it belongs to that.
const MODE: u32 = 0o777;
const SET_GROUP: u32 = 0o2000;

/// Mounts it, unless something is mounted there. Blocking.
pub(crate) fn mount_memory(volume: &MemoryVolume) -> RuntimeResult<()> {
    let wrong = |e: io::Error| failed("mounting a volume in memory", &volume.directory, &e);
    fs::create_dir_all(&volume.directory).map_err(wrong)?;
    let directory = volume.directory.canonicalize().map_err(wrong)?;
    if is_mounted(&mount_table().map_err(wrong)?, &directory) {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), &directory, Some("tmpfs"), flags, Some(options(volume).as_str())).map_err(|e| wrong(e.into()))
}

fn options(volume: &MemoryVolume) -> String {
    let mut options = match volume.group {
        Some(group) => format!("mode={:o},gid={group}", MODE | SET_GROUP),
        None => format!("mode={MODE:o}"),
    };
    if volume.size > 0 {
        options.push_str(&format!(",size={}", volume.size));
    }
    options
}

/// Unmounts everything below `directory`, whatever becomes of single mounts. Containers keep what they have until they
/// end. Blocking.
pub(crate) fn unmount_below(directory: &Path) -> RuntimeResult<()> {
    let wrong = |e: io::Error| failed("unmounting volumes", directory, &e);
    let directory = match directory.canonicalize() {
        Ok(directory) => directory,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(wrong(e)),
    };
    let mut problems = crate::problems::Problems::default();
    for target in mounts_below(&mount_table().map_err(wrong)?, &directory) {
        problems.note(match umount2(&target, MntFlags::MNT_DETACH) {
            // Somebody else was faster.
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
            Err(e) => Err(failed("unmounting volumes", &target, &e.into())),
        });
    }
    problems.none()
}

fn mount_table() -> io::Result<String> {
    fs::read_to_string("/proc/self/mountinfo")
}

fn is_mounted(table: &str, directory: &Path) -> bool {
    table.lines().filter_map(|l| l.split(' ').nth(4)).any(|target| PathBuf::from(unescape(target)) == directory)
}

fn failed(operation: &'static str, path: &Path, error: &io::Error) -> RuntimeError {
    RuntimeError::Unavailable { operation, cause: format!("{}: {error}", path.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_groups_become_options() {
        let volume = |size, group| MemoryVolume { directory: "/v".into(), size, group };
        assert_eq!(options(&volume(0, None)), "mode=777");
        assert_eq!(options(&volume(4096, Some(7))), "mode=2777,gid=7,size=4096");
    }

    #[test]
    fn mounts_are_told_by_their_whole_path() {
        let table = "1 0 8:1 / / rw - ext4 /dev/vda rw\n2 1 0:4 / /a\\040b rw - tmpfs t rw\n";
        assert!(is_mounted(table, Path::new("/a b")) && !is_mounted(table, Path::new("/a")));
    }
}
