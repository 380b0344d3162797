//! What the node's network should know: the table of services, and the other nodes. Built from what the API says,
//! handed over whole; unchanged services stay the same pointer.

use super::context::Context;
use crate::client::{Change, Informer};
use crate::network::{Endpoint, Peer, Protocol, ServiceEntry, ServicePortEntry, ServiceTable};
use k8s_openapi::api::core::v1::{Node, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Changes that come this close together are handed over together.
const TOGETHER: Duration = Duration::from_millis(3);
/// The index of slices by the service they belong to.
const BY_SERVICE: &str = "service";
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

type Key = (String, String);

/// Keeps the network's table of services true. Ends with the agent.
pub(crate) async fn services(context: Arc<Context>, services: Informer<Service>, slices: Informer<EndpointSlice>) {
    slices.add_index(BY_SERVICE, |slice| slice_key(slice).into_iter().map(|key| index_key(&key)).collect());
    let (mut service_changes, mut slice_changes) = (services.subscribe(), slices.subscribe());
    // A table made before everything is known would take services away.
    if !services.synced().await || !slices.synced().await {
        return;
    }
    let all = || services.list().iter().map(|service| service_key(service)).collect::<BTreeSet<Key>>();
    let mut table = Arc::new(ServiceTable::default());
    let mut dirty = all();
    let (mut told, mut failures) = (false, 0);
    loop {
        let fresh =
            |key: &Key| entry(services.get(&index_key(key)).as_deref(), &slices.list_by(BY_SERVICE, &index_key(key)));
        let next = updated(&table, &std::mem::take(&mut dirty), fresh);
        if let Some(next) = next {
            (table, told) = (Arc::new(next), false);
        }
        context.table.send_if_modified(|known| {
            let news = known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &table));
            if news {
                *known = Some(table.clone());
            }
            news
        });
        let mut pause = None;
        if !told {
            match context.network.sync_services(table.clone()).await {
                Ok(()) => (told, failures) = (true, 0),
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, "cannot bring the service rules up to date");
                    pause = Some(context.retry.delay(failures));
                }
            }
        }
        let first = async {
            tokio::select! {
                biased;
                change = service_changes.next() => change.map(|change| service_keys(&change)),
                change = slice_changes.next() => change.map(|change| slice_keys(&change)),
            }
        };
        let first = match pause {
            Some(pause) => tokio::time::timeout(pause, first).await.unwrap_or(Some(Some(Vec::new()))),
            None => first.await,
        };
        let Some(first) = first else { return };
        let mut news = vec![first];
        if pause.is_none() {
            tokio::time::sleep(TOGETHER).await;
        }
        news.extend(std::iter::from_fn(|| service_changes.try_next()).map(|change| service_keys(&change)));
        news.extend(std::iter::from_fn(|| slice_changes.try_next()).map(|change| slice_keys(&change)));
        for keys in news {
            match keys {
                Some(keys) => dirty.extend(keys),
                // Something was missed: everything may have changed.
                None => dirty.extend(all().into_iter().chain(table.services.keys().cloned())),
            }
        }
    }
}

fn index_key(key: &Key) -> String {
    format!("{}/{}", key.0, key.1)
}

fn service_key(service: &Service) -> Key {
    (service.metadata.namespace.clone().unwrap_or_default(), service.metadata.name.clone().unwrap_or_default())
}

