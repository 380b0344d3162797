//! Which kernel parameters a pod may set: the kubelet's safe list. All of them are the pod's own, and none lets it hold
//! more of the machine than its limits.

use crate::node::pod;
use k8s_openapi::api::core::v1::Pod;

/// As in Kubernetes.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Why the pod must not run, where it asks for a parameter that is not its to set.
pub(crate) fn forbidden_sysctl(pod: &Pod) -> Option<String> {
    let spec = pod::spec(pod);
    let asked = spec.security_context.as_ref()?.sysctls.as_ref()?;
    asked.iter().find_map(|sysctl| {
        let name = sysctl.name.replace('/', ".");
        let host = |shared: Option<bool>, what: &str| {
            (shared == Some(true)).then(|| format!("{name:?} not allowed with host {what} enabled"))
        };
        let why = match SAFE.contains(&name.as_str()) {
            false => Some(format!("{name:?} not allowlisted")),
            true if name.starts_with("net.") => host(spec.host_network, "net"),
            true => host(spec.host_ipc, "ipc"),
        };
        why.map(|why| format!("Pod was rejected: forbidden sysctl: {why}"))
    })
}
