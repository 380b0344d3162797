//! Scores of the kernel's memory killer: lowering them is a privilege that even root may lack in a container.

use std::fs;

/// `CAP_SYS_RESOURCE` of linux/capability.h.
const SYS_RESOURCE: u64 = 1 << 24;

/// The lowest score that this process may give to another.
pub(crate) fn lowest_score() -> i32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    lowest(&status, &own)
}

fn lowest(status: &str, own: &str) -> i32 {
    let mask = status.lines().find_map(|l| l.strip_prefix("CapEff:")).unwrap_or_default();
    let mask = u64::from_str_radix(mask.trim(), 16).unwrap_or(0);
    if mask & SYS_RESOURCE != 0 { -1000 } else { own.trim().parse().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_privilege_the_own_score_is_the_floor() {
        assert_eq!(lowest("CapEff:\t000001ffffffffff\n", "0\n"), -1000);
        assert_eq!(lowest("CapEff:\t000001fffeffffff\n", "100\n"), 100);
        assert_eq!(lowest("", ""), 0);
    }
}
