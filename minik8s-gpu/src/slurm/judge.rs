//! What rows and files say about a job. Pure. Slurm's word decides how far a job is and why it ended; the file that its
//! wrapper left decides the exit code, and everything once Slurm has forgotten the job.

use super::parse::{Answer, Row};
use minik8s_core::job::{EndReason, FileName, JobEnd, JobHandle, JobReport, JobState, TaskReport};
use std::time::Duration;

/// What is said about one job.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// This.
    Report(Box<JobReport>),
    /// Another job runs it: follow that one.
    Follow(String),
}

/// Judges one job; `native` is what it is called there, which may be another name than that of its handle.
pub(super) fn judge(job: &JobHandle, native: &str, answer: &Answer, grace: Duration) -> Verdict {
    let name = job.id.to_string();
    let own = |row: &&Row| row.name == name || row.name.is_empty();
    let queue: Vec<&Row> = answer.queue.get(native).into_iter().flatten().filter(own).collect();
    let rows = match queue.is_empty() {
        true => answer.accounting.get(native).into_iter().flatten().filter(|row| row.name == name).collect(),
        false => queue,
    };
    let mut report = JobReport::new(&job.id, JobState::Missing);
    report.output = outputs(answer, &name);
    let tasks = answer.tasks.get(&name);
    let seen = Seen { answer, name: &name, native, grace };
    match tasks {
        Some(indices) => array(&mut report, &seen, &rows, indices),
        None => report.state = seen.state(rows.first().copied(), None),
    }
    describe(&mut report, &rows);
    let over = report.state.is_ended() || report.state == JobState::Missing;
    match answer.claims.get(&name) {
        Some(claim) if over && claim != native => Verdict::Follow(claim.clone()),
        _ => Verdict::Report(Box::new(report)),
    }
}

fn outputs(answer: &Answer, name: &str) -> Vec<(FileName, u64)> {
    let sizes = answer.sizes.get(name).into_iter().flatten();
    let known = sizes.filter_map(|(file, size)| Some((FileName::new(file.as_str()).ok()?, *size)));
    let mut known: Vec<_> = known.filter(|(file, _)| file.is_output()).collect();
    known.sort();
    known
}

fn describe(report: &mut JobReport, rows: &[&Row]) {
    // Of an array, the first row that is not over says the most.
    let Some(row) = rows.iter().find(|row| !is_over(&row.state)).or(rows.first()) else { return };
    report.native_state.clone_from(&row.state);
    report.reason.clone_from(&row.reason);
    report.nodes.clone_from(&row.nodes);
    report.restarts = row.restarts;
    match report.state {
        JobState::Queued => report.start_estimate = row.start,
        _ => report.started = row.start,
    }
    if report.state.is_ended() {
        report.ended = row.end;
    }
}

fn is_over(state: &str) -> bool {
    matches!(coarse(state), Coarse::Over(_))
}

/// What a state means before files are looked at.
enum Coarse {
    Waits,
    Runs,
    Stopped,
    Ends,
    Over(Option<EndReason>),
    Odd,
}

/// Every state that Slurm knows, in long and in short.
fn coarse(state: &str) -> Coarse {
    match state {
        "PENDING" | "CONFIGURING" | "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" | "SPECIAL_EXIT" | "RESV_DEL_HOLD"
        | "PD" | "CF" | "RQ" | "RH" | "RF" | "SE" | "RD" | "POWER_UP_NODE" | "RECONFIG_FAIL" => Coarse::Waits,
        "RUNNING" | "SIGNALING" | "RESIZING" | "STAGE_OUT" | "LAUNCH_FAILED" | "UPDATE_DB" | "R" | "SI" | "RS"
        | "SO" => Coarse::Runs,
        "SUSPENDED" | "STOPPED" | "S" | "ST" => Coarse::Stopped,
        "COMPLETING" | "CG" => Coarse::Ends,
        "COMPLETED" | "CD" => Coarse::Over(Some(EndReason::Completed)),
        "FAILED" | "F" => Coarse::Over(None),
        "CANCELLED" | "CA" => Coarse::Over(Some(EndReason::Cancelled)),
        "TIMEOUT" | "TO" | "DEADLINE" | "DL" => Coarse::Over(Some(EndReason::Timeout)),
        // Accounting cuts long words.
        "OUT_OF_MEMORY" | "OUT_OF_ME" | "OOM" => Coarse::Over(Some(EndReason::OutOfMemory)),
        "NODE_FAIL" | "BOOT_FAIL" | "NF" | "BF" => Coarse::Over(Some(EndReason::NodeFailure)),
        "PREEMPTED" | "REVOKED" | "PR" | "RV" => Coarse::Over(Some(EndReason::Preempted)),
        _ => Coarse::Odd,
    }
}

