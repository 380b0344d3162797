//! What a daemon that is gone may have left on the machine: shims, processes, mounts. Only what carries our paths is
//! touched.

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Kills the shims that serve the containerd at `socket`, and the processes below them.
pub(crate) fn kill_shims(socket: &Path) {
    let processes = processes();
    for (pid, process) in &processes {
        if process.serves(socket) {
            kill_tree(*pid, &processes);
        }
    }
}

/// Removes the sockets of shims that were killed: containerd keeps them outside its own directories, and their addresses
/// in a file per container, `<state>/<runtime>/<namespace>/<id>/address`.
pub(crate) fn remove_shim_sockets(state: &Path) {
    let mut dirs = vec![(state.to_path_buf(), 0)];
    while let Some((dir, depth)) = dirs.pop() {
        if let Some(socket) =
            fs::read_to_string(dir.join("address")).ok().as_deref().and_then(|a| a.strip_prefix("unix://"))
        {
            let _ = fs::remove_file(socket.trim());
        }
        let below =
            fs::read_dir(&dir).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| depth < 3 && p.is_dir());
        dirs.extend(below.map(|p| (p, depth + 1)));
    }
}

/// The containerd that was started with that configuration.
pub(crate) fn daemon_of(config: &Path) -> Option<i32> {
    processes().into_iter().find(|(_, process)| process.is_daemon_of(config)).map(|(pid, _)| pid)
}

struct Process {
    parent: i32,
    command: Vec<Vec<u8>>,
}

impl Process {
    fn serves(&self, socket: &Path) -> bool {
        let shim = self.command.first().is_some_and(|p| p.windows(16).any(|w| w == b"containerd-shim-"));
        shim && self.command.iter().any(|arg| arg == socket.as_os_str().as_encoded_bytes())
    }

    fn is_daemon_of(&self, config: &Path) -> bool {
        let [program, flag, file, ..] = self.command.as_slice() else { return false };
        Path::new(OsStr::from_bytes(program)).file_name().is_some_and(|name| name == "containerd")
            && flag == b"--config"
            && file == config.as_os_str().as_bytes()
    }
}

fn kill_tree(root: i32, processes: &BTreeMap<i32, Process>) {
    for (pid, _) in processes.iter().filter(|(_, p)| p.parent == root) {
        kill_tree(*pid, processes);
    }
    let _ = kill(Pid::from_raw(root), Signal::SIGKILL);
}

fn processes() -> BTreeMap<i32, Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| Some((pid, process(pid)?))).collect()
}

fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses and may itself hold spaces and parentheses.
    let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?.split(|b| *b == 0).map(<[u8]>::to_vec).collect();
    Some(Process { parent, command })
}

/// Detaches every mount below `dir`, the innermost first.
pub(crate) fn unmount_below(dir: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for target in mounts_below(&table, dir) {
        let _ = umount2(&target, MntFlags::MNT_DETACH);
    }
}

pub(crate) fn mounts_below(table: &str, dir: &Path) -> Vec<PathBuf> {
    let targets = table.lines().filter_map(|l| l.split(' ').nth(4)).map(|t| PathBuf::from(unescape(t)));
    let mut found: Vec<PathBuf> = targets.filter(|t| t.starts_with(dir) && t != dir).collect();
    found.reverse();
    found
}

/// `mountinfo` writes blanks, tabs, line ends and backslashes as three octal digits.
pub(crate) fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_only_mounts_below_the_directory_innermost_first() {
        let table = "1 0 8:1 / / rw - ext4 /dev/vda rw\n2 1 0:4 / /data/a\\040b rw - tmpfs t rw\n\
                     3 2 0:5 / /data/a\\040b/c rw - tmpfs t rw\n4 1 0:6 / /data/a\\040bc rw - tmpfs t rw\n";
        let found = mounts_below(table, Path::new("/data/a b"));
        assert_eq!(found, [PathBuf::from("/data/a b/c")]);
        assert_eq!(mounts_below(table, Path::new("/data")).len(), 3);
    }
}