fn slice_key(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_LABEL)?;
    Some((slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}

/// The services a change is about; `None` for all.
fn service_keys(change: &Change<Service>) -> Option<Vec<Key>> {
    match change {
        Change::Applied { new, .. } => Some(vec![service_key(new)]),
        Change::Deleted(service) => Some(vec![service_key(service)]),
        Change::Resync => None,
    }
}

fn slice_keys(change: &Change<EndpointSlice>) -> Option<Vec<Key>> {
    match change {
        Change::Applied { old, new } => Some(old.iter().chain([new]).filter_map(|slice| slice_key(slice)).collect()),
        Change::Deleted(slice) => Some(slice_key(slice).into_iter().collect()),
        Change::Resync => None,
    }
}

/// The table with some services looked at anew; `None` where that changes nothing.
fn updated(
    table: &ServiceTable,
    keys: &BTreeSet<Key>,
    fresh: impl Fn(&Key) -> Option<ServiceEntry>,
) -> Option<ServiceTable> {
    let changes: Vec<(&Key, Option<ServiceEntry>)> = keys
        .iter()
        .map(|key| (key, fresh(key)))
        .filter(|(key, entry)| table.services.get(*key).map(|old| &**old) != entry.as_ref())
        .collect();
    if changes.is_empty() {
        return None;
    }
    let mut table = table.clone();
    for (key, entry) in changes {
        match entry {
            Some(entry) => drop(table.services.insert(key.clone(), Arc::new(entry))),
            None => drop(table.services.remove(key)),
        }
    }
    Some(table)
}

/// One service with its endpoints.
fn entry(service: Option<&Service>, slices: &[Arc<EndpointSlice>]) -> Option<ServiceEntry> {
    let service = service?;
    let spec = service.spec.clone().unwrap_or_default();
    let (namespace, name) = service_key(service);
    let addresses = |texts: &[String]| texts.iter().filter_map(|text| text.parse().ok()).collect::<Vec<IpAddr>>();
    let cluster_ips =
        spec.cluster_ips.clone().or_else(|| spec.cluster_ip.clone().map(|ip| vec![ip])).unwrap_or_default();
    let external = spec.type_.as_deref() == Some("ExternalName");
    let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
    let seconds = spec.session_affinity_config.and_then(|c| c.client_ip?.timeout_seconds).unwrap_or(10_800);
    let ingress = service.status.iter().flat_map(|s| s.load_balancer.iter().flat_map(|l| l.ingress.iter().flatten()));
    let mut external_ips = addresses(spec.external_ips.as_deref().unwrap_or_default());
    external_ips.extend(ingress.filter_map(|i| i.ip.as_deref()?.parse::<IpAddr>().ok()));
    Some(ServiceEntry {
        cluster_ips: if external { Vec::new() } else { addresses(&cluster_ips) },
        external_ips,
        external_name: spec.external_name.filter(|_| external),
        ports: spec.ports.iter().flatten().map(|port| port_entry(port, slices)).collect(),
        affinity_seconds: sticky.then(|| u32::try_from(seconds).unwrap_or(10_800)),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        external_traffic_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        internal_traffic_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        namespace,
        name,
    })
}

fn port_entry(port: &ServicePort, slices: &[Arc<EndpointSlice>]) -> ServicePortEntry {
    let number = |n: i32| u16::try_from(n).unwrap_or(0);
    let name = port.name.clone().unwrap_or_default();
    let protocol = Protocol::parse(port.protocol.as_deref().unwrap_or("TCP"));
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for slice in slices {
        let same = |p: &&k8s_openapi::api::discovery::v1::EndpointPort| {
            p.name.as_deref().unwrap_or_default() == name
                && Protocol::parse(p.protocol.as_deref().unwrap_or("TCP")) == protocol
        };
        let there = slice.ports.iter().flatten().find(same).and_then(|p| p.port);
        if let Some(target) = there {
            endpoints.extend(endpoints_of(slice, number(target)));
        }
    }
    // Slices come in any order, and an address may be in two while it moves.
    endpoints.sort();
    endpoints.dedup_by(|a, b| (a.ip, a.port) == (b.ip, b.port));
    ServicePortEntry {
        name,
        protocol,
        port: number(port.port),
        node_port: number(port.node_port.unwrap_or(0)),
        endpoints,
    }
}

fn endpoints_of(slice: &EndpointSlice, port: u16) -> impl Iterator<Item = Endpoint> + '_ {
    slice.endpoints.iter().flat_map(move |endpoint| {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        let serving = conditions.serving.unwrap_or(ready);
        endpoint.addresses.iter().filter_map(move |address| {
            Some(Endpoint {
                ip: address.parse().ok()?,
                port,
                hostname: endpoint.hostname.clone(),
                node: endpoint.node_name.clone(),
                ready,
                serving,
            })
        })
    })
}

/// Keeps the network's routes to other nodes true. Ends with the agent.
pub(crate) async fn peers(context: Arc<Context>, nodes: Informer<Node>) {
    let mut changes = nodes.subscribe();
    if !nodes.synced().await {
        return;
    }
    let mut told: Option<Vec<Peer>> = None;
    let mut failures = 0;
    loop {
        let peers = peers_of(&nodes.list(), &context.config.name);
        let mut pause = None;
        if told.as_ref() != Some(&peers) {
            match context.network.sync_peers(&peers).await {
                Ok(()) => (told, failures) = (Some(peers), 0),
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, "cannot bring the routes to other nodes up to date");
                    pause = Some(context.retry.delay(failures));
                }
            }
        }
        let news = match pause {
            Some(pause) => tokio::time::timeout(pause, changes.next()).await.ok(),
            None => Some(changes.next().await),
        };
        if matches!(news, Some(None)) {
            return;
        }
    }
}

