//! Which API servers of a cluster live, and that the Service `kubernetes` leads to all of them.
//!
//! Where several share a store, each keeps a key in it that vanishes unless it is written again; whoever looks next takes
//! a server out whose key has gone. No server asks another, and no clock is compared with another.

use super::bootstrap::replace;
use super::{ApiServer, keys};
use crate::api::{ApiResult, Gvr, Target};
use crate::client::{DeleteOptions, ListOptions, Transport};
use crate::store::{Commit, Key, Op, Precondition, RangeRequest, StoreError};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The Service that leads to the API servers.
pub(crate) const SERVICE: &str = "kubernetes";
const SLICES: Gvr = Gvr::new("discovery.k8s.io", "v1", "endpointslices");
const ENDPOINTS: Gvr = Gvr::new("", "v1", "endpoints");
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// How often a server says that it lives.
const EVERY: Duration = Duration::from_secs(5);
/// How long its word counts.
const LIFE: Duration = Duration::from_secs(15);
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);

impl ApiServer {
    /// Keeps the Service `kubernetes` leading to every API server on the store, this one among them, until `shutdown`;
    /// then it leads to the others. Returns at once where nobody shares the store or this server advertises no address.
    pub async fn keep_presence(&self, shutdown: CancellationToken) {
        let Some(own) = self.advertise.filter(|_| self.store.capabilities().shared) else { return };
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + EVERY, EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Some(Err(error)) = shutdown.run_until_cancelled(appear(self, own)).await {
                tracing::warn!(%error, "cannot say that this API server lives");
            }
        }
        if tokio::time::timeout(GOODBYE, leave(self, own)).await.is_err() {
            tracing::debug!("the store did not take the goodbye; the others will notice");
        }
    }
}

/// Says that the server at `own` lives, and leads the Service to all that do.
pub(super) async fn appear(server: &ApiServer, own: SocketAddr) -> ApiResult<()> {
    let mut living = BTreeSet::new();
    if server.store.capabilities().shared {
        announce(server, own).await.map_err(|e| super::verbs::store_error("saying that the API server lives", &e))?;
        living = all(server).await.map_err(|e| super::verbs::store_error("looking for API servers", &e))?;
    }
    living.insert(own);
    publish(server, &living).await
}

/// Takes the server out, where there are others.
async fn leave(server: &ApiServer, own: SocketAddr) {
    let key = key(own);
    let gone = async {
        let Some(entry) = server.store.get(&key).await? else { return Ok(BTreeSet::new()) };
        let when = vec![Precondition::At(key.clone(), entry.revision)];
        server.store.commit(Commit { when, ops: vec![Op::Delete { key: key.clone() }] }).await?;
        all(server).await
    };
    match gone.await {
        Ok(others) if !others.is_empty() => {
            if let Err(error) = publish(server, &others).await {
                tracing::debug!(%error, "the other API servers will take this one out");
            }
        }
        Ok(_) => {}
        Err::<_, StoreError>(error) => tracing::debug!(%error, "the other API servers will take this one out"),
    }
}

fn key(address: SocketAddr) -> Key {
    format!("{}{address}", keys::SERVERS).into()
}

async fn announce(server: &ApiServer, own: SocketAddr) -> Result<(), StoreError> {
    let key = key(own);
    let when = match server.store.get(&key).await? {
        Some(entry) => Precondition::At(key.clone(), entry.revision),
        None => Precondition::Absent(key.clone()),
    };
    let op = Op::Put { key, value: own.to_string().into(), ttl: Some(LIFE) };
    match server.store.commit(Commit { when: vec![when], ops: vec![op] }).await {
        // It went in between; the next word comes soon.
        Err(StoreError::Conflict { .. }) => Ok(()),
        done => done.map(drop),
    }
}

/// The servers whose word counts.
async fn all(server: &ApiServer) -> Result<BTreeSet<SocketAddr>, StoreError> {
    let request = RangeRequest { prefix: keys::SERVERS.to_owned(), ..RangeRequest::default() };
    let found = server.store.range(request).await?.entries;
    Ok(found.iter().filter_map(|entry| entry.key.strip_prefix(keys::SERVERS)?.parse().ok()).collect())
}