/// Where a job's state is read from.
struct Seen<'a> {
    answer: &'a Answer,
    name: &'a str,
    native: &'a str,
    grace: Duration,
}

impl Seen<'_> {
    /// How far a job is, or a task of an array.
    fn state(&self, row: Option<&Row>, task: Option<u32>) -> JobState {
        let left = self.answer.left.get(&(self.name.to_owned(), task));
        let left = left.filter(|left| self.answer.claims.get(self.name).is_none_or(|claim| *claim == left.native));
        let Some(row) = row else {
            return left.map_or(JobState::Missing, |left| JobState::Ended(left.end()));
        };
        let said = match coarse(&row.state) {
            Coarse::Waits => return JobState::Queued,
            Coarse::Runs => return JobState::Running,
            Coarse::Stopped => return JobState::Suspended,
            Coarse::Ends => return JobState::Finishing,
            Coarse::Odd => return JobState::Unknown,
            Coarse::Over(said) => said,
        };
        match (said, left) {
            (Some(EndReason::Completed) | None, Some(left)) => JobState::Ended(left.end()),
            (Some(EndReason::Completed) | None, None) => self.unsaid(row, said),
            (Some(EndReason::Cancelled), None) if row.reason.starts_with("Dependency") => {
                JobState::Ended(JobEnd::new(EndReason::DependencyFailed, None))
            }
            // It had ended well before somebody ended it.
            (Some(EndReason::Cancelled), Some(left)) => JobState::Ended(left.end()),
            (Some(reason), left) => JobState::Ended(JobEnd::new(reason, left.map(|left| left.code))),
        }
    }

    /// It is over, and its wrapper has left nothing: it never ran, it was killed, or its file is on its way.
    fn unsaid(&self, row: &Row, said: Option<EndReason>) -> JobState {
        let exit = row.exit.or_else(|| self.answer.exits.get(self.native).copied());
        if exit == Some((0, 53)) {
            return JobState::Ended(JobEnd::new(EndReason::LaunchError, None));
        }
        let gone = self.answer.gone.iter().any(|gone| gone == self.name);
        let age = self.answer.now.zip(row.end).map(|(now, end)| now.as_second() - end.as_second());
        let soon = age.is_some_and(|age| age < i64::try_from(self.grace.as_secs()).unwrap_or(i64::MAX));
        if soon && !gone {
            return JobState::Finishing;
        }
        // Its wrapper claims it before all else: it never began. Older versions give that a plain exit code.
        if said.is_none() && !gone && !self.answer.claims.contains_key(self.name) {
            return JobState::Ended(JobEnd::new(EndReason::LaunchError, None));
        }
        let code = exit.map(|(code, signal)| if signal > 0 { 128 + signal } else { code });
        let reason = said.filter(|_| code == Some(0)).unwrap_or(EndReason::Error);
        JobState::Ended(JobEnd::new(reason, code))
    }
}

/// The tasks of an array, and what they make together.
fn array(report: &mut JobReport, seen: &Seen<'_>, rows: &[&Row], indices: &[u32]) {
    let exact = |index: u32| rows.iter().find(|row| row.task.parse() == Ok(index)).copied();
    let waits = rows.iter().find(|row| row.task.contains(['-', ',', '%', '[']) || row.task.is_empty()).copied();
    for index in indices {
        let row = exact(*index).or_else(|| waits.filter(|row| covers(&row.task, *index)));
        report.tasks.push(TaskReport { index: *index, state: seen.state(row, Some(*index)) });
    }
    let states = || report.tasks.iter().map(|task| &task.state);
    let open = [JobState::Running, JobState::Suspended, JobState::Finishing, JobState::Queued, JobState::Unknown];
    let unfinished = open.into_iter().find(|state| states().any(|is| is == state));
    let worst = || states().find(|state| !is_good(state)).or(states().next()).cloned();
    report.state = unfinished.or_else(worst).unwrap_or(JobState::Missing);
}

fn is_good(state: &JobState) -> bool {
    matches!(state, JobState::Ended(end) if end.reason == EndReason::Completed)
}

