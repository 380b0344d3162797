//! Several machines as one cluster, on real containers and a real network between them.

use super::fleet::Fleet;
use super::harness::until;
use minik8s_core::testkit::hosts::Hosts;
use std::collections::BTreeSet;

fn reach_each_other(fleet: &Fleet) {
    fleet.web_on_each();
    let service = fleet.cluster_ip("web");
    let everyone: BTreeSet<String> = fleet.hosts.iter().map(|host| host.name()).collect();
    for from in fleet.hosts.iter() {
        for to in fleet.hosts.iter() {
            let address = fleet.get(&["pod", &to.name()], "{.status.podIP}").parse().unwrap();
            let told = fleet.fetch_from_pod(&from.name(), address, 8080);
            assert_eq!(told, to.name(), "from the pod on {}", from.name());
        }
    }
    for host in 0..fleet.hosts.len() {
        // From the machine itself and from its pod, each endpoint sooner or later.
        let heard = |calls: usize, ask: &dyn Fn() -> String| (0..calls).map(|_| ask()).collect::<BTreeSet<_>>();
        let here = &|| fleet.fetch(host, service, 80).unwrap();
        until("all answer the machine", 20, || heard(20, here) == everyone);
        let name = fleet.hosts[host].name();
        until("all answer the pod", 60, || heard(9, &|| fleet.fetch_from_pod(&name, service, 80)) == everyone);
        // At the node's own address, from elsewhere.
        let (other, port) = ((host + 1) % fleet.hosts.len(), 30080);
        assert!(everyone.contains(&fleet.fetch(other, fleet.hosts[host].address(), port).unwrap()));
    }
}

#[test]
fn machines_of_one_subnet_are_one_cluster() {
    let Some(fleet) = Fleet::start(|| Hosts::shared(3), &[], &[]) else { return };
    reach_each_other(&fleet);
    assert!(fleet.minik8s(&["logs", &fleet.hosts[2].name()]).is_empty(), "a log from another machine");
    let told = fleet.minik8s(&["exec", &fleet.hosts[2].name(), "--", "hostname"]);
    assert_eq!(told.trim(), fleet.hosts[2].name());
    assert_eq!(fleet.minik8s(&["get", "nodes"]).matches(" Ready ").count(), 3);
}

#[test]
fn machines_of_different_subnets_are_one_cluster() {
    let Some(fleet) = Fleet::start(|| Hosts::subnets(&[1, 1]), &[], &[]) else { return };
    reach_each_other(&fleet);
}
