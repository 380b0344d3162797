//! The conformance suite of [`Store`]: one list of named cases that every implementation runs, ours and yours.
//!
//! ```
//! use minik8s_core::store::MemoryStore;
//! use std::sync::Arc;
//!
//! # #[tokio::main]
//! # async fn main() {
//! minik8s_core::testkit::store::run_all(|| async { Arc::new(MemoryStore::new()) as _ }).await;
//! # }
//! ```
//!
//! The function that is given opens the store; where the store claims to be durable, calling it again must open the same
//! one. Each case works under a random prefix, runs twice in a row (and once more after a reopen, where that means
//! something), and leaves the store as it was. A capability that the store does not claim is not skipped: the suite then
//! asserts the refusal that the contract documents. `MINIK8S_CASE=part-of-name` runs only the cases of that name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test suite fails by panicking")]

mod basics;
mod durable;
mod expiry;
mod history;
mod ranges;
mod scope;
mod watches;

pub use scope::{Follower, Scope};

use super::suite;
use crate::store::{Store, StoreCapabilities};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// No case takes longer than this on a machine that works.
const BOUND: Duration = Duration::from_secs(60);

/// Opens the store under test.
pub type Opener = Arc<dyn Fn() -> BoxFuture<'static, Arc<dyn Store>> + Send + Sync>;

/// What a case needs a store to be able to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// [`StoreCapabilities::durable`].
    Durable,
    /// [`StoreCapabilities::history`].
    History,
    /// [`StoreCapabilities::expiry`].
    Expiry,
}

impl Needs {
    fn met_by(self, has: StoreCapabilities) -> bool {
        match self {
            Needs::Durable => has.durable,
            Needs::History => has.history,
            Needs::Expiry => has.expiry,
        }
    }
}

/// One case of the suite.
pub type Case = suite::Case<for<'a> fn(&'a mut Scope) -> BoxFuture<'a, ()>, Needs>;

/// Every case.
pub const CASES: &[Case] = suite::cases! {
    basics::a_missing_key_reads_as_none;
    basics::a_created_key_reads_back_with_its_revision;
    basics::creating_an_existing_key_conflicts_with_what_is_there;
    basics::an_update_keeps_the_creation_revision;
    basics::an_update_of_a_stale_revision_conflicts_with_the_current_one;
    basics::an_update_of_a_missing_key_conflicts_with_nothing;
    basics::a_delete_removes_the_key;
    basics::a_delete_of_a_stale_revision_conflicts;
    basics::a_delete_of_a_missing_key_changes_nothing;
    basics::a_key_created_again_has_a_new_creation_revision;
    basics::a_commit_is_all_or_nothing;
    basics::all_keys_of_a_commit_carry_its_revision;
    basics::an_empty_commit_checks_its_preconditions_and_makes_no_revision;
    basics::the_same_key_twice_in_a_commit_is_invalid;
    basics::an_empty_key_is_invalid;
    basics::a_value_over_the_limit_is_refused_and_one_at_the_limit_is_not;
    basics::a_commit_of_too_many_operations_is_refused_and_one_of_just_enough_is_not;
    basics::any_bytes_are_a_value;
    basics::the_revision_strictly_grows_across_keys;
    basics::a_hundred_concurrent_increments_lose_none;
    basics::a_dropped_commit_happened_as_a_whole_or_not_at_all;
    ranges::a_range_is_ordered_by_key;
    ranges::a_prefix_is_not_a_substring;
    ranges::a_prefix_without_a_slash_is_invalid;
    ranges::a_range_of_nothing_is_empty_at_the_newest_revision;
    ranges::pages_are_complete_and_say_what_remains;
    ranges::pages_at_one_revision_do_not_see_later_commits needs History;
    ranges::a_range_is_one_snapshot_while_others_write;
    history::the_past_reads_as_it_was needs History;
    history::the_future_cannot_be_read needs History;
    history::compacted_revisions_are_refused needs History;
    history::compaction_keeps_the_newest_values;
    history::compaction_twice_is_fine_and_of_the_future_is_not;
    history::a_watch_from_a_compacted_revision_is_refused;
    watches::a_watch_from_now_sees_only_what_comes;
    watches::a_watch_from_a_revision_sees_everything_after_it;
    watches::a_watch_from_the_newest_revision_sees_what_comes;
    watches::an_initial_watch_sees_the_state_and_then_changes;
    watches::an_initial_watch_of_nothing_says_so;
    watches::a_watch_of_the_future_is_refused;
    watches::a_watch_prefix_without_a_slash_is_invalid;
    watches::a_watch_prefix_is_not_a_substring;
    watches::a_commit_arrives_as_one_batch;
    watches::a_batch_holds_only_what_is_watched;
    watches::puts_tell_creation_from_change;
    watches::a_delete_event_carries_the_last_value_and_the_new_revision;
    watches::a_refused_commit_makes_no_event;
    watches::order_equals_revision_order_under_concurrent_writers;
    watches::a_reconnecting_watch_has_no_gap_and_no_duplicate;
    watches::many_watchers_see_the_same;
    watches::a_dropped_watch_disturbs_nobody;
    watches::a_quiet_watch_learns_of_progress;
    expiry::a_key_vanishes_after_its_lifetime needs Expiry;
    expiry::a_write_without_lifetime_ends_expiry needs Expiry;
    expiry::a_later_write_with_lifetime_extends_it needs Expiry;
    durable::a_reopened_store_has_its_data_and_revision needs Durable;
    durable::a_reopened_store_does_not_lose_events_silently needs Durable;
    durable::a_reopened_store_stays_compacted needs Durable, History;
    durable::lifetimes_end_after_a_reopen needs Durable, Expiry;
    // Last, because it leaves a long history behind.
    watches::a_slow_watcher_is_cut_and_nobody_waits_for_it;
};

/// Runs every case against the store that `open` opens.
///
/// # Panics
/// Where cases fail, with the name of each.
pub async fn run_all<F, Fut>(open: F)
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Arc<dyn Store>> + Send + 'static,
{
    let opener: Opener = Arc::new(move || open().boxed());
    suite::run("store", CASES, BOUND, |case| attempt(case, opener.clone())).await;
}

async fn attempt(case: &Case, opener: Opener) {
    let mut scope = Scope::open(opener).await;
    let has = scope.store().capabilities();
    if let Some(missing) = case.needs.iter().find(|need| !need.met_by(has)) {
        assert_refusal(*missing, &scope).await;
        return scope.close().await;
    }
    for _ in 0..2 {
        (case.run)(&mut scope).await;
        scope.clean_up().await;
    }
    if has.durable {
        scope.reopen().await;
        (case.run)(&mut scope).await;
    }
    scope.close().await;
}

async fn assert_refusal(missing: Needs, scope: &Scope) {
    match missing {
        Needs::History => history::assert_refused(scope).await,
        Needs::Expiry => expiry::assert_refused(scope).await,
        // What is not durable promises nothing about a reopen, so there is nothing to hold it to.
        Needs::Durable => {}
    }
}
