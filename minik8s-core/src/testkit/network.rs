//! What every [`NetworkPlugin`](crate::network::NetworkPlugin) must do, as a list of named cases.
//!
//! An implementation brings a [`Bed`]: a machine of its own to run on, places for pods, and a way to send packets.
//! Every case gets a fresh bed and leaves it as it was: [`run`] tears the network down afterwards and asks the bed
//! whether anything is left.

#![allow(clippy::expect_used, reason = "a case fails by panicking")]

mod addresses;
mod bed;
mod services;
mod table;

pub use bed::{Answer, Bed, Place, Server};

use futures::future::BoxFuture;

/// One promise, and what a network must be capable of for it to apply.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// A sentence.
    pub name: &'static str,
    /// Sends packets.
    pub packets: bool,
    /// Kills the process in effect.
    pub durable: bool,
    run: for<'a> fn(&'a dyn Bed) -> BoxFuture<'a, ()>,
}

macro_rules! case {
    ($list:ident, $function:path) => {
        case!($list, $function, packets: false, durable: false)
    };
    ($list:ident, $function:path, packets: $packets:expr, durable: $durable:expr) => {
        $list.push($crate::testkit::network::Case {
            name: stringify!($function),
            packets: $packets,
            durable: $durable,
            run: |bed| Box::pin($function(bed)),
        })
    };
}
pub(crate) use case;

/// All cases.
pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    addresses::list(&mut list);
    services::list(&mut list);
    list
}

impl Case {
    /// True where the case says something about this network.
    pub fn applies(&self, bed: &dyn Bed) -> bool {
        let can = bed.network().capabilities();
        (!self.packets || can.real_packets) && (!self.durable || can.durable)
    }
}

/// Runs one case on a bed of its own, tears the network down, twice, and checks that nothing is left.
///
/// # Panics
/// Where the network breaks its promise.
pub async fn run(case: &Case, bed: &dyn Bed) {
    bed.network().setup().await.expect("setup");
    bed.network().setup().await.expect("setup again");
    if case.applies(bed) {
        (case.run)(bed).await;
    }
    bed.network().teardown().await.expect("teardown");
    bed.network().teardown().await.expect("teardown of nothing");
    assert_eq!(bed.leftovers().await, Vec::<String>::new(), "left behind after {}", case.name);
}
