//! What this machine as a whole has used, from `/proc`.

use super::access::MachineUsage;
use jiff::Timestamp;
use std::fs;

/// The kernel counts in hundredths of a second for user space, whatever its own clock does.
const TICK_NS: u64 = 10_000_000;
const KIB: u64 = 1024;

/// The reading, where `/proc` is there.
pub(crate) fn usage(now: Timestamp) -> Option<MachineUsage> {
    let [stat, memory] = ["/proc/stat", "/proc/meminfo"].map(|path| fs::read_to_string(path).ok());
    read(&stat?, &memory?, now)
}

fn read(stat: &str, memory: &str, now: Timestamp) -> Option<MachineUsage> {
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = all.split_whitespace().map_while(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq; what follows belongs to other machines, or is counted in user already.
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|at| ticks.get(*at)).sum();
    let [total, free, available] = ["MemTotal:", "MemFree:", "MemAvailable:"].map(|key| kib(memory, key));
    let (total, free) = (total?, free?);
    Some(MachineUsage {
        at: now.as_millisecond(),
        cpu_ns: busy * TICK_NS,
        memory_working_set: total.saturating_sub(available.unwrap_or(free)) * KIB,
        memory_usage: total.saturating_sub(free) * KIB,
    })
}

fn kib(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_not_used_and_what_can_be_reclaimed_is_not_held() {
        let stat = "cpu  100 20 30 4000 500 6 7 8 9 10\ncpu0 1 1 1 1\nintr 5\n";
        let memory = "MemTotal:  1000 kB\nMemFree:  300 kB\nMemAvailable:  600 kB\n";
        let now = Timestamp::from_millisecond(5).unwrap();
        let want =
            MachineUsage { at: 5, cpu_ns: 163 * TICK_NS, memory_working_set: 400 * KIB, memory_usage: 700 * KIB };
        assert_eq!(read(stat, memory, now), Some(want));
        assert_eq!(read("", memory, now), None);
        assert_eq!(read(stat, "MemTotal: 1 kB\n", now), None);
    }
}
