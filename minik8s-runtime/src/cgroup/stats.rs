//! Reading the kernel's accounting files. Pure.

use minik8s_core::runtime::ContainerStats;

/// The number behind a word that stands at the start of a line.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// What cannot be reclaimed is what is used less the file pages nobody touched lately: the kubelet's definition.
fn working_set(usage: u64, inactive: Option<u64>) -> u64 {
    usage.saturating_sub(inactive.unwrap_or(0))
}

pub(super) fn v1(at: i64, usage: &str, memory: &str, stat: &str, pids: &str) -> ContainerStats {
    let memory_usage = number(memory);
    ContainerStats {
        at,
        cpu_ns: number(usage),
        memory_usage,
        memory_working_set: working_set(memory_usage, keyed(stat, "total_inactive_file")),
        pids: number(pids),
    }
}

pub(super) fn v2(at: i64, cpu: &str, memory: &str, stat: &str, pids: &str) -> ContainerStats {
    let memory_usage = number(memory);
    ContainerStats {
        at,
        cpu_ns: keyed(cpu, "usage_usec").unwrap_or(0) * 1000,
        memory_usage,
        memory_working_set: working_set(memory_usage, keyed(stat, "inactive_file")),
        pids: number(pids),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_one_files() {
        let stat = "cache 4096\ninactive_file 1\ntotal_cache 8192\ntotal_inactive_file 1024\n";
        let read = v1(7, "123456789\n", "10240\n", stat, "3\n");
        let want =
            ContainerStats { at: 7, cpu_ns: 123_456_789, memory_usage: 10_240, memory_working_set: 9216, pids: 3 };
        assert_eq!(read, want);
    }

    #[test]
    fn version_two_files() {
        let cpu = "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n";
        let read = v2(7, cpu, "500\n", "anon 5\nactive_file 1\ninactive_file 600\n", "max\n");
        let want = ContainerStats { at: 7, cpu_ns: 1_500_000, memory_usage: 500, memory_working_set: 0, pids: 0 };
        assert_eq!(read, want);
    }

    #[test]
    fn kills_are_counted_by_the_exact_word() {
        assert_eq!(keyed("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "oom_kill"), Some(2));
        assert_eq!(keyed("low 0\noom 3\noom_kill 1\noom_group_kill 0\n", "oom_kill"), Some(1));
        assert_eq!(keyed("", "oom_kill"), None);
    }
}
