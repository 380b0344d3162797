//! The filter of system calls that containers get where nobody writes one: ordinary programs notice nothing of it, and
//! calls that administer the machine, or that made holes in it before, are refused. Pure.
//!
//! Everything is refused (`EPERM`) but what is listed here. Which calls are customary was settled by docker and containerd
//! years ago; names that a kernel or libseccomp does not know are skipped by runc, so one list does for all machines.

use serde_json::{Value, json};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// Sockets of this family reach the hypervisor's host, outside every network namespace.
const AF_VSOCK: u32 = 40;
/// Flags of `clone` that make namespaces: mount, cgroup, uts, ipc, user, pid, net.
const NAMESPACES: u64 = 0x7e02_0000;
/// Plain Linux, 32 bit, System V's `uname`, both, and the question which one it is.
const PERSONALITIES: [u64; 5] = [0, 0x0008, 0x0002_0000, 0x0002_0008, 0xffff_ffff];

/// By theme; a line's words are names of calls.
const EVERYONE: &[&str] = &[
    // Files and directories.
    "access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 \
     fadvise64 fadvise64_64 arm_fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl \
     fcntl64 fdatasync flock fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd \
     getdents getdents64 ioctl lchown lchown32 link linkat lseek _llseek lstat lstat64 mkdir mkdirat mknod mknodat \
     name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead \
     readlink readlinkat readv rename renameat renameat2 rmdir sendfile sendfile64 splice stat stat64 statfs statfs64 \
     statx symlink symlinkat sync sync_file_range arm_sync_file_range syncfs tee truncate truncate64 umask unlink \
     unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev cachestat",
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr \
     lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat",
    // Waiting and being told.
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd \
     eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch _newselect poll ppoll \
     ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_gettime64 \
     timerfd_settime timerfd_settime64",
    "io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioprio_get ioprio_set",
    // Memory.
    "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect \
     mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages",
    // Processes, threads, who they are.
    "arch_prctl capget capset execve execveat exit exit_group fork getcpu getegid getegid32 geteuid geteuid32 getgid \
     getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getpriority getresgid getresgid32 getresuid \
     getresuid32 getrlimit getrusage getsid gettid getuid getuid32 get_robust_list get_thread_area kill modify_ldt pause \
     pidfd_open pidfd_send_signal prctl prlimit64 process_vm_readv process_vm_writev ptrace restart_syscall rseq \
     rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
     rt_sigtimedwait_time64 rt_tgsigqueueinfo setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups \
     setgroups32 setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 \
     setrlimit setsid setuid setuid32 set_robust_list set_thread_area set_tid_address set_tls sigaltstack sigprocmask \
     sigreturn tgkill tkill ugetrlimit vfork wait4 waitid waitpid breakpoint cacheflush riscv_flush_icache uretprobe",
    "sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler \
     sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam \
     sched_setscheduler sched_yield",
    // Talking to others.
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg \
     send sendmmsg sendmsg sendto setsockopt shutdown socketpair",
    "futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake ipc mq_getsetattr mq_notify mq_open \
     mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd pipe \
     pipe2 semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget",
    // Time.
    "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
     clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete \
     timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 times",
    // The machine as anyone may see it, and giving rights away.
    "getrandom landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp sysinfo uname",
];

/// More for those with a capability.
const CAPABLE: &[(&str, &str)] = &[
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_NICE", "get_mempolicy mbind move_pages set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// The `linux.seccomp` of a process with these capabilities.
pub(super) fn runtime_default(capabilities: &[String]) -> Value {
    let has = |wanted: &str| capabilities.iter().any(|c| c == wanted);
    let mut calls: Vec<Value> = EVERYONE.iter().map(|line| allow(line)).collect();
    calls.extend(CAPABLE.iter().filter(|(capability, _)| has(capability)).map(|(_, line)| allow(line)));
    let only = |name: &str, op: &str, value: u64, second: u64| {
        let mut call = allow(name);
        call["args"] = json!([{"index": 0, "op": op, "value": value, "valueTwo": second}]);
        call
    };
    calls.extend(PERSONALITIES.map(|value| only("personality", "SCMP_CMP_EQ", value, 0)));
    calls.push(only("socket", "SCMP_CMP_NE", AF_VSOCK.into(), 0));
    if !has("CAP_SYS_ADMIN") {
        calls.push(only("clone", "SCMP_CMP_MASKED_EQ", NAMESPACES, 0));
        // Its flags lie in memory, where no filter sees them. C libraries fall back to `clone` if there is no such call.
        calls.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": architectures(std::env::consts::ARCH),
        "syscalls": calls,
    })
}

fn allow(line: &str) -> Value {
    json!({"names": line.split_whitespace().collect::<Vec<_>>(), "action": "SCMP_ACT_ALLOW"})
}

/// The machine's own, and those whose programs it runs too.
fn architectures(machine: &str) -> &'static [&'static str] {
    match machine {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxSeccomp;

    /// How a call of that name ends, without regard to arguments.
    fn verdict(capabilities: &[&str], name: &str) -> String {
        let capabilities: Vec<String> = capabilities.iter().map(ToString::to_string).collect();
        let profile = runtime_default(&capabilities);
        serde_json::from_value::<LinuxSeccomp>(profile.clone()).expect("it is a profile");
        let calls = profile["syscalls"].as_array().expect("list");
        let named = |c: &&Value| c["names"].as_array().is_some_and(|names| names.iter().any(|n| n == name));
        let rule = calls.iter().find(named);
        rule.map_or("refused".to_owned(), |c| match (c["action"].as_str(), c.get("args")) {
            (Some("SCMP_ACT_ALLOW"), None) => "allowed".to_owned(),
            (Some("SCMP_ACT_ALLOW"), Some(_)) => "by argument".to_owned(),
            _ => format!("error {}", c["errnoRet"]),
        })
    }

    #[test]
    fn ordinary_calls_are_allowed_and_others_go_by_capability() {
        let plain: &[&str] = &["CAP_CHOWN"];
        let table: &[(&[&str], &str, &str)] = &[
            (plain, "read", "allowed"),
            (plain, "socket", "by argument"),
            (plain, "clone", "by argument"),
            (plain, "clone3", "error 38"),
            (plain, "personality", "by argument"),
            (&["CAP_SYS_ADMIN"], "clone", "allowed"),
            (&["CAP_SYS_ADMIN"], "clone3", "allowed"),
            (plain, "mount", "refused"),
            (&["CAP_SYS_ADMIN"], "mount", "allowed"),
            (plain, "unshare", "refused"),
            (plain, "chroot", "refused"),
            (&["CAP_SYS_CHROOT"], "chroot", "allowed"),
            (plain, "keyctl", "refused"),
            (&["CAP_SYS_ADMIN"], "keyctl", "refused"),
            (plain, "io_uring_setup", "refused"),
            (plain, "bpf", "refused"),
            (&["CAP_BPF"], "bpf", "allowed"),
            (plain, "kexec_load", "refused"),
            (&["CAP_SYS_TIME"], "settimeofday", "allowed"),
        ];
        for (capabilities, call, expected) in table {
            assert_eq!(verdict(capabilities, call), *expected, "{call} with {capabilities:?}");
        }
    }

    #[test]
    fn no_call_is_named_twice_for_everyone() {
        let mut names: Vec<&str> = EVERYONE.iter().flat_map(|line| line.split_whitespace()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
