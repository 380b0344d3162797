//! What the kernel was told, and what to tell it next: finds the services that changed, and no more than that.

use super::base::{self, HAIRPIN, HOST_ADDRESS_PORTS, HOST_PORTS, Surroundings};
use super::picks::{self, Chain, Door};
use super::plan::{Backend, Front, ServicePlan, Ways};
use super::rules::{address_port, hairpin_key, protocol_port};
use crate::nft::Value;
use crate::nft::{Batch, Rule, SetSpec};
use minik8s_core::network::{HostPort, Protocol, ServiceEntry, ServiceTable};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

type Key = (String, String);

/// A pod of this node, as far as rules go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodRules {
    pub(crate) ip: Ipv4Addr,
    pub(crate) host_ports: Vec<HostPort>,
}

/// The desired state of the table.
#[derive(Debug)]
pub(super) struct Program {
    around: Surroundings,
    known: BTreeMap<Key, (Arc<ServiceEntry>, ServicePlan)>,
    /// Who wants a front; the first of them has it.
    claims: BTreeMap<Front, BTreeMap<Key, Ways>>,
    /// Chains that fronts lead to, and how many fronts do.
    chains: BTreeMap<String, (Chain, usize)>,
    pods: BTreeMap<String, PodRules>,
}

/// Steps of one transaction, by the order that references between them demand.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    delete_elements: BTreeMap<&'static str, Elements>,
    flush: Vec<String>,
    delete_sets: Vec<String>,
    add_sets: Vec<SetSpec>,
    add_chains: Vec<String>,
    fill: Vec<(String, Vec<Rule>)>,
    add_elements: BTreeMap<&'static str, Elements>,
    delete_chains: Vec<String>,
}

/// Elements of a map or set: keys and values.
pub(super) type Elements = Vec<(Vec<u8>, Value)>;

impl Program {
    pub(super) fn new(around: Surroundings) -> Self {
        Self { around, known: BTreeMap::new(), claims: BTreeMap::new(), chains: BTreeMap::new(), pods: BTreeMap::new() }
    }

    pub(super) fn around(&self) -> &Surroundings {
        &self.around
    }

    /// Takes over a table. Returns what changes in the kernel, and the fronts with flows that may lead elsewhere now.
    pub(super) fn update(&mut self, table: &ServiceTable) -> (Changes, BTreeSet<Front>) {
        let (gone, changed) = self.compare(table);
        let mut touched = BTreeMap::new();
        for key in gone {
            let (_, plan) = self.known.remove(&key).unwrap_or_default();
            self.change(&key, &plan, &ServicePlan::default(), &mut touched);
        }
        for (key, entry) in changed {
            let plan = ServicePlan::of(&entry, &self.around.node);
            let old = self.known.remove(&key).map(|(_, plan)| plan).unwrap_or_default();
            if old != plan {
                self.change(&key, &old, &plan, &mut touched);
            }
            self.known.insert(key, (entry, plan));
        }
        let changes = self.settle(&touched);
        let strands = |(front, before): (Front, Option<Ways>)| self.strands(front, before.as_ref()).then_some(front);
        (changes, touched.into_iter().filter_map(strands).collect())
    }

    /// Whether flows through a front may lead to where they should not any more. Of connections, those that are only
    /// asked for count: they lead nowhere else than to one of the backends that there were.
    fn strands(&self, front: Front, before: Option<&Ways>) -> bool {
        let lost = |ways: &Ways| {
            let now: BTreeSet<Backend> = self.reach(front).into_iter().collect();
            ways.pools().any(|(_, pool)| pool.backends.iter().any(|backend| !now.contains(backend)))
        };
        match front.protocol() {
            // Where there was no front, packets went past.
            Protocol::Udp => before.is_none_or(lost),
            Protocol::Tcp => before.is_some_and(lost),
            Protocol::Sctp => false,
        }
    }

    /// Every front, of services and of pods.
    pub(super) fn fronts(&self) -> impl Iterator<Item = Front> {
        let pods = self.pods.values().flat_map(|pod| pod.host_ports.iter().filter_map(host_front));
        self.claims.keys().copied().chain(pods)
    }

