//! Control groups, version 1 and 2: where they are mounted, the pod's own group, what a container used.

mod stats;

use crate::leftovers::unescape;
use minik8s_core::runtime::{ContainerStats, Resources};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A group that is not frozen after so long holds a process that hangs in the kernel, or that others leave no processor:
/// each freezes itself, the next time it has its turn.
const FREEZING: Duration = Duration::from_secs(20);

/// The hierarchies of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cgroups {
    /// One directory per controller; the flag-like entries (`name=systemd`, a mounted cgroup2 without controllers) count.
    V1(Vec<Hierarchy>),
    /// One tree.
    V2(PathBuf),
}

/// A mounted version 1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    at: PathBuf,
    controllers: Vec<String>,
}

impl Cgroups {
    pub(crate) fn of_this_machine() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    /// Where any controller is mounted the old way, the machine is version 1: runc decides so too.
    fn parse(mountinfo: &str) -> Self {
        let mut old = Vec::new();
        let mut unified = None;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(at) = left.split(' ').nth(4).map(|t| PathBuf::from(unescape(t))) else { continue };
            let mut right = right.split(' ');
            match right.next() {
                Some("cgroup") => {
                    let options = right.nth(1).unwrap_or_default();
                    let controllers = options.split(',').filter(|o| *o != "rw" && *o != "ro").map(str::to_owned);
                    old.push(Hierarchy { at, controllers: controllers.collect() });
                }
                Some("cgroup2") => unified = Some(at),
                _ => {}
            }
        }
        match (old.is_empty(), unified) {
            (true, at) => Self::V2(at.unwrap_or_else(|| "/sys/fs/cgroup".into())),
            (false, None) => Self::V1(old),
            (false, Some(at)) => {
                old.push(Hierarchy { at, controllers: Vec::new() });
                Self::V1(old)
            }
        }
    }

    pub(crate) fn is_v2(&self) -> bool {
        matches!(self, Self::V2(_))
    }

    /// The directory of `group` that a controller's files are in.
    fn dir(&self, controller: &str, group: &str) -> Option<PathBuf> {
        let group = group.trim_start_matches('/');
        match self {
            Self::V2(at) => Some(at.join(group)),
            Self::V1(all) => {
                all.iter().find(|h| h.controllers.iter().any(|c| c == controller)).map(|h| h.at.join(group))
            }
        }
    }

    fn dirs(&self, group: &str) -> Vec<PathBuf> {
        let group = group.trim_start_matches('/');
        match self {
            Self::V2(at) => vec![at.join(group)],
            Self::V1(all) => all.iter().map(|h| h.at.join(group)).collect(),
        }
    }

    /// Makes a pod's group with its limits. Without limits there is nothing to make: runc makes parents by itself.
    pub(crate) fn limit_pod(&self, group: &str, resources: &Resources) -> io::Result<()> {
        for (controller, file, value) in self.settings(resources) {
            let Some(dir) = self.dir(controller, group) else { continue };
            if let Self::V2(root) = self {
                delegate(root, &dir, controller)?;
            }
            fs::create_dir_all(&dir)?;
            fs::write(dir.join(file), &value)
                .map_err(|e| io::Error::new(e.kind(), format!("{} = {value}: {e}", dir.join(file).display())))?;
        }
        Ok(())
    }

    fn settings(&self, r: &Resources) -> Vec<(&'static str, &'static str, String)> {
        let period = if r.cpu_period_us == 0 { 100_000 } else { r.cpu_period_us };
        let mut out = Vec::new();
        let (shares, quota, memory) = (r.cpu_shares > 0, r.cpu_quota_us > 0, r.memory_bytes > 0);
        match self {
            Self::V1(_) => {
                out.extend(shares.then(|| ("cpu", "cpu.shares", r.cpu_shares.to_string())));
                out.extend(quota.then(|| ("cpu", "cpu.cfs_period_us", period.to_string())));
                out.extend(quota.then(|| ("cpu", "cpu.cfs_quota_us", r.cpu_quota_us.to_string())));
                out.extend(memory.then(|| ("memory", "memory.limit_in_bytes", r.memory_bytes.to_string())));
            }
            Self::V2(_) => {
                out.extend(shares.then(|| ("cpu", "cpu.weight", weight(r.cpu_shares).to_string())));
                out.extend(quota.then(|| ("cpu", "cpu.max", format!("{} {period}", r.cpu_quota_us))));
                out.extend(memory.then(|| ("memory", "memory.max", r.memory_bytes.to_string())));
            }
        }
        out
    }

    /// Removes a group and the groups below it, in every hierarchy.
    pub(crate) fn remove(&self, group: &str) {
        for dir in self.dirs(group) {
            remove_tree(&dir);
        }
    }

    /// Freezes all processes of a group, or thaws them. Returns once it is so. Blocking.
    pub(crate) fn freeze(&self, group: &str, freeze: bool) -> io::Result<()> {
        let (file, words) = match self.is_v2() {
            true => ("cgroup.freeze", ["0", "1"]),
            false => ("freezer.state", ["THAWED", "FROZEN"]),
        };
        let (word, back) = (words[usize::from(freeze)], words[0]);
        let dir = self.dir("freezer", group).ok_or_else(|| io::Error::other("the kernel has no freezer"))?;
        let told = |e: io::Error| io::Error::new(e.kind(), format!("{} = {word}: {e}", dir.join(file).display()));
        let end = Instant::now() + FREEZING;
        loop {
            // Again each time: a process that was just made may have slipped through (version 1).
            fs::write(dir.join(file), word).map_err(told)?;
            if self.is_still(&dir) == freeze {
                return Ok(());
            }
            if Instant::now() > end {
                // Neither one nor the other is nothing anybody asked for.
                let _ = fs::write(dir.join(file), back);
                return Err(told(io::ErrorKind::TimedOut.into()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// True where a group is frozen, or about to be.
    pub(crate) fn is_frozen(&self, group: &str) -> bool {
        let file = if self.is_v2() { "cgroup.freeze" } else { "freezer.state" };
        let text = self.dir("freezer", group).and_then(|dir| fs::read_to_string(dir.join(file)).ok());
        text.is_some_and(|text| !matches!(text.trim(), "" | "0" | "THAWED"))
    }

    /// True where none of a group's processes runs any more.
    fn is_still(&self, dir: &Path) -> bool {
        if self.is_v2() {
            let events = fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
            return stats::keyed(&events, "frozen") == Some(1);
        }
        fs::read_to_string(dir.join("freezer.state")).is_ok_and(|state| state.trim() == "FROZEN")
    }

    /// How often the kernel killed a process of the group for memory.
    pub(crate) fn oom_kills(&self, group: &str) -> u64 {
        let file = if self.is_v2() { "memory.events" } else { "memory.oom_control" };
        let text = self.dir("memory", group).and_then(|d| fs::read_to_string(d.join(file)).ok());
        text.and_then(|t| stats::keyed(&t, "oom_kill")).unwrap_or(0)
    }

    /// What the group used; `None` where it does not exist.
    pub(crate) fn stats(&self, group: &str, at: i64) -> Option<ContainerStats> {
        let read = |controller: &str, file: &str| {
            self.dir(controller, group).and_then(|d| fs::read_to_string(d.join(file)).ok())
        };
        if self.is_v2() {
            let [cpu, memory] = [read("cpu", "cpu.stat")?, read("memory", "memory.current")?];
            let [stat, pids] =
                [("memory", "memory.stat"), ("pids", "pids.current")].map(|(c, f)| read(c, f).unwrap_or_default());
            return Some(stats::v2(at, &cpu, &memory, &stat, &pids));
        }
        let [cpu, memory] = [read("cpuacct", "cpuacct.usage")?, read("memory", "memory.usage_in_bytes")?];
        let [stat, pids] =
            [("memory", "memory.stat"), ("pids", "pids.current")].map(|(c, f)| read(c, f).unwrap_or_default());
        Some(stats::v1(at, &cpu, &memory, &stat, &pids))
    }
}

/// Version 2's weight (1..=10000) for version 1's shares (2..=262144), by the formula that runc and systemd use.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// In version 2 a controller must be handed down level by level.
fn delegate(root: &Path, dir: &Path, controller: &str) -> io::Result<()> {
    let Ok(below) = dir.strip_prefix(root) else { return Ok(()) };
    let mut level = root.to_path_buf();
    for part in below {
        fs::write(level.join("cgroup.subtree_control"), format!("+{controller}"))?;
        level.push(part);
        if !level.is_dir() {
            fs::create_dir(&level)?;
        }
    }
    Ok(())
}

/// Groups hold only virtual files, so directories are removed from the leaves up. A group whose last process is just
/// ending is busy for a moment.
fn remove_tree(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    for _ in 0..20 {
        match fs::remove_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(Duration::from_millis(5)),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "1 0 0:1 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        2 1 0:2 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        3 1 0:3 / /sys/fs/cgroup/memory rw shared:1 - cgroup cgroup rw,memory\n\
        4 1 0:4 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
        5 1 0:5 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn hybrid_machines_are_version_one() {
        let groups = Cgroups::parse(HYBRID);
        assert_eq!(groups.dir("cpuacct", "/a/b"), Some("/sys/fs/cgroup/cpu,cpuacct/a/b".into()));
        assert_eq!(groups.dirs("a").len(), 4);
        assert!(!groups.is_v2());
        let unified = Cgroups::parse("1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n");
        assert_eq!(unified, Cgroups::V2("/sys/fs/cgroup".into()));
    }

    #[test]
    fn limits_are_spelled_for_each_version() {
        let limits =
            Resources { cpu_shares: 1024, cpu_quota_us: 50_000, memory_bytes: 1 << 20, ..Resources::default() };
        let v1: Vec<_> =
            Cgroups::parse(HYBRID).settings(&limits).into_iter().map(|(_, f, v)| format!("{f}={v}")).collect();
        assert_eq!(
            v1,
            ["cpu.shares=1024", "cpu.cfs_period_us=100000", "cpu.cfs_quota_us=50000", "memory.limit_in_bytes=1048576"]
        );
        let v2: Vec<_> =
            Cgroups::V2("/x".into()).settings(&limits).into_iter().map(|(_, f, v)| format!("{f}={v}")).collect();
        assert_eq!(v2, ["cpu.weight=39", "cpu.max=50000 100000", "memory.max=1048576"]);
        assert_eq!(Cgroups::parse(HYBRID).settings(&Resources::default()), []);
    }

    #[test]
    fn weights_span_the_range() {
        assert_eq!([2, 262_144, 0, u64::MAX].map(weight), [1, 10_000, 1, 10_000]);
    }
}