fn peers_of(nodes: &[Arc<Node>], own: &str) -> Vec<Peer> {
    let mut peers: BTreeMap<String, Peer> = BTreeMap::new();
    for node in nodes {
        let name = node.metadata.name.clone().unwrap_or_default();
        let range = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_ref()?.parse().ok());
        let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let address = addresses.filter(|a| a.type_ == "InternalIP").find_map(|a| a.address.parse().ok());
        if let (Some(pod_cidr), Some(address), true) = (range, address, name != own) {
            peers.insert(name.clone(), Peer { node: name, address, pod_cidr });
        }
    }
    peers.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(value: Value) -> Service {
        serde_json::from_value(value).unwrap()
    }

    fn slice(ports: Value, endpoints: Value) -> Arc<EndpointSlice> {
        Arc::new(
            serde_json::from_value(json!({"addressType": "IPv4", "metadata": {"name": "x", "namespace": "ns",
            "labels": {"kubernetes.io/service-name": "web"}}, "ports": ports, "endpoints": endpoints}))
            .unwrap(),
        )
    }

    #[test]
    fn ports_find_their_endpoints_by_name() {
        let service = service(json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": {
            "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "sessionAffinity": "ClientIP",
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}, {"name": "dns", "port": 53, "protocol": "UDP"}]}}));
        let slices = [slice(
            json!([{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 5353, "protocol": "UDP"}]),
            json!([{"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true}, "nodeName": "n1"},
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "hostname": "h"}]),
        )];
        let entry = entry(Some(&service), &slices).unwrap();
        assert_eq!(entry.affinity_seconds, Some(10_800));
        let seen: Vec<(u16, u16, Vec<String>)> = entry
            .ports
            .iter()
            .map(|p| {
                (p.port, p.node_port, p.endpoints.iter().map(|e| format!("{}:{} {}", e.ip, e.port, e.ready)).collect())
            })
            .collect();
        assert_eq!(seen[0], (80, 30080, vec!["10.0.0.1:8080 true".into(), "10.0.0.2:8080 false".into()]));
        assert_eq!(seen[1].2, ["10.0.0.1:5353 true", "10.0.0.2:5353 false"]);
    }

    #[test]
    fn headless_and_external_services_have_no_address() {
        let headless = service(json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": {"clusterIP": "None"}}));
        assert!(entry(Some(&headless), &[]).unwrap().cluster_ips.is_empty());
        let external = service(json!({"metadata": {"name": "web", "namespace": "ns"},
            "spec": {"type": "ExternalName", "externalName": "example.org"}}));
        assert_eq!(entry(Some(&external), &[]).unwrap().external_name.as_deref(), Some("example.org"));
        assert_eq!(entry(None, &[]), None);
    }

    #[test]
    fn unchanged_services_stay_the_same_pointer() {
        let key = |name: &str| ("ns".to_owned(), name.to_owned());
        let make = |name: &str, ip: &str| ServiceEntry {
            name: name.into(),
            cluster_ips: vec![ip.parse().unwrap()],
            ..ServiceEntry::default()
        };
        let both: BTreeSet<Key> = [key("svc"), key("svc2")].into();
        let first = updated(&ServiceTable::default(), &both, |k| Some(make(&k.1, "10.96.0.1"))).unwrap();
        assert!(updated(&first, &both, |k| Some(make(&k.1, "10.96.0.1"))).is_none());
        let second =
            updated(&first, &both, |k| Some(make(&k.1, if k.1 == "svc2" { "10.96.0.2" } else { "10.96.0.1" })))
                .unwrap();
        assert!(Arc::ptr_eq(&first.services[&key("svc")], &second.services[&key("svc")]));
        assert!(!Arc::ptr_eq(&first.services[&key("svc2")], &second.services[&key("svc2")]));
        let third = updated(&second, &[key("svc")].into(), |_| None).unwrap();
        assert_eq!(third.services.len(), 1);
    }

    #[test]
    fn peers_are_the_other_nodes_with_a_range() {
        let node = |name: &str, cidr: Value| -> Arc<Node> {
            Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"podCIDR": cidr},
                "status": {"addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": "192.168.0.1"}]}})).unwrap())
        };
        let nodes =
            [node("node-12", json!("10.244.2.0/24")), node("node-1", json!("10.244.1.0/24")), node("x", Value::Null)];
        let peers = peers_of(&nodes, "node-1");
        assert_eq!(peers.iter().map(|p| p.node.as_str()).collect::<Vec<_>>(), ["node-12"]);
    }
}
