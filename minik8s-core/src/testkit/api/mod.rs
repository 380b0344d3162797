//! The conformance suite of the API: one list of named cases against any [`Transport`](crate::client::Transport), be it
//! the server itself, gRPC, or a wrapper of yours.
//!
//! ```
//! use minik8s_core::server::ApiServer;
//! use minik8s_core::store::MemoryStore;
//! use std::sync::Arc;
//!
//! # #[tokio::main]
//! # async fn main() {
//! let server = ApiServer::builder(Arc::new(MemoryStore::new())).start().await.expect("an empty store");
//! minik8s_core::testkit::api::run_all(server).await;
//! # }
//! ```
//!
//! Each case works in a namespace of its own, which it leaves empty or with what it made; run the suite against a
//! cluster without controllers. `MINIK8S_CASE=part-of-name` runs only the cases of that name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test suite fails by panicking")]

mod actions;
mod kinds;
mod lifecycle;
mod lists;
mod names;
mod objects;
mod patches;
mod watches;
mod world;

pub use world::{Changes, World};

use super::suite;
use crate::client::SharedTransport;
use futures::future::BoxFuture;
use std::time::Duration;

/// No case takes longer than this on a machine that works.
const BOUND: Duration = Duration::from_secs(60);

/// What a case may need of a transport: nothing, for all can do everything.
pub type Needs = std::convert::Infallible;

/// One case of the suite.
pub type Case = suite::Case<for<'a> fn(&'a World) -> BoxFuture<'a, ()>, Needs>;

/// Every case.
pub const CASES: &[Case] = suite::cases! {
    objects::create_fills_identity_and_get_shows_it;
    objects::create_twice_is_refused;
    objects::create_needs_a_living_namespace;
    objects::create_refuses_a_revision_and_ignores_foreign_identity;
    objects::generated_names_differ;
    objects::dry_run_changes_nothing;
    objects::update_honours_the_revision_and_keeps_it_without_change;
    objects::update_checks_name_namespace_and_uid;
    objects::unknown_resources_and_bodies_are_told_apart;
    objects::status_and_the_rest_change_apart;
    objects::generation_counts_changes_of_the_spec;
    names::names_with_a_common_prefix_stay_apart;
    names::two_namespaces_hold_the_same_names;
    names::bad_names_name_the_field;
    lists::label_selectors_are_a_conjunction;
    lists::field_selectors_pick_and_unknown_ones_are_refused;
    lists::pages_show_the_revision_of_the_first;
    lists::revisions_of_lists_mean_what_they_say;
    lists::bad_tokens_and_selectors_are_refused;
    watches::a_watch_goes_on_from_a_list;
    watches::a_watch_without_revision_begins_with_the_state;
    watches::a_streaming_list_ends_with_a_bookmark;
    watches::objects_enter_and_leave_a_selection;
    watches::deletions_carry_the_last_state_and_a_new_revision;
    watches::a_watch_ends_at_its_timeout;
    watches::a_watch_from_another_history_is_told_to_list;
    watches::a_watch_of_one_object_sees_only_that;
    watches::a_nodes_watch_sees_its_own_pods_only;
    patches::merge_and_json_patches_change_parts;
    patches::a_patch_that_names_a_revision_honours_it;
    patches::concurrent_patches_lose_nothing;
    patches::identity_cannot_be_patched;
    lifecycle::finalizers_hold_an_object;
    lifecycle::preconditions_guard_a_deletion;
    lifecycle::propagation_is_written_as_a_finalizer;
    lifecycle::a_namespace_goes_when_it_is_finalized;
    lifecycle::deletecollection_deletes_what_it_picks;
    actions::a_pod_is_bound_once;
    actions::a_binding_for_another_of_the_same_name_is_refused;
    actions::a_scheduled_pod_goes_with_grace;
    actions::eviction_deletes;
    actions::scale_reads_and_writes_replicas;
    actions::tokens_are_refused_clearly;
    kinds::pods_get_the_defaults_of_the_real_server;
    kinds::bad_pods_name_every_field;
    kinds::pods_change_their_image_and_little_else;
    kinds::services_get_addresses_and_ports_of_their_own;
    kinds::one_of_many_gets_the_cluster_ip;
    kinds::headless_and_external_services_get_no_address;
    kinds::secrets_keep_plain_text_as_data;
    kinds::events_of_both_groups_are_one_store;
    kinds::a_selector_must_pick_its_template;
    kinds::unknown_fields_warn_or_refuse;
};

/// Runs every case against a transport.
///
/// # Panics
/// Where a case fails; the message names all that did.
pub async fn run_all(transport: SharedTransport) {
    suite::run("API", CASES, BOUND, |case| attempt(case, transport.clone())).await;
}

async fn attempt(case: &Case, transport: SharedTransport) {
    let world = World::new(transport, case.name).await;
    (case.run)(&world).await;
}
