//! EndpointSlices: from what is to what should be with the fewest writes. Pure.

use super::super::controller_reference;
use super::decide::{Address, Family, Groups, Port, is_headless};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Label with the Service's name.
pub const SERVICE: &str = "kubernetes.io/service-name";
/// Label that says whose slice it is.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Ours.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Label of what belongs to a headless Service.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// Most endpoints of a slice.
pub const MOST: usize = 100;

/// What is to be written.
#[derive(Debug, Default)]
pub struct Diff {
    /// Make these.
    pub create: Vec<EndpointSlice>,
    /// Replace these.
    pub update: Vec<EndpointSlice>,
    /// Delete these.
    pub delete: Vec<Arc<EndpointSlice>>,
}

/// Compares the slices there are with the addresses there should be. An address stays in the slice it is in; new ones
/// fill the fullest slices that have room; a slice that has become empty goes, but for one.
pub fn diff(service: &Service, groups: &Groups, existing: &[Arc<EndpointSlice>]) -> Diff {
    let mut diff = Diff::default();
    let mut rest: Vec<Arc<EndpointSlice>> = existing.to_vec();
    for ((family, ports), addresses) in groups {
        let mine = |s: &EndpointSlice| s.address_type == family.as_str() && ports_of(s) == *ports;
        let (same, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|s| mine(s));
        rest = others;
        one_group(service, *family, ports, addresses, &same, &mut diff);
    }
    if groups.is_empty() {
        keep_one(service, &mut rest, &mut diff);
    }
    diff.delete.extend(rest);
    diff
}

/// A Service without endpoints has one empty slice: its readers tell "nothing" from "not yet".
fn keep_one(service: &Service, rest: &mut Vec<Arc<EndpointSlice>>, diff: &mut Diff) {
    let family = super::decide::families(service).first().copied().unwrap_or(Family::V4);
    let at = rest.iter().position(|s| s.address_type == family.as_str());
    let Some(at) = at else { return diff.create.push(slice(service, family, &[], Vec::new())) };
    let old = rest.remove(at);
    let ports = ports_of(&old);
    settle(service, family, &ports, &old, Vec::new(), diff);
}

fn one_group(
    service: &Service,
    family: Family,
    ports: &[Port],
    addresses: &[Address],
    same: &[Arc<EndpointSlice>],
    diff: &mut Diff,
) {
    let mut wanted: HashMap<String, Endpoint> = addresses.iter().map(|a| (identity_of(a), endpoint(a))).collect();
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in same {
        let stay = slice.endpoints.iter().filter_map(|e| wanted.remove(&identity(e))).collect();
        kept.push((slice.clone(), stay));
    }
    // What is left is new, in the order of the addresses.
    let mut new = addresses.iter().filter_map(|a| wanted.remove(&identity_of(a))).peekable();
    kept.sort_by_key(|(_, endpoints)| std::cmp::Reverse(endpoints.len()));
    for (_, endpoints) in &mut kept {
        while endpoints.len() < MOST
            && let Some(endpoint) = new.next()
        {
            endpoints.push(endpoint);
        }
    }
    for (old, endpoints) in kept {
        if endpoints.is_empty() {
            diff.delete.push(old);
        } else {
            settle(service, family, ports, &old, endpoints, diff);
        }
    }
    while new.peek().is_some() {
        let endpoints = new.by_ref().take(MOST).collect();
        diff.create.push(slice(service, family, ports, endpoints));
    }
}

/// Updates a slice where it is not as it should be.
fn settle(
    service: &Service,
    family: Family,
    ports: &[Port],
    old: &EndpointSlice,
    endpoints: Vec<Endpoint>,
    diff: &mut Diff,
) {
    let want = slice(service, family, ports, endpoints);
    let same_meta =
        old.metadata.labels == want.metadata.labels && old.metadata.owner_references == want.metadata.owner_references;
    if same_meta && old.endpoints == want.endpoints {
        return;
    }
    let mut new = old.clone();
    new.metadata.labels = want.metadata.labels;
    new.metadata.owner_references = want.metadata.owner_references;
    new.endpoints = want.endpoints;
    diff.update.push(new);
}

fn slice(service: &Service, family: Family, ports: &[Port], endpoints: Vec<Endpoint>) -> EndpointSlice {
    let name = service.metadata.name.clone().unwrap_or_default();
    let port = |p: &Port| EndpointPort {
        name: Some(p.name.clone()),
        protocol: Some(p.protocol.clone()),
        port: Some(p.port),
        app_protocol: p.app_protocol.clone(),
    };
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service, &name)),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.as_str().to_owned(),
        endpoints,
        ports: (!ports.is_empty()).then(|| ports.iter().map(port).collect()),
    }
}

/// A Service's own labels, and those by which its slices are found.
fn labels(service: &Service, name: &str) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE.into(), name.to_owned());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

fn endpoint(address: &Address) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(address.ready),
            serving: Some(address.serving),
            terminating: Some(address.terminating),
        }),
        hostname: address.hostname.clone(),
        node_name: address.node.clone(),
        zone: address.zone.clone(),
        target_ref: Some(address.target.clone()),
        ..Endpoint::default()
    }
}

fn identity_of(address: &Address) -> String {
    format!("{} {}", address.target.uid.as_deref().unwrap_or_default(), address.ip)
}

fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|t| t.uid.as_deref()).unwrap_or_default();
    format!("{uid} {}", endpoint.addresses.first().map_or("", |a| a.as_str()))
}

fn ports_of(slice: &EndpointSlice) -> Vec<Port> {
    let port = |p: &EndpointPort| Port {
        name: p.name.clone().unwrap_or_default(),
        protocol: p.protocol.clone().unwrap_or_else(|| "TCP".into()),
        port: p.port.unwrap_or_default(),
        app_protocol: p.app_protocol.clone(),
    };
    slice.ports.iter().flatten().map(port).collect()
}
