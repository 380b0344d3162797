//! What the kernel was told, and what to tell it next: finds the services that changed, and no more than that.

use super::base::{self, HAIRPIN, HOST_ADDRESS_PORTS, HOST_PORTS, Surroundings};
use super::plan::{Backend, Front, ServicePlan, Target};
use super::rules::{address_port, chain_rules, clients, front_key, hairpin_key, protocol_port, target_value};
use crate::nft::Value;
use crate::nft::{Batch, Rule, SetSpec};
use minik8s_core::network::{HostPort, ServiceEntry, ServiceTable};
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
    claims: BTreeMap<Front, BTreeMap<Key, Target>>,
    pods: BTreeMap<String, PodRules>,
}

/// Steps of one transaction, by the order that references between them demand.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    delete_elements: Vec<Front>,
    flush: Vec<String>,
    delete_sets: Vec<String>,
    add_sets: Vec<SetSpec>,
    add_chains: Vec<String>,
    fill: Vec<(String, Vec<Rule>)>,
    add_elements: Vec<(Front, Target)>,
    delete_chains: Vec<String>,
}

/// Elements of a map or set: keys and values.
pub(super) type Elements = Vec<(Vec<u8>, Value)>;

impl Program {
    pub(super) fn new(around: Surroundings) -> Self {
        Self { around, known: BTreeMap::new(), claims: BTreeMap::new(), pods: BTreeMap::new() }
    }

    pub(super) fn around(&self) -> &Surroundings {
        &self.around
    }

    /// Takes over a table. Returns what changes in the kernel, and the fronts whose backends changed.
    pub(super) fn update(&mut self, table: &ServiceTable) -> (Changes, BTreeSet<Front>) {
        let (gone, changed) = self.compare(table);
        let mut changes = Changes::default();
        let mut touched = BTreeMap::new();
        for key in gone {
            let (_, plan) = self.known.remove(&key).unwrap_or_default();
            self.change(&key, &plan, &ServicePlan::default(), &mut changes, &mut touched);
        }
        for (key, entry) in changed {
            let plan = ServicePlan::of(&entry, &self.around.node);
            let old = self.known.remove(&key).map(|(_, plan)| plan).unwrap_or_default();
            if old != plan {
                self.change(&key, &old, &plan, &mut changes, &mut touched);
            }
            self.known.insert(key, (entry, plan));
        }
        for (front, before) in &touched {
            let after = self.winner(*front);
            if before.as_ref() != after {
                changes.delete_elements.extend(before.is_some().then_some(*front));
                changes.add_elements.extend(after.map(|target| (*front, target.clone())));
            }
        }
        (changes, touched.into_keys().collect())
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

    fn change(
        &mut self,
        key: &Key,
        old: &ServicePlan,
        new: &ServicePlan,
        changes: &mut Changes,
        touched: &mut BTreeMap<Front, Option<Target>>,
    ) {
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
        for (front, target) in &new.fronts {
            self.claims.entry(*front).or_default().insert(key.clone(), target.clone());
        }
        self.change_chains(old, new, changes);
    }

    fn change_chains(&self, old: &ServicePlan, new: &ServicePlan, changes: &mut Changes) {
        for (name, before) in &old.chains {
            let after = new.chains.get(name);
            if after == Some(before) {
                continue;
            }
            changes.flush.push(name.clone());
            let (map, wanted) = (clients(name, before), after.and_then(|c| clients(name, c)));
            if map.is_some() && map != wanted {
                changes.delete_sets.push(name.clone());
            }
            if after.is_none() {
                changes.delete_chains.push(name.clone());
            }
        }
        for (name, after) in &new.chains {
            let before = old.chains.get(name);
            if before == Some(after) {
                continue;
            }
            if before.is_none() {
                changes.add_chains.push(name.clone());
            }
            let map = clients(name, after);
            if map != before.and_then(|c| clients(name, c)) {
                changes.add_sets.extend(map);
            }
            changes.fill.push((name.clone(), chain_rules(name, after, self.around.cluster)));
        }
    }

    fn winner(&self, front: Front) -> Option<&Target> {
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

    pub(super) fn all_host_ports(&self) -> impl Iterator<Item = Front> {
        self.pods.values().flat_map(|pod| pod.host_ports.iter().filter_map(host_front))
    }

    /// Forgets what the kernel was told of services.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.claims.clear();
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

    /// Everything that stands in named maps and sets.
    pub(super) fn elements(&self) -> BTreeMap<&'static str, BTreeMap<Vec<u8>, Value>> {
        let mut all: BTreeMap<&'static str, BTreeMap<Vec<u8>, Value>> = BTreeMap::new();
        for front in self.claims.keys() {
            if let Some(target) = self.winner(*front) {
                let (map, key) = front_key(*front);
                all.entry(map).or_default().insert(key, target_value(target));
            }
        }
        for (map, elements) in self.pods.values().flat_map(pod_elements) {
            all.entry(map).or_default().extend(elements);
        }
        all
    }

    /// Every chain with its rules.
    pub(super) fn chains(&self) -> impl Iterator<Item = (String, Vec<Rule>)> {
        let base = base::chains(&self.around).into_iter().map(|(name, _, rules)| (name.to_owned(), rules));
        let cluster = self.around.cluster;
        base.chain(self.known.values().flat_map(move |(_, plan)| {
            plan.chains.iter().map(move |(name, chain)| (name.clone(), chain_rules(name, chain, cluster)))
        }))
    }

    /// The whole table in place of whatever there is.
    pub(super) fn write_all(&self, changes: &Changes, batch: &mut Batch) {
        batch.add_table();
        batch.delete_table();
        batch.add_table();
        for set in base::sets() {
            batch.add_set(&set);
        }
        let chains = base::chains(&self.around);
        for (name, hook, _) in &chains {
            batch.add_chain(name, *hook);
        }
        for (name, _, rules) in &chains {
            rules.iter().for_each(|rule| batch.add_rule(name, rule));
        }
        for (set, elements) in self.pods.values().flat_map(pod_elements) {
            batch.add_elements(set, &elements);
        }
        changes.write(batch);
    }
}

impl Changes {
    pub(super) fn write(&self, batch: &mut Batch) {
        for (map, elements) in by_map(self.delete_elements.iter().map(|front| (*front, Value::None))) {
            batch.delete_elements(map, &elements);
        }
        self.flush.iter().for_each(|name| batch.flush_chain(name));
        self.delete_sets.iter().for_each(|name| batch.delete_set(name));
        self.add_sets.iter().for_each(|set| batch.add_set(set));
        self.add_chains.iter().for_each(|name| batch.add_chain(name, None));
        for (name, rules) in &self.fill {
            rules.iter().for_each(|rule| batch.add_rule(name, rule));
        }
        for (map, elements) in by_map(self.add_elements.iter().map(|(front, t)| (*front, target_value(t)))) {
            batch.add_elements(map, &elements);
        }
        self.delete_chains.iter().for_each(|name| batch.delete_chain(name));
    }
}

fn by_map(elements: impl Iterator<Item = (Front, Value)>) -> BTreeMap<&'static str, Elements> {
    let mut all: BTreeMap<&'static str, Elements> = BTreeMap::new();
    for (front, value) in elements {
        let (map, key) = front_key(front);
        all.entry(map).or_default().push((key, value));
    }
    all
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
mod tests {
    use super::*;
    use minik8s_core::network::{Endpoint, ServicePortEntry};

