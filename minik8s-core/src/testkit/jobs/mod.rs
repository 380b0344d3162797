//! The conformance suite of [`JobBackend`](crate::job::JobBackend): one list of named cases that every implementation
//! runs, ours and yours.
//!
//! A [`Subject`] says how to open the backend, and how to break it where that can be done. Each case has identities of its
//! own, runs twice, the second time on a backend that was opened anew, and leaves nothing. `MINIK8S_CASE=part-of-name` runs
//! only the cases of that name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test suite fails by panicking")]

mod basics;
mod ends;
mod faults;
mod files;
mod resources;
mod scope;

pub use scope::{Faults, Scope, Subject};

use super::suite;
use crate::job::JobCapabilities;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

/// No case takes longer than this on a machine that works.
const BOUND: Duration = Duration::from_secs(240);

/// What a case needs a backend, or the test bed around it, to be able to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// [`JobCapabilities::suspend`]
    Suspend,
    /// [`JobCapabilities::arrays`]
    Arrays,
    /// [`JobCapabilities::dependencies`]
    Dependencies,
    /// [`JobCapabilities::gpus`]
    Gpus,
    /// [`JobCapabilities::memory_limits`]
    MemoryLimits,
    /// [`JobCapabilities::time_limits`]
    TimeLimits,
    /// The connection can be cut: [`Subject::faults`].
    Outages,
    /// Nodes can be made to fail.
    NodeFailures,
    /// Time limits can be made to pass.
    Expiry,
    /// Queries are counted.
    Queries,
}

/// One case of the suite.
pub type Case = suite::Case<for<'a> fn(&'a mut Scope) -> BoxFuture<'a, ()>, Needs>;

/// Every case.
pub const CASES: &[Case] = suite::cases! {
    basics::a_job_is_handed_over_and_ends_well;
    basics::the_same_identity_twice_runs_once;
    basics::the_same_identity_ten_times_at_once_runs_once;
    basics::states_only_move_forward;
    basics::a_handle_is_found_again_after_a_reopen;
    basics::what_is_unknown_is_missing_and_no_failure;
    basics::a_cancelled_job_ends_as_that;
    basics::cancelling_what_ended_or_never_was_succeeds;
    basics::removing_leaves_nothing_and_works_twice;
    basics::a_job_that_is_removed_while_it_runs_ends;
    basics::what_can_never_run_is_refused;
    basics::a_refused_identity_may_be_tried_again;
    ends::exit_codes_are_reported;
    ends::a_signal_is_128_and_its_number;
    ends::a_failed_preparation_is_told_apart;
    ends::too_long_is_told_apart needs TimeLimits;
    ends::a_passed_limit_is_told_apart needs Expiry;
    ends::too_much_memory_is_told_apart needs MemoryLimits;
    ends::a_failed_node_is_told_apart needs NodeFailures;
    files::output_is_read_while_it_grows_and_afterwards;
    files::output_is_read_from_any_offset;
    files::errors_are_kept_apart_from_output;
    files::source_files_are_there_and_executable;
    files::results_are_complete_and_carry_digests;
    files::links_and_what_lies_outside_are_left_out;
    files::more_results_than_may_be_are_told_by_one;
    files::hostile_texts_arrive_as_they_are;
    files::a_large_output_is_read_in_pieces;
    resources::tasks_of_an_array_have_outputs_and_ends_of_their_own needs Arrays;
    resources::a_job_waits_for_another needs Dependencies;
    resources::what_waits_in_vain_ends needs Dependencies;
    resources::a_stopped_job_goes_on_where_it_was needs Suspend;
    resources::a_job_kept_from_starting_starts_later needs Suspend;
    resources::gpus_are_handed_out_exclusively needs Gpus;
    faults::an_outage_fails_calls_and_no_job needs Outages;
    faults::many_jobs_cost_one_query needs Queries;
};

/// Runs every case against the backend that `subject` opens.
///
/// # Panics
/// Where cases fail, with the name of each.
pub async fn run_all(subject: Subject) {
    let subject = Arc::new(subject);
    suite::run("job backend", CASES, BOUND, |case| attempt(case, subject.clone())).await;
}

async fn attempt(case: &Case, subject: Arc<Subject>) {
    let mut scope = Scope::open(subject.clone()).await;
    let has = scope.backend.capabilities();
    if !case.needs.iter().all(|need| subject.meets(*need, &has)) {
        return resources::assert_refusal(case.needs, &has, &mut scope).await;
    }
    for round in 0..2 {
        if round == 1 {
            scope.reopen().await;
        }
        let run = AssertUnwindSafe((case.run)(&mut scope)).catch_unwind().await;
        scope.clean_up().await;
        if let Err(panic) = run {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Subject {
    fn meets(&self, need: Needs, has: &JobCapabilities) -> bool {
        match need {
            Needs::Suspend => has.suspend,
            Needs::Arrays => has.arrays,
            Needs::Dependencies => has.dependencies,
            Needs::Gpus => has.gpus,
            Needs::MemoryLimits => has.memory_limits,
            Needs::TimeLimits => has.time_limits,
            Needs::Outages | Needs::NodeFailures | Needs::Expiry | Needs::Queries => {
                self.faults.as_ref().is_some_and(|faults| faults.can(need))
            }
        }
    }
}