/// Leads the Service to these servers. Where it does already, nothing is written.
async fn publish(server: &ApiServer, living: &BTreeSet<SocketAddr>) -> ApiResult<()> {
    let place = |gvr| Target::in_namespace(gvr, "default");
    replace(server, place(ENDPOINTS), &endpoints(living)).await?;
    let slices = slices(living);
    for slice in slices.values() {
        replace(server, place(SLICES), slice).await?;
    }
    let label_selector = format!("{SERVICE_LABEL}={SERVICE}");
    let known = server.list(&place(SLICES), &ListOptions { label_selector, ..ListOptions::default() }).await?;
    for gone in known.items.iter().filter(|slice| !slices.contains_key(&slice.meta.name)) {
        let target = Target::object(SLICES, "default", &gone.meta.name);
        match server.delete(&target, &DeleteOptions::default()).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Addresses by port.
fn by_port(living: &BTreeSet<SocketAddr>) -> BTreeMap<u16, Vec<SocketAddr>> {
    let mut ports: BTreeMap<u16, Vec<SocketAddr>> = BTreeMap::new();
    living.iter().for_each(|address| ports.entry(address.port()).or_default().push(*address));
    ports
}

fn port(port: u16) -> Value {
    json!([{"name": "https", "port": port, "protocol": "TCP"}])
}

fn endpoints(living: &BTreeSet<SocketAddr>) -> Value {
    let subset = |(number, addresses): (u16, Vec<SocketAddr>)| {
        let addresses: Vec<Value> = addresses.iter().map(|address| json!({"ip": address.ip()})).collect();
        json!({"addresses": addresses, "ports": port(number)})
    };
    json!({
        "kind": "Endpoints", "apiVersion": "v1",
        "metadata": {"name": SERVICE, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": by_port(living).into_iter().map(subset).collect::<Vec<_>>(),
    })
}

/// A slice has one family of addresses and one set of ports; by name.
fn slices(living: &BTreeSet<SocketAddr>) -> BTreeMap<String, Value> {
    let mut slices = BTreeMap::new();
    for (number, addresses) in by_port(living) {
        let (four, six): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv4);
        for (family, addresses) in [("IPv4", four), ("IPv6", six)] {
            if addresses.is_empty() {
                continue;
            }
            // The family of a slice cannot change: a name never stands for another one.
            let name = match (slices.len(), family) {
                (0, "IPv4") => SERVICE.to_owned(),
                _ => format!("{SERVICE}-{}-{number}", family.to_lowercase()),
            };
            let one = |a: &SocketAddr| json!({"addresses": [a.ip()], "conditions": {"ready": true}});
            let slice = json!({
                "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
                "metadata": {"name": name, "labels": {SERVICE_LABEL: SERVICE}},
                "addressType": family,
                "endpoints": addresses.iter().map(one).collect::<Vec<_>>(),
                "ports": port(number),
            });
            slices.insert(name, slice);
        }
    }
    slices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn living(addresses: &[&str]) -> BTreeSet<SocketAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn servers_of_one_port_share_a_slice_and_others_have_their_own() {
        let living = living(&["10.0.0.2:6443", "10.0.0.1:6443", "10.0.0.1:7443", "[fd00::1]:6443"]);
        let slices = slices(&living);
        let addresses = |name: &str| {
            let endpoints = slices[name]["endpoints"].as_array().unwrap();
            endpoints.iter().map(|e| e["addresses"][0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(addresses("kubernetes"), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(addresses("kubernetes-ipv6-6443"), ["fd00::1"]);
        assert_eq!(addresses("kubernetes-ipv4-7443"), ["10.0.0.1"]);
        assert_eq!(slices.len(), 3);
        let endpoints = endpoints(&living);
        assert_eq!(endpoints["subsets"][0]["addresses"].as_array().unwrap().len(), 3);
        assert_eq!(endpoints["subsets"][1]["ports"][0]["port"], 7443);
    }
}