    /// What the kernel is to be told, given fronts with what they were before.
    fn settle(&mut self, touched: &BTreeMap<Front, Option<Ways>>) -> Changes {
        let mut changes = Changes::default();
        let mut needed: BTreeMap<String, (isize, Chain)> = BTreeMap::new();
        for (front, before) in touched {
            let after = self.winner(*front);
            if before.as_ref() == after {
                continue;
            }
            let elements = |ways: Option<&Ways>| ways.map(|ways| picks::elements(*front, ways)).unwrap_or_default();
            changes.exchange(elements(before.as_ref()), elements(after));
            for (name, chain) in before.iter().flat_map(|ways| picks::chains(*front, ways)) {
                needed.entry(name).or_insert((0, chain)).0 -= 1;
            }
            for (name, chain) in after.iter().flat_map(|ways| picks::chains(*front, ways)) {
                let need = needed.entry(name).or_insert((0, chain.clone()));
                *need = (need.0 + 1, chain);
            }
        }
        self.change_chains(needed, &mut changes);
        changes
    }

    /// Makes chains as they are needed: how many fronts more lead to them, and what they do now.
    fn change_chains(&mut self, needed: BTreeMap<String, (isize, Chain)>, changes: &mut Changes) {
        let before = self.counts();
        let mut all = Vec::new();
        for (name, (more, chain)) in needed {
            let old = self.chains.remove(&name);
            let count = old.as_ref().map_or(0, |(_, count)| *count).saturating_add_signed(more);
            let new = (count > 0).then_some(chain);
            self.chains.extend(new.clone().map(|chain| (name.clone(), (chain, count))));
            all.push((name, old.map(|(chain, _)| chain), new));
        }
        let counts = self.counts();
        let always = before.into_iter().zip(counts);
        all.extend(always.map(|((name, old), (_, new))| (name, Some(old), Some(new))));
        for (name, old, new) in &all {
            changes.chain(name, old.as_ref(), new.as_ref());
        }
    }

    /// The chains that go by how many backends there are.
    fn counts(&self) -> Vec<(String, Chain)> {
        let counts = |door: Door| {
            let picks = self.chains.values().filter_map(|(chain, _)| match chain {
                Chain::Pick(at, count) if *at == door => Some(*count),
                _ => None,
            });
            picks.collect::<BTreeSet<u32>>().into_iter().collect()
        };
        Door::ALL.into_iter().map(|door| (door.counts().to_owned(), Chain::Count(door, counts(door)))).collect()
    }

    /// Keys that are gone, and entries that are new or not the same object any more.
    fn compare(&self, table: &ServiceTable) -> (Vec<Key>, Vec<(Key, Arc<ServiceEntry>)>) {
        let (mut gone, mut changed) = (Vec::new(), Vec::new());
        let mut old = self.known.iter().peekable();
        for (key, entry) in &table.services {
            while let Some((missing, _)) = old.next_if(|(known, _)| *known < key) {
                gone.push(missing.clone());
            }
            let same = old.next_if(|(known, _)| *known == key).is_some_and(|(_, (known, _))| Arc::ptr_eq(known, entry));
            if !same {
                changed.push((key.clone(), entry.clone()));
            }
        }
        gone.extend(old.map(|(key, _)| key.clone()));
        (gone, changed)
    }

    fn change(&mut self, key: &Key, old: &ServicePlan, new: &ServicePlan, touched: &mut BTreeMap<Front, Option<Ways>>) {
        for front in old.fronts.keys().chain(new.fronts.keys()) {
            let before = self.winner(*front).cloned();
            touched.entry(*front).or_insert(before);
        }
        for front in old.fronts.keys() {
            if let Some(claims) = self.claims.get_mut(front) {
                claims.remove(key);
                if claims.is_empty() {
                    self.claims.remove(front);
                }
            }
        }
        for (front, ways) in &new.fronts {
            self.claims.entry(*front).or_default().insert(key.clone(), ways.clone());
        }
    }

    fn winner(&self, front: Front) -> Option<&Ways> {
        self.claims.get(&front)?.values().next()
    }

    /// The backends that a front's traffic may reach now.
    pub(super) fn reach(&self, front: Front) -> Vec<Backend> {
        let owner = self.claims.get(&front).and_then(|claims| claims.keys().next());
        let service = owner.and_then(|key| self.known.get(key)).map(|(_, plan)| plan.reach(front));
        let pods = self.pods.values().flat_map(|pod| {
            let ports = pod.host_ports.iter().filter(move |port| host_front(port) == Some(front));
            ports.map(|port| (pod.ip, port.container_port))
        });
        service.unwrap_or_default().into_iter().chain(pods).collect()
    }

    /// Fronts of the ports that a pod has on its host.
    pub(super) fn host_ports(&self, id: &str) -> impl Iterator<Item = Front> {
        self.pods.get(id).into_iter().flat_map(|pod| pod.host_ports.iter().filter_map(host_front))
    }

