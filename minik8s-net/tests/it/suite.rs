//! The promises of a network, kept by the bridge.

use crate::machine::on_machine;
use minik8s_core::testkit::need::{self, Need};
use minik8s_core::testkit::network;

#[test]
fn the_bridge_keeps_every_promise() {
    if !need::met(&[Need::Root, Need::Program("ip"), Need::Program("nft")]) {
        return;
    }
    let only = std::env::var("MINIK8S_CASE").unwrap_or_default();
    let broken: Vec<&str> = network::cases()
        .into_iter()
        .filter(|case| case.name.contains(&only))
        .filter(|case| {
            let case = *case;
            let body = move || on_machine(async move |machine| network::run(&case, &machine).await);
            std::panic::catch_unwind(body).is_err()
        })
        .map(|case| case.name)
        .collect();
    assert!(broken.is_empty(), "promises broken: {broken:?}");
}