    fn program() -> Program {
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
        assert_eq!(changes.flush, ["svc/d/a/tcp/80"]);
        assert_eq!(changes.fill.len(), 1);
        assert!(changes.add_chains.is_empty() && changes.add_elements.is_empty() && changes.delete_elements.is_empty());
        assert_eq!(touched.len(), 1);
    }

    #[test]
    fn the_last_endpoint_takes_the_chain_with_it_and_the_front_stays() {
        let mut program = program();
        program.update(&table(&[&service("a", "10.96.0.1", &["10.244.0.2"])]));
        let (changes, _) = program.update(&table(&[&service("a", "10.96.0.1", &[])]));
        assert_eq!(changes.delete_chains, ["svc/d/a/tcp/80"]);
        assert_eq!(changes.delete_elements.len(), 1);
        assert_eq!(changes.add_elements[0].1, Target::Refuse);
    }

    #[test]
    fn a_front_that_two_services_claim_belongs_to_the_first_and_then_to_the_other() {
        let mut program = program();
        let (a, b) = (service("a", "10.96.0.1", &["10.244.0.2"]), service("b", "10.96.0.1", &["10.244.0.3"]));
        let (changes, _) = program.update(&table(&[&a, &b]));
        let chain = |name: &str| Target::Chain(format!("svc/d/{name}/tcp/80"));
        assert_eq!(changes.add_elements.iter().map(|(_, t)| t.clone()).collect::<Vec<_>>(), [chain("a")]);
        let (changes, _) = program.update(&table(&[&b]));
        assert_eq!(changes.delete_elements.len(), 1);
        assert_eq!(changes.add_elements.iter().map(|(_, t)| t.clone()).collect::<Vec<_>>(), [chain("b")]);
        assert_eq!(changes.delete_chains, ["svc/d/a/tcp/80"]);
        let (changes, _) = program.update(&table(&[]));
        assert_eq!((changes.delete_elements.len(), changes.add_elements.len()), (1, 0));
        assert!(program.elements().is_empty());
    }
}
