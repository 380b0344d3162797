//! What the sandbox of a pod should be.

use super::resources::{QosClass, pod_resources, qos_class};
use crate::node::{ids, pod};
use crate::runtime::{Labels, SandboxSpec};
use k8s_openapi::api::core::v1::Pod;

/// Linux takes no longer host names.
const MAX_HOSTNAME: usize = 63;

/// The pod's short host name.
pub(crate) fn hostname(pod: &Pod) -> String {
    let own = pod::spec(pod).hostname.as_deref().filter(|name| !name.is_empty());
    let name = own.unwrap_or_else(|| pod::name(pod));
    name.get(..MAX_HOSTNAME.min(name.len())).unwrap_or(name).trim_end_matches(['-', '.']).to_owned()
}

/// Its full name, where it has a subdomain.
pub(super) fn fqdn(pod: &Pod, domain: &str) -> Option<String> {
    let subdomain = pod::spec(pod).subdomain.as_deref().filter(|s| !s.is_empty())?;
    Some(format!("{}.{subdomain}.{}.svc.{domain}", hostname(pod), pod::namespace(pod)))
}

/// `host_name` is the machine's own, for pods that share its network.
pub(crate) fn sandbox_spec(pod: &Pod, host_name: &str, domain: &str, cgroup_root: &str) -> SandboxSpec {
    let spec = pod::spec(pod);
    let host_network = spec.host_network.unwrap_or(false);
    let long = spec.set_hostname_as_fqdn == Some(true);
    let own = fqdn(pod, domain).filter(|_| long).unwrap_or_else(|| hostname(pod));
    let context = spec.security_context.clone().unwrap_or_default();
    let sysctls = context.sysctls.unwrap_or_default().into_iter().map(|s| (s.name, s.value)).collect();
    SandboxSpec {
        id: pod::uid(pod).to_owned(),
        hostname: if host_network { host_name.to_owned() } else { own },
        host_network,
        host_pid: spec.host_pid.unwrap_or(false),
        host_ipc: spec.host_ipc.unwrap_or(false),
        share_pids: spec.share_process_namespace.unwrap_or(false),
        sysctls,
        cgroup_parent: cgroup_parent(pod, cgroup_root),
        resources: pod_resources(pod),
        labels: pod_labels(pod),
    }
}

fn cgroup_parent(pod: &Pod, root: &str) -> String {
    let leaf = format!("pod{}", pod::uid(pod));
    let below = match qos_class(pod) {
        QosClass::Guaranteed => leaf,
        QosClass::Burstable => format!("burstable/{leaf}"),
        QosClass::BestEffort => format!("besteffort/{leaf}"),
    };
    if root.is_empty() { below } else { format!("{}/{below}", root.trim_end_matches('/')) }
}

pub(super) fn pod_labels(pod: &Pod) -> Labels {
    [(ids::POD_NAMESPACE, pod::namespace(pod)), (ids::POD_NAME, pod::name(pod)), (ids::POD_UID, pod::uid(pod))]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}