    /// Forgets what the kernel was told of services.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.claims.clear();
        self.chains.clear();
    }

    /// Adds or changes a pod. Returns elements that go and elements that come.
    pub(super) fn set_pod(&mut self, id: &str, pod: PodRules) -> [Vec<(&'static str, Elements)>; 2] {
        if self.pods.get(id) == Some(&pod) {
            return Default::default();
        }
        let come = pod_elements(&pod);
        let go = self.pods.insert(id.to_owned(), pod).map(|old| pod_elements(&old)).unwrap_or_default();
        [go, come]
    }

    /// Strikes a pod out. Returns elements that go.
    pub(super) fn remove_pod(&mut self, id: &str) -> Vec<(&'static str, Elements)> {
        self.pods.remove(id).map(|pod| pod_elements(&pod)).unwrap_or_default()
    }

    /// Everything that stands in named maps and sets, but for what packets put there.
    pub(super) fn elements(&self) -> BTreeMap<&'static str, BTreeMap<Vec<u8>, Value>> {
        let mut all: BTreeMap<&'static str, BTreeMap<Vec<u8>, Value>> = BTreeMap::new();
        let fronts = self.claims.keys().filter_map(|front| Some((*front, self.winner(*front)?)));
        for ((map, key), value) in fronts.flat_map(|(front, ways)| picks::elements(front, ways)) {
            all.entry(map).or_default().insert(key, value);
        }
        for (map, elements) in self.pods.values().flat_map(pod_elements) {
            all.entry(map).or_default().extend(elements);
        }
        all
    }

    /// Every chain with its rules.
    pub(super) fn chains(&self) -> impl Iterator<Item = (String, Vec<Rule>)> {
        let base = base::chains(&self.around).into_iter().map(|(name, _, rules)| (name.to_owned(), rules));
        let own = self.chains.iter().map(|(name, (chain, _))| (name.clone(), chain.clone())).chain(self.counts());
        base.chain(own.map(|(name, chain)| (name.clone(), chain.rules(&name))))
    }

    /// The whole table in place of whatever there is.
    pub(super) fn write_all(&self, changes: &Changes, batch: &mut Batch) {
        batch.add_table();
        batch.delete_table();
        batch.add_table();
        for set in base::sets() {
            batch.add_set(&set);
        }
        Door::ALL.iter().for_each(|door| batch.add_chain(door.counts(), None));
        let chains = base::chains(&self.around);
        for (name, hook, _) in &chains {
            batch.add_chain(name, *hook);
        }
        for (name, _, rules) in &chains {
            rules.iter().for_each(|rule| batch.add_rule(name, rule));
        }
        for (name, chain) in self.counts().iter().filter(|(name, _)| !changes.fill.iter().any(|(fill, _)| fill == name))
        {
            chain.rules(name).iter().for_each(|rule| batch.add_rule(name, rule));
        }
        for (set, elements) in self.pods.values().flat_map(pod_elements) {
            batch.add_elements(set, &elements);
        }
        changes.write(batch);
    }
}

