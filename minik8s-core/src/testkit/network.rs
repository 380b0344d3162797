//! What every [`NetworkPlugin`](crate::network::NetworkPlugin) must do, as a list of named cases.
//!
//! An implementation brings a [`Bed`]: a machine of its own to run on, places for pods, and a way to send packets.
//! Every case gets a fresh bed and leaves it as it was: [`run`] tears the network down afterwards and asks the bed
//! whether anything is left.

#![allow(clippy::expect_used, reason = "a case fails by panicking")]

mod addresses;
mod bed;
mod peers;
mod services;
mod table;

pub use bed::{Answer, Bed, Place, Server};

use super::suite;
use crate::network::NetworkCapabilities;
use futures::future::BoxFuture;

/// What a case needs a network to be able to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// [`NetworkCapabilities::real_packets`]
    Packets,
    /// [`NetworkCapabilities::durable`]: the case kills the process in effect.
    Durable,
}

impl Needs {
    fn met_by(self, can: NetworkCapabilities) -> bool {
        match self {
            Needs::Packets => can.real_packets,
            Needs::Durable => can.durable,
        }
    }
}

/// One case of the suite.
pub type Case = suite::Case<for<'a> fn(&'a dyn Bed) -> BoxFuture<'a, ()>, Needs>;

/// Every case.
pub const CASES: &[Case] = suite::cases! {
    addresses::addresses_are_unique_and_in_range;
    addresses::attaching_twice_gives_the_same_answer;
    addresses::detaching_twice_or_nothing_is_success;
    addresses::detaching_after_the_namespace_vanished_is_success;
    addresses::a_pod_without_namespace_is_refused_and_leaves_nothing needs Packets;
    addresses::attachments_lists_strays;
    addresses::fifty_attaches_at_once_are_fifty_addresses;
    addresses::the_same_pod_attached_many_times_at_once_is_one;
    addresses::a_full_range_is_exhausted_and_a_freed_address_helps;
    addresses::a_freed_address_is_not_reused_at_once;
    addresses::names_with_a_common_prefix_are_different_pods;
    addresses::allocations_survive_a_kill needs Durable;
    addresses::a_sandbox_made_again_keeps_its_address;
    addresses::pods_reach_each_other_and_the_host needs Packets;
    addresses::pods_reach_the_outside_and_seem_to_be_the_node needs Packets;
    addresses::missing_links_are_repaired needs Packets;
    addresses::what_is_foreign_stays_as_it_is;
    peers::any_list_of_nodes_is_taken_or_refused_in_words;
    peers::nodes_that_make_no_sense_do_not_keep_others_away;
    peers::other_nodes_are_told_again_after_a_kill needs Durable;
    services::any_table_is_taken_any_number_of_times;
    services::a_virtual_address_reaches_every_endpoint_from_pods_and_host needs Packets;
    services::a_pod_reaches_itself_by_its_service needs Packets;
    services::ports_and_protocols_are_apart needs Packets;
    services::node_ports_answer_on_every_address_of_the_node needs Packets;
    services::external_addresses_lead_to_the_service needs Packets;
    services::clients_stay_with_their_endpoint_until_it_is_gone needs Packets;
    services::without_endpoints_clients_are_refused_at_once needs Packets;
    services::a_removed_endpoint_gets_no_traffic needs Packets;
    services::a_flow_of_datagrams_leaves_a_removed_endpoint needs Packets;
    services::deleting_a_service_leaves_those_with_a_longer_name needs Packets;
    services::outside_traffic_stays_on_the_node_where_it_should needs Packets;
    services::inside_traffic_stays_on_the_node_where_it_should needs Packets;
    services::ports_of_the_host_lead_to_the_pod needs Packets;
    services::a_port_of_the_host_is_given_once needs Packets;
    services::flushed_rules_are_repaired needs Packets;
    services::services_go_on_after_a_kill needs Packets, Durable;
    services::pods_are_told_names_and_names_follow_the_table needs Packets;
    services::ten_thousand_services_and_one_change needs Packets;
};

/// True where the case says something about this network.
pub fn applies(case: &Case, bed: &dyn Bed) -> bool {
    let can = bed.network().capabilities();
    case.needs.iter().all(|need| need.met_by(can))
}

/// Runs one case on a bed of its own, tears the network down, twice, and checks that nothing is left.
///
/// # Panics
/// Where the network breaks its promise.
pub async fn run(case: &Case, bed: &dyn Bed) {
    bed.network().setup().await.expect("setup");
    bed.network().setup().await.expect("setup again");
    if applies(case, bed) {
        (case.run)(bed).await;
    }
    bed.network().teardown().await.expect("teardown");
    bed.network().teardown().await.expect("teardown of nothing");
    assert_eq!(bed.leftovers().await, Vec::<String>::new(), "left behind after {}", case.name);
}
