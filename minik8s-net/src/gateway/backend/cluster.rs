//! The ports of Services that routes lead to, and which endpoint is next.

use super::endpoint::{Endpoint, Lease};
use super::line::Line;
use arc_swap::ArcSwap;
use minik8s_core::api::BackendDemand;
use minik8s_core::network::{Protocol, ServiceEntry, ServiceTable};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Namespace, name, port.
type Key = (String, String, u16);

/// Every backend that some route leads to.
#[derive(Default)]
pub(in crate::gateway) struct Clusters {
    all: HashMap<Key, Arc<Cluster>>,
    table: Arc<ServiceTable>,
    /// Wakes who tells the cluster what is asked.
    wanted: Arc<Notify>,
}

impl Clusters {
    /// The backend, made where it is new.
    pub(in crate::gateway) fn get(&mut self, namespace: &str, name: &str, port: u16) -> Arc<Cluster> {
        let key = (namespace.to_owned(), name.to_owned(), port);
        let (table, wanted) = (&self.table, &self.wanted);
        let made = self.all.entry(key).or_insert_with_key(|key| {
            let cluster = Cluster::new(&key.0, &key.1, key.2, wanted.clone());
            cluster.follow(entry(table, key));
            Arc::new(cluster)
        });
        made.clone()
    }

    /// Drops the backends that nobody but this knows.
    pub(in crate::gateway) fn forget_unused(&mut self) {
        self.all.retain(|_, cluster| Arc::strong_count(cluster) > 1);
    }

    /// Follows the services: endpoints that are still there keep their connections and what is known of them.
    pub(in crate::gateway) fn follow(&mut self, table: Arc<ServiceTable>) {
        let before = std::mem::replace(&mut self.table, table);
        for (key, cluster) in &self.all {
            let (old, new) = (entry(&before, key), entry(&self.table, key));
            if old.map(Arc::as_ptr) != new.map(Arc::as_ptr) {
                cluster.follow(new);
            }
        }
    }

    /// Told whenever somebody waits for a backend without endpoints, or asks one after a while.
    pub(in crate::gateway) fn wanted(&self) -> Arc<Notify> {
        self.wanted.clone()
    }

    /// What was asked of backends for which requests may wait; `None` where there is nothing to tell.
    pub(in crate::gateway) fn demand(&self) -> Option<Vec<BackendDemand>> {
        let all = self.all.iter().filter_map(|((namespace, service, port), cluster)| {
            let (namespace, service, port) = (namespace.clone(), service.clone(), i32::from(*port));
            Some(BackendDemand { namespace, service, port, ..cluster.line.report()? })
        });
        let all: Vec<BackendDemand> = all.collect();
        let some = |d: &BackendDemand| d.waiting > 0 || d.active > 0 || d.rate > 0.0;
        (!all.is_empty()).then(|| all.into_iter().filter(some).collect())
    }

    /// Closes connections that have not been used for so long.
    pub(in crate::gateway) fn sweep(&self, idle: Duration) {
        for cluster in self.all.values() {
            cluster.members.load().endpoints.iter().for_each(|endpoint| endpoint.sweep(idle));
        }
    }
}

fn entry<'a>(table: &'a ServiceTable, key: &Key) -> Option<&'a Arc<ServiceEntry>> {
    table.services.get(&(key.0.clone(), key.1.clone()))
}

/// One port of a Service.
pub(in crate::gateway) struct Cluster {
    namespace: String,
    name: String,
    port: u16,
    members: ArcSwap<Members>,
    turn: AtomicU64,
    /// One change at a time.
    changing: Mutex<()>,
    pub(super) line: Arc<Line>,
}

/// The endpoints of the moment.
#[derive(Default)]
struct Members {
    state: State,
    endpoints: Vec<Arc<Endpoint>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// There is no such Service.
    #[default]
    NoService,
    /// It has no such port.
    NoPort,
    /// It is there.
    There,
}

