//! The promises of a network, kept by the bridge.

use crate::machine::on_machine;
use minik8s_core::testkit::need::{self, Need};
use minik8s_core::testkit::network;

/// Runs cases, each on a machine of its own, and collects those that fail.
fn run_all(prepare: fn(), wanted: impl Fn(&network::Case) -> bool) {
    if !need::met(&[Need::Root, Need::Program("ip"), Need::Program("nft")]) {
        return;
    }
    let only = std::env::var("MINIK8S_CASE").unwrap_or_default();
    let all = network::cases().into_iter().filter(|case| wanted(case) && case.name.contains(&only));
    let broken: Vec<&str> = all
        .filter(|case| {
            let case = *case;
            let on_bed = async move |machine| {
                prepare();
                network::run(&case, &machine).await;
            };
            std::panic::catch_unwind(move || on_machine(on_bed)).is_err()
        })
        .map(|case| case.name)
        .collect();
    assert!(broken.is_empty(), "promises broken: {broken:?}");
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
    run_all(off, |case| case.packets && case.name != "ten_thousand_services_and_one_change");
}
