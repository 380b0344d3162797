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
pub(super) const EVERY: Duration = Duration::from_secs(5);
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
        goodbye(self, &Place::of_servers(), own).await;
    }
}

/// Says that the server at `own` lives, and leads the Service to all that do.
pub(super) async fn appear(server: &ApiServer, own: SocketAddr) -> ApiResult<()> {
    let place = Place::of_servers();
    let living = place.living(server, own).await?;
    place.publish(server, &living).await
}

/// Takes what is at `own` out, where there are others.
pub(super) async fn goodbye(server: &ApiServer, place: &Place<'_>, own: SocketAddr) {
    if server.store.capabilities().shared && tokio::time::timeout(GOODBYE, place.leave(server, own)).await.is_err() {
        tracing::debug!("the store did not take the goodbye; the others will notice");
    }
}

/// A Service, and where those say that they live to whom it leads.
pub(super) struct Place<'a> {
    /// What their keys begin with.
    pub(super) keys: String,
    pub(super) namespace: &'a str,
    pub(super) service: &'a str,
    /// The name of its port.
    pub(super) port: &'a str,
}

impl Place<'_> {
    fn of_servers() -> Self {
        Self { keys: keys::SERVERS.to_owned(), namespace: "default", service: SERVICE, port: "https" }
    }

    /// Says that what is at `own` lives, and looks who else does.
    pub(super) async fn living(&self, server: &ApiServer, own: SocketAddr) -> ApiResult<BTreeSet<SocketAddr>> {
        let mut living = BTreeSet::new();
        if server.store.capabilities().shared {
            let failed = |e| super::verbs::store_error("saying that an API server lives", &e);
            self.announce(server, own).await.map_err(failed)?;
            living = self.others(server).await?;
        }
        living.insert(own);
        Ok(living)
    }

    /// Those whose word counts; nobody's does where nobody shares the store.
    pub(super) async fn others(&self, server: &ApiServer) -> ApiResult<BTreeSet<SocketAddr>> {
        if !server.store.capabilities().shared {
            return Ok(BTreeSet::new());
        }
        self.all(server).await.map_err(|e| super::verbs::store_error("looking for API servers", &e))
    }

    async fn leave(&self, server: &ApiServer, own: SocketAddr) {
        let key = self.key(own);
        let gone = async {
            let Some(entry) = server.store.get(&key).await? else { return Ok(BTreeSet::new()) };
            let when = vec![Precondition::At(key.clone(), entry.revision)];
            server.store.commit(Commit { when, ops: vec![Op::Delete { key: key.clone() }] }).await?;
            self.all(server).await
        };
        match gone.await {
            Ok(others) if !others.is_empty() => {
                if let Err(error) = self.publish(server, &others).await {
                    tracing::debug!(%error, "the other API servers will take this one out");
                }
            }
            Ok(_) => {}
            Err::<_, StoreError>(error) => tracing::debug!(%error, "the other API servers will take this one out"),
        }
    }

    fn key(&self, address: SocketAddr) -> Key {
        format!("{}{address}", self.keys).into()
    }

    async fn announce(&self, server: &ApiServer, own: SocketAddr) -> Result<(), StoreError> {
        let key = self.key(own);
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

    async fn all(&self, server: &ApiServer) -> Result<BTreeSet<SocketAddr>, StoreError> {
        let request = RangeRequest { prefix: self.keys.clone(), ..RangeRequest::default() };
        let found = server.store.range(request).await?.entries;
        Ok(found.iter().filter_map(|entry| entry.key.strip_prefix(&*self.keys)?.parse().ok()).collect())
    }

    /// Leads the Service to these. Where it does already, nothing is written.
    async fn publish(&self, server: &ApiServer, living: &BTreeSet<SocketAddr>) -> ApiResult<()> {
        if self.service == SERVICE {
            replace(server, Target::in_namespace(ENDPOINTS, self.namespace), &endpoints(living)).await?;
        }
        self.lead(server, living).await
    }

    /// The same, by slices alone.
    pub(super) async fn lead(&self, server: &ApiServer, living: &BTreeSet<SocketAddr>) -> ApiResult<()> {
        let place = Target::in_namespace(SLICES, self.namespace);
        let slices = self.slices(living);
        for slice in slices.values() {
            replace(server, place.clone(), slice).await?;
        }
        let label_selector = format!("{SERVICE_LABEL}={}", self.service);
        let known = server.list(&place, &ListOptions { label_selector, ..ListOptions::default() }).await?;
        for gone in known.items.iter().filter(|slice| !slices.contains_key(&slice.meta.name)) {
            let target = Target::object(SLICES, self.namespace, &gone.meta.name);
            match server.delete(&target, &DeleteOptions::default()).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// A slice has one family of addresses and one set of ports; by name.
    fn slices(&self, living: &BTreeSet<SocketAddr>) -> BTreeMap<String, Value> {
        let mut slices = BTreeMap::new();
        for (number, addresses) in by_port(living) {
            let (four, six): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv4);
            for (family, addresses) in [("IPv4", four), ("IPv6", six)] {
                if addresses.is_empty() {
                    continue;
                }
                // The family of a slice cannot change: a name never stands for another one.
                let name = match (slices.len(), family) {
                    (0, "IPv4") => self.service.to_owned(),
                    _ => format!("{}-{}-{number}", self.service, family.to_lowercase()),
                };
                let one = |a: &SocketAddr| json!({"addresses": [a.ip()], "conditions": {"ready": true}});
                let slice = json!({
                    "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
                    "metadata": {"name": name, "labels": {SERVICE_LABEL: self.service}},
                    "addressType": family,
                    "endpoints": addresses.iter().map(one).collect::<Vec<_>>(),
                    "ports": port(self.port, number),
                });
                slices.insert(name, slice);
            }
        }
        slices
    }
}

/// Addresses by port.
fn by_port(living: &BTreeSet<SocketAddr>) -> BTreeMap<u16, Vec<SocketAddr>> {
    let mut ports: BTreeMap<u16, Vec<SocketAddr>> = BTreeMap::new();
    living.iter().for_each(|address| ports.entry(address.port()).or_default().push(*address));
    ports
}

fn port(name: &str, port: u16) -> Value {
    json!([{"name": name, "port": port, "protocol": "TCP"}])
}

fn endpoints(living: &BTreeSet<SocketAddr>) -> Value {
    let subset = |(number, addresses): (u16, Vec<SocketAddr>)| {
        let addresses: Vec<Value> = addresses.iter().map(|address| json!({"ip": address.ip()})).collect();
        json!({"addresses": addresses, "ports": port("https", number)})
    };
    json!({
        "kind": "Endpoints", "apiVersion": "v1",
        "metadata": {"name": SERVICE, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": by_port(living).into_iter().map(subset).collect::<Vec<_>>(),
    })
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
        let slices = Place::of_servers().slices(&living);
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
