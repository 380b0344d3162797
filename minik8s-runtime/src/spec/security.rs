//! Capabilities, and paths that containers must not see or change.

use minik8s_core::runtime::Security;

/// The set that docker and containerd grant.
const DEFAULT: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Every capability, in the kernel's order (linux/capability.h).
const ALL: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

pub(super) const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

pub(super) const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Drops before additions, and `ALL` before names: `drop: [ALL], add: [KILL]` leaves just that one.
pub(super) fn capabilities(security: &Security) -> Vec<String> {
    if security.privileged {
        return ALL.iter().map(|c| format!("CAP_{c}")).collect();
    }
    let bare = |name: &String| name.to_ascii_uppercase().trim_start_matches("CAP_").to_owned();
    let add: Vec<String> = security.add_capabilities.iter().map(bare).collect();
    let drop: Vec<String> = security.drop_capabilities.iter().map(bare).collect();
    let has = |list: &[String], cap: &str| list.iter().any(|c| c == cap);
    let granted = |cap: &&&str| match (has(&add, cap), has(&drop, cap)) {
        (_, true) => false,
        (true, false) => true,
        (false, false) => has(&add, "ALL") || (!has(&drop, "ALL") && DEFAULT.contains(*cap)),
    };
    ALL.iter().filter(granted).map(|c| format!("CAP_{c}")).collect()
}
