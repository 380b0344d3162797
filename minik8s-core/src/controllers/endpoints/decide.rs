//! Which pods stand behind a Service, under which addresses and ports. Pure.

use super::super::pods::{is_finished, is_ready};
use crate::api::Selector;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A pod as controllers of endpoints see it.
#[derive(Clone, Debug)]
pub struct Backend {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its node is lost: what the pod says of itself is old news.
    pub lost: bool,
    /// Zone of its node.
    pub zone: Option<String>,
}

/// One port, as resolved for a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Name of the Service's port; empty where it has none.
    pub name: String,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: String,
    /// Number on the pod.
    pub port: i32,
    /// Hint for proxies.
    pub app_protocol: Option<String>,
}

/// Family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// 10.0.0.1
    V4,
    /// fd00::1
    V6,
}

impl Family {
    /// As slices spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    fn has(self, address: &str) -> bool {
        match address.parse() {
            Ok(IpAddr::V4(_)) => self == Family::V4,
            Ok(IpAddr::V6(_)) => self == Family::V6,
            Err(_) => false,
        }
    }
}

/// One address behind a Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Address {
    /// The address.
    pub ip: String,
    /// May get traffic.
    pub ready: bool,
    /// Could still answer, even where it is on its way out.
    pub serving: bool,
    /// Is on its way out.
    pub terminating: bool,
    /// Its own name under the Service's.
    pub hostname: Option<String>,
    /// Where it runs.
    pub node: Option<String>,
    /// Zone of the node.
    pub zone: Option<String>,
    /// The pod.
    pub target: ObjectReference,
}

/// Addresses by what they have in common: family and ports.
pub type Groups = BTreeMap<(Family, Vec<Port>), Vec<Address>>;

/// The Service's selector, and `None` where nobody but its user says what stands behind it.
pub fn selector(service: &Service) -> Option<Selector> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let map = spec.selector.as_ref().filter(|s| !s.is_empty())?;
    Selector::from_map(map).ok()
}

/// True for a Service without a virtual address.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

/// Everything behind a Service, in a stable order. `pods` are those that its selector matches.
pub fn groups(service: &Service, pods: &[Backend]) -> Groups {
    let mut groups = Groups::new();
    let ports: Vec<ServicePort> = service.spec.iter().flat_map(|s| s.ports.iter().flatten()).cloned().collect();
    for family in families(service) {
        for backend in pods.iter().filter(|b| !is_finished(&b.pod)) {
            let resolved: Vec<Port> = ports.iter().filter_map(|p| resolve(p, &backend.pod)).collect();
            if resolved.is_empty() && !ports.is_empty() {
                continue;
            }
            if let Some(address) = address(service, backend, family) {
                groups.entry((family, resolved)).or_default().push(address);
            }
        }
    }
    for addresses in groups.values_mut() {
        addresses.sort_by(|a, b| a.target.name.cmp(&b.target.name).then_with(|| a.ip.cmp(&b.ip)));
    }
    groups
}

/// The families a Service has.
pub fn families(service: &Service) -> Vec<Family> {
    let spec = service.spec.as_ref();
    let named = spec.and_then(|s| s.ip_families.as_ref()).into_iter().flatten();
    let families: Vec<_> = named.map(|f| if f == "IPv6" { Family::V6 } else { Family::V4 }).collect();
    if families.is_empty() { vec![Family::V4] } else { families }
}

fn address(service: &Service, backend: &Backend, family: Family) -> Option<Address> {
    let pod = &*backend.pod;
    let (status, spec, meta) = (pod.status.as_ref()?, pod.spec.as_ref()?, &pod.metadata);
    let all = status.pod_ips.iter().flatten().map(|ip| &ip.ip).chain(status.pod_ip.as_ref());
    let ip = all.into_iter().find(|ip| family.has(ip))?.clone();
    let anyway = service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses) == Some(true);
    let terminating = meta.deletion_timestamp.is_some();
    let serving = is_ready(pod) && !backend.lost;
    let named = spec.subdomain == service.metadata.name && meta.namespace == service.metadata.namespace;
    Some(Address {
        ip,
        ready: anyway || (serving && !terminating),
        serving,
        terminating,
        hostname: spec.hostname.clone().filter(|h| named && !h.is_empty()),
        node: spec.node_name.clone().filter(|n| !n.is_empty()),
        zone: backend.zone.clone(),
        target: ObjectReference {
            kind: Some("Pod".into()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            ..ObjectReference::default()
        },
    })
}

/// The number of a Service's port on a pod, and `None` where the pod has no port of that name.
fn resolve(port: &ServicePort, pod: &Pod) -> Option<Port> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
    let number = match &port.target_port {
        None | Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) if name.is_empty() => port.port,
        Some(IntOrString::String(name)) => named(pod, name, &protocol)?,
    };
    let name = port.name.clone().unwrap_or_default();
    Some(Port { name, protocol, port: number, app_protocol: port.app_protocol.clone() })
}

fn named(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let same = |p: &&k8s_openapi::api::core::v1::ContainerPort| {
        p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
    };
    ports.into_iter().find(same).map(|p| p.container_port)
}
