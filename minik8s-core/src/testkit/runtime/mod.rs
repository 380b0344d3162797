//! The conformance suite of [`Runtime`](crate::runtime::Runtime): one list of named cases that every implementation
//! runs, ours and yours.
//!
//! A [`Subject`] says how to open the runtime and which image there is to run: one with a POSIX shell, the usual small
//! tools, and a user `app` (1000) in the groups `app` (1000), `wheel` (10) and `log` (2000). Each case runs in sandboxes
//! of its own, twice in a row and once more after a reopen, and leaves the runtime as it was. Cases that look at processes
//! need `real_processes`. `MINIK8S_CASE=part-of-name` runs only the cases of that name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test suite fails by panicking")]

mod connections;
mod containers;
mod events;
mod images;
mod isolation;
mod logs;
mod process;
mod sandboxes;
mod scope;
mod streams;

pub use scope::{Scope, Subject};

use super::suite;
use crate::runtime::RuntimeCapabilities;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

/// No case takes longer than this on a machine that works.
const BOUND: Duration = Duration::from_secs(120);

/// What a case needs a runtime to be able to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// [`RuntimeCapabilities::real_processes`]
    RealProcesses,
    /// [`RuntimeCapabilities::share_pids`]
    SharePids,
}

impl Needs {
    fn met_by(self, has: &RuntimeCapabilities) -> bool {
        match self {
            Needs::RealProcesses => has.real_processes,
            Needs::SharePids => has.share_pids,
        }
    }
}

/// One case of the suite.
pub type Case = suite::Case<for<'a> fn(&'a mut Scope) -> BoxFuture<'a, ()>, Needs>;

/// Every case.
pub const CASES: &[Case] = suite::cases! {
    sandboxes::a_sandbox_is_made_once_and_found_again;
    sandboxes::a_sandbox_is_made_and_removed_ten_times;
    sandboxes::removing_what_is_missing_succeeds;
    sandboxes::a_removed_sandbox_takes_its_containers_along;
    sandboxes::a_host_network_sandbox_has_no_network_namespace;
    sandboxes::a_reopened_runtime_finds_its_sandboxes;
    containers::a_container_needs_its_sandbox_and_its_image;
    containers::a_container_moves_from_created_to_running_to_exited;
    containers::creating_twice_is_creating_once;
    containers::a_container_does_not_change_its_sandbox;
    containers::starting_twice_is_starting_once;
    containers::an_ended_container_does_not_start_again;
    containers::a_missing_container_cannot_be_started;
    containers::a_missing_program_is_named_and_counts_as_an_end;
    containers::a_missing_mount_source_is_named;
    containers::root_is_refused_where_it_must_not_be;
    containers::exit_codes_are_reported;
    containers::lists_are_filtered_by_sandbox;
    containers::labels_and_image_are_kept;
    containers::a_stop_ends_a_container_and_works_twice;
    containers::the_shortest_grace_wins;
    containers::a_paused_container_stands_still_and_goes_on;
    containers::a_removed_container_is_gone_and_its_log_stays;
    containers::long_and_odd_container_names_work;
    containers::statistics_need_a_running_container;
    containers::a_reopened_runtime_adopts_running_containers;
    containers::an_end_that_nobody_saw_is_found_after_a_reopen;
    process::a_signal_is_reported_as_128_and_its_number needs RealProcesses;
    process::a_stop_asks_first_and_kills_later needs RealProcesses;
    process::environment_arguments_and_directory_arrive needs RealProcesses;
    process::the_user_comes_from_the_specification_or_the_image needs RealProcesses;
    process::capabilities_are_granted_and_dropped needs RealProcesses;
    process::a_read_only_root_refuses_writes needs RealProcesses;
    process::mounts_are_shared_and_read_only_ones_refuse_writes needs RealProcesses;
    process::limits_are_applied needs RealProcesses;
    process::too_much_memory_is_reported_as_such needs RealProcesses;
    process::statistics_follow_what_is_used needs RealProcesses;
    isolation::containers_of_a_pod_share_network_and_memory needs RealProcesses;
    isolation::two_pods_do_not_see_each_other needs RealProcesses;
    isolation::kernel_parameters_are_the_pods_own needs RealProcesses;
    isolation::shared_process_ids_are_shared needs SharePids, RealProcesses;
    logs::entries_are_in_order_and_carry_time_and_stream;
    logs::a_last_line_without_an_end_is_kept needs RealProcesses;
    logs::long_lines_are_split_and_marked needs RealProcesses;
    logs::a_log_is_rotated_and_loses_nothing needs RealProcesses;
    logs::a_log_goes_on_while_the_runtime_is_away needs RealProcesses;
    streams::a_command_has_output_and_an_exit_code;
    streams::a_command_needs_a_running_container;
    streams::input_reaches_a_command_and_its_end_too needs RealProcesses;
    streams::a_terminal_merges_the_outputs_and_has_a_size needs RealProcesses;
    streams::a_dropped_session_kills_its_command needs RealProcesses;
    streams::a_command_without_a_program_says_so needs RealProcesses;
    streams::an_attached_session_sees_output_and_feeds_input needs RealProcesses;
    streams::leaving_an_attached_session_leaves_the_container needs RealProcesses;
    connections::a_port_is_reached_and_its_directions_end_one_by_one;
    connections::every_sandbox_has_ports_of_its_own;
    connections::a_port_without_a_listener_is_named;
    connections::one_who_does_not_read_is_held_back_and_loses_nothing;
    connections::a_connection_ends_with_its_container;
    connections::a_host_network_sandbox_has_the_ports_of_the_host needs RealProcesses;
    events::every_change_is_announced;
    events::a_lost_end_is_found_by_listing needs RealProcesses;
    images::a_missing_image_is_none_and_a_broken_name_an_error;
    images::an_image_is_found_by_name_and_by_id;
    images::a_pull_that_cannot_work_says_why;
    images::an_archive_is_imported_under_another_name_and_removed;
    images::a_missing_archive_is_named;
};

/// Runs every case against the runtime that `subject` opens.
///
/// # Panics
/// Where cases fail, with the name of each.
pub async fn run_all(subject: Subject) {
    let subject = Arc::new(subject);
    suite::run("runtime", CASES, BOUND, |case| attempt(case, subject.clone())).await;
}

async fn attempt(case: &Case, subject: Arc<Subject>) {
    let mut scope = Scope::open(subject).await;
    let has = scope.runtime.capabilities().await.expect("capabilities");
    if case.needs.iter().any(|need| !need.met_by(&has)) {
        return assert_refusal(case, &has, &scope).await;
    }
    for round in 0..3 {
        if round == 2 {
            scope.reopen().await;
        }
        let run = AssertUnwindSafe((case.run)(&mut scope)).catch_unwind().await;
        scope.clean_up().await;
        if let Err(panic) = run {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Without real processes there is nothing that could be refused; shared process ids are, openly.
async fn assert_refusal(case: &Case, has: &RuntimeCapabilities, scope: &Scope) {
    if case.needs.contains(&Needs::SharePids) && !has.share_pids {
        sandboxes::assert_shared_pids_are_refused(scope).await;
    }
}
