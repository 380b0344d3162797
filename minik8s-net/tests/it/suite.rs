//! The promises of a network, kept by the bridge.

use crate::machine::on_machine;
use minik8s_core::testkit::need::{self, Need};
use minik8s_core::testkit::network::{self, Needs};
use minik8s_core::testkit::suite::Tally;

/// Runs cases, each on a machine of its own.
fn run_all(prepare: fn(), wanted: impl Fn(&network::Case) -> bool) {
    if !need::met(&[Need::Root, Need::Program("ip"), Need::Program("nft")]) {
        return;
    }
    let mut tally = Tally::new("network");
    for case in network::CASES.iter().filter(|case| wanted(case)) {
        let on_bed = async move |machine| {
            prepare();
            network::run(case, &machine).await;
        };
        tally.check(case.name, || on_machine(on_bed));
    }
    tally.finish();
}

#[test]
fn the_bridge_keeps_every_promise() {
    run_all(|| {}, |_| true);
}

/// Machines differ in whether what a bridge switches passes by netfilter as well.
#[test]
fn traffic_is_the_same_where_bridges_do_not_call_netfilter() {
    let off = || {
        if let Err(error) = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0") {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        }
    };
    run_all(off, |case| case.needs.contains(&Needs::Packets) && case.name != "ten_thousand_services_and_one_change");
}
