//! Kernel parameters of a sandbox. Only those that its own namespaces hold may be set: all others are the machine's, and
//! so every other pod's, too.

use minik8s_core::runtime::{RuntimeError, RuntimeResult, SandboxSpec};
use std::collections::BTreeMap;

/// Paths below `/proc/sys` and their values; an error where the sandbox may not set one of them.
pub(super) fn settings(spec: &SandboxSpec) -> RuntimeResult<BTreeMap<String, String>> {
    let one = |(name, value): (&String, &String)| {
        let path = path(name);
        let allowed = whole(&path) && (!spec.host_network && of_net(&path) || !spec.host_ipc && of_ipc(&path));
        let refused = || format!("kernel parameter {name:?}: not one of the sandbox's own namespaces");
        if allowed { Ok((path, value.clone())) } else { Err(RuntimeError::Invalid(refused())) }
    };
    spec.sysctls.iter().map(one).collect()
}

/// As sysctl(8) reads names: the first separator is the separator, the other of the two stands for itself.
fn path(name: &str) -> String {
    if name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('/')) {
        return name.to_owned();
    }
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swap).collect()
}

fn whole(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn of_net(path: &str) -> bool {
    path.starts_with("net/")
}

fn of_ipc(path: &str) -> bool {
    path == "kernel/sem" || ["kernel/shm", "kernel/msg", "fs/mqueue/"].iter().any(|start| path.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, host_network: bool, host_ipc: bool) -> Option<String> {
        let sysctls = [(name.to_owned(), "1".to_owned())].into();
        let spec = SandboxSpec { id: "p".into(), host_network, host_ipc, sysctls, ..SandboxSpec::default() };
        settings(&spec).ok().and_then(|all| all.into_keys().next())
    }

    #[test]
    fn only_what_the_sandbox_has_for_itself_may_be_set() {
        for (name, want) in [
            ("net.ipv4.tcp_rmem", Some("net/ipv4/tcp_rmem")),
            ("net/ipv4/conf/eth0.7/forwarding", Some("net/ipv4/conf/eth0.7/forwarding")),
            ("net.ipv4.conf.eth0/7.forwarding", Some("net/ipv4/conf/eth0.7/forwarding")),
            ("kernel.shm_rmid_forced", Some("kernel/shm_rmid_forced")),
            ("kernel.msgmax", Some("kernel/msgmax")),
            ("kernel.sem", Some("kernel/sem")),
            ("fs.mqueue.msg_max", Some("fs/mqueue/msg_max")),
            ("kernel.core_pattern", None),
            ("kernel/core_pattern", None),
            ("kernel.semantics", None),
            ("vm.overcommit_memory", None),
            ("net/../kernel/core_pattern", None),
            ("net.//.kernel.core_pattern", None),
            ("net..ipv4", None),
            ("/net/ipv4/tcp_rmem", None),
            ("", None),
        ] {
            assert_eq!(ask(name, false, false).as_deref(), want, "{name}");
        }
        assert_eq!(ask("net.ipv4.tcp_rmem", true, false), None, "the host's network");
        assert_eq!(ask("kernel.sem", false, true), None, "the host's ipc");
    }
}
