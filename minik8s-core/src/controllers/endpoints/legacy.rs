//! Endpoints: the older form of the same, one object per Service. Pure.

use super::decide::{Address, Groups, Port, is_headless};
use super::slices::HEADLESS;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Label that says whose object it is.
pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Ours.
pub const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Most addresses of the object; slices have no such limit.
const MOST: usize = 1000;

/// The object a Service should have.
pub fn endpoints(service: &Service, groups: &Groups) -> Endpoints {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    let mut room = MOST;
    let mut cut = false;
    let first = super::decide::families(service).first().copied();
    let of_first = groups.iter().filter(|((family, _), _)| Some(*family) == first);
    let subsets = of_first.filter_map(|((_, ports), addresses)| subset(ports, addresses, &mut room, &mut cut));
    let subsets: Vec<_> = subsets.collect();
    let annotations = cut.then(|| [(OVER_CAPACITY.to_owned(), "truncated".to_owned())].into());
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations,
            ..ObjectMeta::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

fn subset(ports: &[Port], addresses: &[Address], room: &mut usize, cut: &mut bool) -> Option<EndpointSubset> {
    // This form does not know of pods on their way out: they are left out.
    let present = |a: &&Address| a.ready || !a.terminating;
    let (ready, not_ready): (Vec<_>, Vec<_>) = addresses.iter().filter(present).partition(|a| a.ready);
    let mut take = |from: Vec<&Address>| {
        let fit = from.len().min(*room);
        *cut |= fit < from.len();
        *room -= fit;
        let some: Vec<_> = from.into_iter().take(fit).map(address).collect();
        (!some.is_empty()).then_some(some)
    };
    let (addresses, not_ready_addresses) = (take(ready), take(not_ready));
    if addresses.is_none() && not_ready_addresses.is_none() {
        return None;
    }
    let port = |p: &Port| EndpointPort {
        name: (!p.name.is_empty()).then(|| p.name.clone()),
        port: p.port,
        protocol: Some(p.protocol.clone()),
        app_protocol: p.app_protocol.clone(),
    };
    let ports = (!ports.is_empty()).then(|| ports.iter().map(port).collect());
    Some(EndpointSubset { addresses, not_ready_addresses, ports })
}

fn address(a: &Address) -> EndpointAddress {
    EndpointAddress {
        ip: a.ip.clone(),
        hostname: a.hostname.clone(),
        node_name: a.node.clone(),
        target_ref: Some(a.target.clone()),
    }
}

/// True where an object is as it should be.
pub fn same(have: &Endpoints, want: &Endpoints) -> bool {
    let cut = |e: &Endpoints| e.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(OVER_CAPACITY));
    have.subsets.as_deref().unwrap_or_default() == want.subsets.as_deref().unwrap_or_default()
        && have.metadata.labels == want.metadata.labels
        && cut(have) == cut(want)
}