impl Cluster {
    fn new(namespace: &str, name: &str, port: u16, wanted: Arc<Notify>) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            port,
            members: ArcSwap::default(),
            turn: AtomicU64::new(0),
            changing: Mutex::default(),
            line: Arc::new(Line::new(wanted)),
        }
    }

    fn follow(&self, service: Option<&Arc<ServiceEntry>>) {
        let _changing = self.changing.lock();
        let port = service.and_then(|s| s.ports.iter().find(|p| p.port == self.port && p.protocol == Protocol::Tcp));
        let state = match (service, port) {
            (None, _) => State::NoService,
            (Some(_), None) => State::NoPort,
            (Some(_), Some(_)) => State::There,
        };
        let mut wanted: Vec<SocketAddr> = Vec::new();
        if let Some(port) = port {
            let some_ready = port.endpoints.iter().any(|e| e.ready);
            // Those that are going away are better than none.
            let usable = port.endpoints.iter().filter(|e| if some_ready { e.ready } else { e.serving });
            wanted.extend(usable.map(|e| SocketAddr::new(e.ip, e.port)));
        }
        wanted.sort();
        wanted.dedup();
        let before = self.members.load();
        let known = |address: SocketAddr| before.endpoints.iter().find(|e| e.address() == address).cloned();
        let any = !wanted.is_empty();
        let endpoints = wanted.into_iter().map(|a| known(a).unwrap_or_else(|| Arc::new(Endpoint::new(a)))).collect();
        self.members.store(Arc::new(Members { state, endpoints }));
        self.line.look(any);
    }

    /// The least busy of the endpoints that are not left out and have fewer requests than this; those that are as busy
    /// take turns.
    pub(super) fn pick_within(&self, limit: usize) -> Option<Lease> {
        let members = self.members.load();
        let all = &members.endpoints;
        let start = usize::try_from(self.turn.fetch_add(1, Ordering::Relaxed)).unwrap_or(0);
        loop {
            let usable = (0..all.len()).map(|i| &all[(start + i) % all.len()]).filter(|e| !e.is_ejected());
            let free = usable.filter(|e| e.active() < limit);
            let best = free.min_by_key(|e| e.active())?;
            // Another request may have been faster.
            if let Some(lease) = Lease::within(best, limit) {
                return Some(lease);
            }
        }
    }

    /// There is such a port of such a Service.
    pub(super) fn is_there(&self) -> bool {
        self.members.load().state == State::There
    }

    /// An endpoint for one request: of two that the turn picks, the one with fewer requests. Those in `tried` and those
    /// left out for a while come last.
    pub(in crate::gateway) fn pick(&self, tried: &[SocketAddr]) -> Option<Lease> {
        let members = self.members.load();
        let all = &members.endpoints;
        let usable = |e: &&Arc<Endpoint>| !tried.contains(&e.address()) && !e.is_ejected();
        if let [only] = &all[..] {
            return Some(Lease::new(only.clone()));
        }
        let random = mix(self.turn.fetch_add(1, Ordering::Relaxed));
        let (first, second) = two(random, all.len())?;
        let (first, second) = (&all[first], &all[second]);
        let better = if second.active() < first.active() { [second, first] } else { [first, second] };
        let found = better.into_iter().find(usable);
        // From a place of its own, so that those next to one that fails do not get all of its requests.
        let start = (random >> 32) as usize % all.len();
        let others = || all.iter().cycle().skip(start).take(all.len());
        let found = found.or_else(|| others().find(usable));
        let found = found.or_else(|| others().find(|e| !tried.contains(&e.address())));
        Some(Lease::new(found.unwrap_or(first).clone()))
    }

    /// The endpoint that a session belongs to.
    pub(in crate::gateway) fn find(&self, wanted: impl Fn(SocketAddr) -> bool) -> Option<Lease> {
        let members = self.members.load();
        let found = members.endpoints.iter().find(|e| wanted(e.address()) && !e.is_ejected());
        found.map(|endpoint| Lease::new(endpoint.clone()))
    }

    /// Of all endpoints, the one for which the number is greatest: the same one for the same numbers, whatever others
    /// come and go.
    pub(in crate::gateway) fn greatest(&self, number: impl Fn(SocketAddr) -> u64) -> Option<Lease> {
        let members = self.members.load();
        let usable = members.endpoints.iter().filter(|e| !e.is_ejected());
        let found = usable.max_by_key(|e| number(e.address())).or_else(|| members.endpoints.first());
        found.map(|endpoint| Lease::new(endpoint.clone()))
    }

    /// `namespace/name`
    pub(in crate::gateway) fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// How many endpoints there are.
    pub(in crate::gateway) fn len(&self) -> usize {
        self.members.load().endpoints.len()
    }

    /// Why there is no endpoint.
    pub(in crate::gateway) fn why_empty(&self) -> String {
        let Self { namespace, name, port, .. } = self;
        match self.members.load().state {
            State::NoService => format!("there is no Service {namespace}/{name}"),
            State::NoPort => format!("Service {namespace}/{name} has no port {port}"),
            State::There => format!("Service {namespace}/{name} has no endpoint that is ready at port {port}"),
        }
    }
}