impl Changes {
    /// Notes the elements that differ. One with another value goes and comes in the same transaction.
    fn exchange(
        &mut self,
        mut old: BTreeMap<(&'static str, Vec<u8>), Value>,
        new: BTreeMap<(&'static str, Vec<u8>), Value>,
    ) {
        for ((map, key), value) in new {
            let at = (map, key);
            if old.get(&at) == Some(&value) {
                old.remove(&at);
            } else {
                self.add_elements.entry(map).or_default().push((at.1, value));
            }
        }
        for ((map, key), _) in old {
            self.delete_elements.entry(map).or_default().push((key, Value::None));
        }
    }

    /// Notes that a chain comes, goes, or does something else.
    fn chain(&mut self, name: &str, old: Option<&Chain>, new: Option<&Chain>) {
        if old == new {
            return;
        }
        let clients = |chain: Option<&Chain>| chain.and_then(|chain| chain.clients(name));
        let (before, after) = (clients(old), clients(new));
        if before != after {
            self.delete_sets.extend(before.map(|_| name.to_owned()));
            self.add_sets.extend(after);
        }
        match (old, new) {
            (Some(_), None) => self.delete_chains.push(name.to_owned()),
            (None, Some(_)) => self.add_chains.push(name.to_owned()),
            _ => {}
        }
        self.flush.extend(old.map(|_| name.to_owned()));
        self.fill.extend(new.map(|chain| (name.to_owned(), chain.rules(name))));
    }

    pub(super) fn write(&self, batch: &mut Batch) {
        self.delete_elements.iter().for_each(|(map, elements)| batch.delete_elements(map, elements));
        self.flush.iter().for_each(|name| batch.flush_chain(name));
        self.delete_sets.iter().for_each(|name| batch.delete_set(name));
        self.add_sets.iter().for_each(|set| batch.add_set(set));
        self.add_chains.iter().for_each(|name| batch.add_chain(name, None));
        for (name, rules) in &self.fill {
            rules.iter().for_each(|rule| batch.add_rule(name, rule));
        }
        self.add_elements.iter().for_each(|(map, elements)| batch.add_elements(map, elements));
        self.delete_chains.iter().for_each(|name| batch.delete_chain(name));
    }
}

/// The front of a port of the host; `None` where its address is of a family that has none.
fn host_front(port: &HostPort) -> Option<Front> {
    match port.host_ip {
        Some(IpAddr::V4(ip)) if !ip.is_unspecified() => Some(Front::Address(ip, port.protocol, port.host_port)),
        Some(IpAddr::V6(ip)) if !ip.is_unspecified() => None,
        _ => Some(Front::NodePort(port.protocol, port.host_port)),
    }
}

fn pod_elements(pod: &PodRules) -> Vec<(&'static str, Elements)> {
    let mut all = vec![(HAIRPIN, vec![(hairpin_key(pod.ip), Value::None)])];
    for port in &pod.host_ports {
        let value = Value::Bytes(address_port((pod.ip, port.container_port)));
        let key = protocol_port(port.protocol, port.host_port);
        match host_front(port) {
            Some(Front::Address(ip, ..)) => {
                all.push((HOST_ADDRESS_PORTS, vec![([ip.octets().to_vec(), key].concat(), value)]));
            }
            Some(Front::NodePort(..)) => all.push((HOST_PORTS, vec![(key, value)])),
            None => {}
        }
    }
    all
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use minik8s_core::network::{Endpoint, ServicePortEntry};

    pub(in super::super) fn program() -> Program {
        Program::new(Surroundings {
            table: "t".into(),
            group: 1,
            gateway: "10.244.0.1".parse().unwrap(),
            tunnel: None,
            node: "here".into(),
            pods: "10.244.0.0/24".parse().unwrap(),
            cluster: "10.244.0.0/16".parse().unwrap(),
            services: "10.96.0.0/16".parse().unwrap(),
        })
    }

    fn service(name: &str, ip: &str, backends: &[&str]) -> Arc<ServiceEntry> {
        let endpoint = |ip: &&str| Endpoint::new(ip.parse::<std::net::IpAddr>().unwrap(), 8080);
        let port = ServicePortEntry {
            port: 80,
            endpoints: backends.iter().map(endpoint).collect(),
            ..ServicePortEntry::default()
        };
        let entry = ServiceEntry {
            namespace: "d".into(),
            name: name.into(),
            cluster_ips: vec![ip.parse().unwrap()],
            ports: vec![port],
            ..ServiceEntry::default()
        };
        Arc::new(entry)
    }

    fn table(services: &[&Arc<ServiceEntry>]) -> ServiceTable {
        let key = |s: &Arc<ServiceEntry>| (s.namespace.clone(), s.name.clone());
        ServiceTable { services: services.iter().map(|s| (key(s), (*s).clone())).collect() }
    }

    #[test]
    fn an_unchanged_table_changes_nothing() {
        let mut program = program();
        let (a, b) = (service("a", "10.96.0.1", &["10.244.0.2"]), service("b", "10.96.0.2", &[]));
        program.update(&table(&[&a, &b]));
        assert_eq!(program.update(&table(&[&a, &b])).0, Changes::default());
        // Another object that means the same.
        let again = Arc::new((*a).clone());
        assert_eq!(program.update(&table(&[&again, &b])).0, Changes::default());
    }

    #[test]
    fn only_what_changed_is_told() {
        let mut program = program();
        let (a, b) = (service("a", "10.96.0.1", &["10.244.0.2"]), service("a2", "10.96.0.2", &["10.244.0.3"]));
        program.update(&table(&[&a, &b]));
        let more = service("a", "10.96.0.1", &["10.244.0.2", "10.244.0.4"]);
        let (changes, touched) = program.update(&table(&[&more, &b]));
        // Another backend, and that there are two now.
        let count = |elements: &BTreeMap<&'static str, Elements>| {
            elements.iter().map(|(m, e)| (*m, e.len())).collect::<Vec<_>>()
        };
        assert_eq!(count(&changes.add_elements), [("endpoints", 1), ("services", 1)]);
        assert_eq!(count(&changes.delete_elements), [("services", 1)]);
        assert_eq!((changes.add_chains, changes.delete_chains), (vec!["pick-2".to_owned()], vec![]));
        assert!(touched.is_empty(), "nobody's way is gone: {touched:?}");
        let (_, touched) = program.update(&table(&[&service("a", "10.96.0.1", &["10.244.0.4"]), &b]));
        assert_eq!(touched, [Front::Address("10.96.0.1".parse().unwrap(), Protocol::Tcp, 80)].into());
    }

    /// What stands at a front, in the maps of services and of endpoints.
    fn at(program: &Program, ip: &str) -> (Option<u32>, Vec<Vec<u8>>) {
        let key = super::super::rules::front_key(Front::Address(ip.parse().unwrap(), Default::default(), 80));
        let all = program.elements();
        let bytes = |value: &Value| if let Value::Bytes(bytes) = value { bytes.clone() } else { panic!("{value:?}") };
        let found = all.get("services").and_then(|m| m.get(&key)).map(bytes);
        let ends = all.get("endpoints").into_iter().flatten().filter(|(k, _)| k.starts_with(&key));
        (found.map(|b| u32::from_be_bytes(b.try_into().unwrap())), ends.map(|(_, v)| bytes(v)).collect())
    }

    #[test]
    fn the_last_endpoint_takes_the_chain_with_it_and_the_front_stays() {
        let mut program = program();
        let (changes, _) = program.update(&table(&[&service("a", "10.96.0.1", &["10.244.0.2"])]));
        assert_eq!(changes.add_chains, ["pick-1"]);
        let (changes, _) = program.update(&table(&[&service("a", "10.96.0.1", &[])]));
        assert_eq!(changes.delete_chains, ["pick-1"]);
        assert_eq!(at(&program, "10.96.0.1"), (Some(0), Vec::new()), "refused");
    }

    #[test]
    fn a_front_that_two_services_claim_belongs_to_the_first_and_then_to_the_other() {
        let mut program = program();
        let (a, b) = (service("a", "10.96.0.1", &["10.244.0.2"]), service("b", "10.96.0.1", &["10.244.0.3"]));
        let backend = |last| (Some(1), vec![vec![10, 244, 0, last, 0x1f, 0x90, 0, 0]]);
        program.update(&table(&[&a, &b]));
        assert_eq!(at(&program, "10.96.0.1"), backend(2));
        let (changes, _) = program.update(&table(&[&b]));
        assert_eq!(at(&program, "10.96.0.1"), backend(3));
        assert!(changes.add_chains.is_empty() && changes.delete_chains.is_empty());
        let (changes, _) = program.update(&table(&[]));
        assert_eq!(changes.delete_chains, ["pick-1"]);
        assert_eq!(at(&program, "10.96.0.1"), (None, Vec::new()));
    }

    #[test]
    fn clients_are_still_known_when_they_are_to_be_remembered_for_longer() {
        let mut program = program();
        let sticky = |seconds| {
            let entry = service("a", "10.96.0.1", &["10.244.0.2", "10.244.0.3"]);
            Arc::new(ServiceEntry { affinity_seconds: Some(seconds), ..(*entry).clone() })
        };
        let (first, _) = program.update(&table(&[&sticky(600)]));
        assert_eq!(first.add_sets.len(), 2);
        let (changes, _) = program.update(&table(&[&sticky(10)]));
        // A set that rules still name cannot go: the kernel would refuse all of it.
        assert!(changes.delete_sets.is_empty() && changes.add_sets.is_empty(), "{changes:?}");
        assert_eq!((changes.flush.len(), changes.fill.len()), (2, 2));
    }

    #[test]
    fn a_chain_stays_for_as_long_as_any_front_needs_it() {
        let mut program = program();
        let (a, b) = (service("a", "10.96.0.1", &["10.244.0.2"]), service("b", "10.96.0.2", &["10.244.0.3"]));
        assert_eq!(program.update(&table(&[&a, &b])).0.add_chains, ["pick-1"]);
        let (changes, _) = program.update(&table(&[&a]));
        assert!(changes.delete_chains.is_empty() && changes.add_chains.is_empty());
        assert_eq!(program.chains().filter(|(name, _)| name.starts_with("pick-")).count(), 1);
        assert_eq!(program.update(&table(&[])).0.delete_chains, ["pick-1"]);
    }
}