/// True where `2-5,7%2` has the number.
fn covers(list: &str, index: u32) -> bool {
    let list = list.trim_matches(['[', ']']);
    let list = list.split('%').next().unwrap_or_default();
    list.split(',').any(|part| {
        let (range, step) = part.split_once(':').unwrap_or((part, "1"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last, step) = (first.parse::<u32>(), last.parse::<u32>(), step.parse::<u32>());
        matches!((first, last, step), (Ok(first), Ok(last), Ok(step)) if step > 0 && (first..=last).contains(&index) && (index - first).is_multiple_of(step))
            // Long lists are cut off.
            || range.ends_with("...")
    })
}

#[cfg(test)]
mod tests {
    use super::super::parse::answer;
    use super::*;
    use minik8s_core::job::JobId;

    const GRACE: Duration = Duration::from_secs(15);

    fn handle() -> JobHandle {
        JobHandle::new(&JobId::new("a", 1), "12")
    }

    fn verdict(text: &str) -> Verdict {
        judge(&handle(), "12", &answer(text), GRACE)
    }

    fn state(text: &str) -> JobState {
        match verdict(text) {
            Verdict::Report(report) => report.state,
            other => panic!("{other:?}"),
        }
    }

    fn row(state: &str, reason: &str) -> String {
        format!("N|1700000100\nQ|12|N/A|{state}|1700000000|1700000050|gpu1|mk8s-a-1|0|{reason}|\nC|mk8s-a-1|12\n")
    }

    fn ended(reason: EndReason, code: Option<i32>) -> JobState {
        JobState::Ended(JobEnd::new(reason, code))
    }

    #[test]
    fn every_state_means_something() {
        let killed = "T|JobId=12 ExitCode=0:9\n";
        let table: Vec<(&str, &str, &str, JobState)> = vec![
            ("PENDING", "Resources", "", JobState::Queued),
            ("CONFIGURING", "None", "", JobState::Queued),
            ("REQUEUED", "None", "", JobState::Queued),
            ("REQUEUE_HOLD", "None", "", JobState::Queued),
            ("SPECIAL_EXIT", "None", "", JobState::Queued),
            // After Slurm's list of job states; some are flags that few versions print.
            ("REQUEUE_FED", "None", "", JobState::Queued),
            ("RESV_DEL_HOLD", "ReservationDeleted", "", JobState::Queued),
            ("POWER_UP_NODE", "None", "", JobState::Queued),
            ("RECONFIG_FAIL", "None", "", JobState::Queued),
            ("RESIZING", "None", "", JobState::Running),
            ("SIGNALING", "None", "", JobState::Running),
            ("UPDATE_DB", "None", "", JobState::Running),
            ("LAUNCH_FAILED", "None", "", JobState::Running),
            ("PD", "Resources", "", JobState::Queued),
            ("OOM", "OutOfMemory", "", ended(EndReason::OutOfMemory, None)),
            ("NF", "NodeDown", "", ended(EndReason::NodeFailure, None)),
            ("CANCELLED by 1000", "None", "", ended(EndReason::Cancelled, None)),
            ("RUNNING", "None", "", JobState::Running),
            ("STAGE_OUT", "None", "", JobState::Running),
            ("SUSPENDED", "None", "", JobState::Suspended),
            ("STOPPED", "None", "", JobState::Suspended),
            ("COMPLETING", "None", "", JobState::Finishing),
            ("COMPLETED", "None", "E|mk8s-a-1/exit|0 run 12 1700000050\n", ended(EndReason::Completed, Some(0))),
            ("FAILED", "NonZeroExitCode", "E|mk8s-a-1/exit|3 run 12 1700000050\n", ended(EndReason::Error, Some(3))),
            (
                "FAILED",
                "NonZeroExitCode",
                "E|mk8s-a-1/exit|3 compile 12 1700000050\n",
                ended(EndReason::CompileError, Some(3)),
            ),
            (
                "FAILED",
                "NonZeroExitCode",
                "E|mk8s-a-1/exit|124 timeout 12 1700000050\n",
                ended(EndReason::Timeout, Some(124)),
            ),
            ("FAILED", "RaisedSignal:9(Killed)", killed, ended(EndReason::Error, Some(137))),
            ("FAILED", "JobLaunchFailure", "T|JobId=12 ExitCode=0:53\n", ended(EndReason::LaunchError, None)),
            ("COMPLETED", "None", "T|JobId=12 ExitCode=0:0\n", ended(EndReason::Completed, Some(0))),
            ("CANCELLED", "None", "", ended(EndReason::Cancelled, None)),
            ("CANCELLED", "DependencyNeverSatisfied", "", ended(EndReason::DependencyFailed, None)),
            ("TIMEOUT", "TimeLimit", "", ended(EndReason::Timeout, None)),
            ("DEADLINE", "DeadLine", "", ended(EndReason::Timeout, None)),
            (
                "OUT_OF_MEMORY",
                "OutOfMemory",
                "E|mk8s-a-1/exit|0 run 12 1700000050\n",
                ended(EndReason::OutOfMemory, Some(0)),
            ),
            ("NODE_FAIL", "NodeDown", "", ended(EndReason::NodeFailure, None)),
            ("BOOT_FAIL", "None", "", ended(EndReason::NodeFailure, None)),
            ("PREEMPTED", "None", "", ended(EndReason::Preempted, None)),
            ("REVOKED", "None", "", ended(EndReason::Preempted, None)),
            ("SOMETHING_NEW", "None", "", JobState::Unknown),
        ];
        for (word, reason, more, want) in table {
            assert_eq!(state(&format!("{}{more}", row(word, reason))), want, "{word} {reason} {more}");
        }
    }

    #[test]
    fn what_a_wrapper_leaves_is_waited_for_a_little() {
        let fresh = row("COMPLETED", "None").replace("N|1700000100", "N|1700000055");
        assert_eq!(state(&fresh), JobState::Finishing);
        assert_eq!(state(&row("COMPLETED", "None")), ended(EndReason::Error, None), "never a success without a word");
    }

    #[test]
    fn what_slurm_forgot_is_told_by_accounting_or_by_the_file() {
        let left = "C|mk8s-a-1|12\nE|mk8s-a-1/exit|0 run 12 1700000050\n";
        assert_eq!(state(left), ended(EndReason::Completed, Some(0)));
        assert_eq!(state(""), JobState::Missing);
        let told = "S|12|TIMEOUT|0:15|gpu1|1700000000|1700000050|mk8s-a-1\n";
        assert_eq!(state(told), ended(EndReason::Timeout, None));
        let reused = "Q|12|N/A|RUNNING|1|2|gpu1|somebody-else|0|None|\nS|12|COMPLETED|0:0|gpu1|1|2|old\n";
        assert_eq!(state(reused), JobState::Missing, "numbers are used again");
    }

    #[test]
    fn a_duplicate_leads_to_the_one_that_runs() {
        let text = row("COMPLETED", "None").replace("C|mk8s-a-1|12", "C|mk8s-a-1|13");
        assert_eq!(verdict(&text), Verdict::Follow("13".to_owned()));
    }

    #[test]
    fn arrays_are_as_far_as_their_last_task_and_as_good_as_their_worst() {
        let tasks = |text: &str| match verdict(text) {
            Verdict::Report(report) => (report.state, report.tasks.iter().map(|t| t.state.clone()).collect::<Vec<_>>()),
            other => panic!("{other:?}"),
        };
        let head = "N|1700000100\nA|mk8s-a-1|0,2,3\nC|mk8s-a-1|12\n";
        let one =
            |task: &str, state: &str| format!("Q|12|{task}|{state}|1700000000|1700000050|gpu1|mk8s-a-1|0|None|\n");
        let left = |task: u32, code: i32| format!("E|mk8s-a-1/exit.{task}|{code} run 12 1700000050\n");
        let (state, all) = tasks(&format!("{head}{}{}{}", one("0", "COMPLETED"), one("2-3%1", "PENDING"), left(0, 0)));
        assert_eq!(state, JobState::Queued);
        assert_eq!(all, [ended(EndReason::Completed, Some(0)), JobState::Queued, JobState::Queued]);
        let done = format!("{head}{}{}{}{}", one("2", "FAILED"), left(0, 0), left(2, 7), left(3, 0));
        let (state, _) = tasks(&done);
        assert_eq!(state, ended(EndReason::Error, Some(7)));
        assert_eq!(tasks(head).0, JobState::Missing);
        for (list, index, has) in
            [("2-5%2", 4, true), ("2-5%2", 6, false), ("0-8:4", 4, true), ("0-8:4", 3, false), ("1,7", 7, true)]
        {
            assert_eq!(covers(list, index), has, "{list} {index}");
        }
    }
}