/// Two different indices below `count`.
fn two(random: u64, count: usize) -> Option<(usize, usize)> {
    let n = u64::try_from(count).ok().filter(|n| *n > 0)?;
    let first = random % n;
    let second = if n == 1 { 0 } else { (first + 1 + (random >> 32) % (n - 1)) % n };
    Some((first as usize, second as usize))
}

/// A number that looks like chance (splitmix64).
fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik8s_core::network::{Endpoint as Known, ServicePortEntry};
    use std::net::Ipv4Addr;

    fn table(last: &[u8]) -> Arc<ServiceTable> {
        let endpoints = last.iter().map(|n| Known::new(Ipv4Addr::new(10, 0, 0, *n), 80)).collect();
        let ports = vec![ServicePortEntry { port: 80, endpoints, ..ServicePortEntry::default() }];
        let entry = ServiceEntry { ports, ..ServiceEntry::default() };
        Arc::new(ServiceTable { services: [(("d".into(), "web".into()), Arc::new(entry))].into() })
    }

    fn clusters(last: &[u8]) -> (Clusters, Arc<Cluster>) {
        let mut clusters = Clusters::default();
        clusters.follow(table(last));
        let cluster = clusters.get("d", "web", 80);
        (clusters, cluster)
    }

    #[test]
    fn the_less_busy_of_two_gets_the_request() {
        let (_clusters, cluster) = clusters(&[1, 2]);
        let busy: Vec<Lease> = (0..10).filter_map(|_| cluster.pick(&[])).collect();
        let at = |n: u8| busy.iter().filter(|l| l.address().ip() == Ipv4Addr::new(10, 0, 0, n)).count();
        assert_eq!((at(1), at(2)), (5, 5));
        let one = [busy[0].address()];
        assert!((0..20).all(|_| cluster.pick(&one).unwrap().address() != one[0]), "what was tried comes last");
    }

    #[test]
    fn endpoints_that_stay_are_the_same_and_those_that_go_are_not_picked() {
        let (mut clusters, cluster) = clusters(&[1, 2]);
        let kept = cluster.find(|a| a.ip() == Ipv4Addr::new(10, 0, 0, 2)).unwrap();
        clusters.follow(table(&[2, 3]));
        let again = cluster.find(|a| a == kept.address()).unwrap();
        assert_eq!(again.active(), 2, "the same counter");
        assert!((0..50).all(|_| cluster.pick(&[]).unwrap().address().ip() != Ipv4Addr::new(10, 0, 0, 1)));
        clusters.follow(table(&[]));
        assert!(cluster.pick(&[]).is_none() && cluster.why_empty().contains("no endpoint"));
        clusters.follow(Arc::default());
        assert_eq!(cluster.why_empty(), "there is no Service d/web");
        drop(cluster);
        clusters.forget_unused();
        assert!(clusters.all.is_empty());
    }

    #[test]
    fn endpoints_that_fail_are_left_out_for_a_while() {
        let (_clusters, cluster) = clusters(&[1, 2, 3]);
        let bad = cluster.find(|a| a.ip() == Ipv4Addr::new(10, 0, 0, 1)).unwrap();
        assert!(bad.failed() && bad.is_ejected());
        assert!((0..50).all(|_| cluster.pick(&[]).unwrap().address() != bad.address()));
        // Where all fail, anyone is better than none.
        for n in [2, 3] {
            cluster.find(|a| a.ip() == Ipv4Addr::new(10, 0, 0, n)).unwrap().failed();
        }
        assert!(cluster.pick(&[]).is_some());
        bad.worked();
        assert!(!bad.is_ejected());
    }
}
