//! The lines of an answer about jobs, in the forms of several versions of Slurm. Pure.

use crate::script::Left;
use jiff::Timestamp;
use std::collections::HashMap;

/// One row about a job, or about a task of an array.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// The job, or the array.
    pub(super) id: String,
    /// The task; a list of those that wait (`2-5%2`), or nothing.
    pub(super) task: String,
    /// `CANCELLED by 1001` is `CANCELLED`.
    pub(super) state: String,
    pub(super) reason: String,
    pub(super) nodes: String,
    pub(super) name: String,
    pub(super) start: Option<Timestamp>,
    pub(super) end: Option<Timestamp>,
    pub(super) restarts: u32,
    /// Exit code and signal, where they are told.
    pub(super) exit: Option<(i32, i32)>,
}

/// What was answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Answer {
    /// The time there.
    pub(super) now: Option<Timestamp>,
    /// Rows of `squeue`, by job or array.
    pub(super) queue: HashMap<String, Vec<Row>>,
    /// Rows of `sacct`.
    pub(super) accounting: HashMap<String, Vec<Row>>,
    /// Exit codes that `scontrol` told.
    pub(super) exits: HashMap<String, (i32, i32)>,
    /// Names whose files are gone.
    pub(super) gone: Vec<String>,
    /// Who runs a job, by name.
    pub(super) claims: HashMap<String, String>,
    /// Tasks of arrays, by name.
    pub(super) tasks: HashMap<String, Vec<u32>>,
    /// What wrappers left behind, by name and task.
    pub(super) left: HashMap<(String, Option<u32>), Left>,
    /// Sizes of output files, by name of the job.
    pub(super) sizes: HashMap<String, Vec<(String, u64)>>,
    /// The batch system does not answer.
    pub(super) away: Option<String>,
}

/// Reads an answer; lines that are not understood are passed over, as sites print what they like at login.
pub(super) fn answer(text: &str) -> Answer {
    let mut answer = Answer::default();
    for line in text.lines() {
        let Some((kind, rest)) = line.split_once('|') else { continue };
        // A line that makes no sense says nothing.
        let _ = one(&mut answer, kind, rest);
    }
    answer
}

fn one(answer: &mut Answer, kind: &str, rest: &str) -> Option<()> {
    match kind {
        "N" => answer.now = time(rest),
        "Q" => {
            let row = queue_row(rest)?;
            answer.queue.entry(row.id.clone()).or_default().push(row);
        }
        "S" => {
            let row = accounting_row(rest)?;
            answer.accounting.entry(row.id.clone()).or_default().push(row);
        }
        "T" => {
            let field = |name: &str| rest.split_whitespace().find_map(|word| word.strip_prefix(name));
            answer.exits.insert(field("JobId=")?.to_owned(), exit(field("ExitCode=")?)?);
        }
        "G" => answer.gone.push(rest.to_owned()),
        "C" => {
            let (name, claim) = rest.split_once('|')?;
            answer.claims.insert(name.to_owned(), claim.to_owned());
        }
        "A" => {
            let (name, list) = rest.split_once('|')?;
            let list = list.split(',').filter_map(|index| index.parse().ok()).collect();
            answer.tasks.insert(name.to_owned(), list);
        }
        "E" => {
            let (path, line) = rest.split_once('|')?;
            let (name, file) = path.split_once('/')?;
            let task = file.strip_prefix("exit.").map(str::parse).transpose().ok()?;
            answer.left.insert((name.to_owned(), task), Left::parse(line)?);
        }
        "F" => {
            let (size, path) = rest.split_once('|')?;
            let (name, file) = path.split_once('/')?;
            answer.sizes.entry(name.to_owned()).or_default().push((file.to_owned(), size.parse().ok()?));
        }
        "X" => answer.away = Some(rest.trim().to_owned()),
        _ => {}
    }
    Some(())
}

/// Array or job, task, state, start, end, nodes, name, restarts, reason.
fn queue_row(line: &str) -> Option<Row> {
    let parts: Vec<&str> = line.splitn(9, '|').collect();
    let [id, task, state, start, end, nodes, name, restarts, reason] = parts.as_slice() else { return None };
    Some(Row {
        id: number(id)?,
        task: known(task),
        state: state.split_whitespace().next()?.to_owned(),
        reason: reason.trim_end_matches('|').trim().trim_matches(['(', ')']).to_owned(),
        nodes: known(nodes),
        name: (*name).to_owned(),
        start: time(start),
        end: time(end),
        restarts: restarts.trim().parse().unwrap_or(0),
        exit: None,
    })
}

/// Job (`12`, `12_3`, `12_[4-6]`), state, exit code, nodes, start, end, name.
fn accounting_row(line: &str) -> Option<Row> {
    let parts: Vec<&str> = line.splitn(7, '|').collect();
    let [job, state, code, nodes, start, end, name] = parts.as_slice() else { return None };
    let (id, task) = job.split_once('_').unwrap_or((job, ""));
    Some(Row {
        id: number(id)?,
        task: task.trim_matches(['[', ']']).to_owned(),
        state: state.split_whitespace().next()?.trim_end_matches('+').to_owned(),
        reason: String::new(),
        nodes: known(nodes),
        name: (*name).to_owned(),
        start: time(start),
        end: time(end),
        restarts: 0,
        exit: exit(code),
    })
}

fn number(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.to_owned())
}

fn known(text: &str) -> String {
    let text = text.trim();
    if matches!(text, "N/A" | "(null)" | "None assigned" | "None") { String::new() } else { text.to_owned() }
}

/// Seconds, where the site honours our wish; else the usual form, which is local time and taken for none.
fn time(text: &str) -> Option<Timestamp> {
    text.trim()
        .parse::<i64>()
        .ok()
        .filter(|seconds| *seconds > 0)
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
}

/// `3:0` is exit code and signal; older versions tell the raw status of a process.
pub(super) fn exit(text: &str) -> Option<(i32, i32)> {
    let text = text.trim();
    if let Some((code, signal)) = text.split_once(':') {
        return Some((code.parse().ok()?, signal.parse().ok()?));
    }
    let raw: i32 = text.parse().ok()?;
    Some((raw >> 8, raw & 0x7f))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> Option<Timestamp> {
        Timestamp::from_second(seconds).ok()
    }

    #[test]
    fn rows_of_a_queue_are_read() {
        let text = "Welcome to the cluster | have fun\nN|1700000100\n\
            Q|12|N/A|RUNNING|1700000000|1700000300|gpu[1-2]|mk8s-a-1|0|None|\n\
            Q|13|2-5%2|PENDING|N/A|N/A||mk8s-b-1|1|(Resources)|\n\
            Q|14|3|CANCELLED by 1001|1700000000|1700000001|gpu1|mk8s-c-1|0|Some words here|\n\
            Q|15|N/A|COMPLETED|2026-01-01T00:00:00|Unknown|(null)|mk8s-d-1|0|None|\nQ|broken\n";
        let answer = answer(text);
        assert_eq!((answer.now, answer.queue.len()), (at(1_700_000_100), 4));
        let row = |id: &str| answer.queue[id][0].clone();
        let first = row("12");
        assert_eq!(
            (first.state.as_str(), first.nodes.as_str(), first.start),
            ("RUNNING", "gpu[1-2]", at(1_700_000_000))
        );
        assert_eq!((row("13").task.as_str(), row("13").reason.as_str(), row("13").restarts), ("2-5%2", "Resources", 1));
        assert_eq!((row("14").state.as_str(), row("14").reason.as_str()), ("CANCELLED", "Some words here"));
        assert_eq!((row("15").start, row("15").nodes.as_str()), (None, ""));
    }

    #[test]
    fn rows_of_accounting_are_read() {
        let answer = answer(
            "S|12|CANCELLED by 1001|0:0|gpu1|1700000000|1700000009|mk8s-a-1\nS|13_2|TIMEOUT|0:15|gpu1|1700000000|1700000009|mk8s-b-1\n\
             S|13_[3-4]|PENDING|0:0|None assigned|Unknown|Unknown|mk8s-b-1\nS|14|OUT_OF_ME+|0:125|gpu2|1|2|x\nS|sacct: error\n",
        );
        assert_eq!(answer.accounting["12"][0].state, "CANCELLED");
        let tasks: Vec<&str> = answer.accounting["13"].iter().map(|row| row.task.as_str()).collect();
        assert_eq!(tasks, ["2", "3-4"]);
        assert_eq!(answer.accounting["13"][0].exit, Some((0, 15)));
        assert_eq!(answer.accounting["14"][0].state, "OUT_OF_ME");
    }

    #[test]
    fn exit_codes_are_read_in_either_form() {
        for (text, want) in [
            ("3:0", Some((3, 0))),
            ("0:9", Some((0, 9))),
            ("0:125", Some((0, 125))),
            ("256", Some((1, 0))),
            ("15", Some((0, 15))),
            ("768", Some((3, 0))),
            ("", None),
            ("x:y", None),
        ] {
            assert_eq!(exit(text), want, "{text}");
        }
    }

    #[test]
    fn files_and_what_wrappers_left_are_read() {
        let answer = answer(
            "C|mk8s-a-1|12\nA|mk8s-b-1|0,2,3\nE|mk8s-a-1/exit|3 run 12 1700000001\nE|mk8s-b-1/exit.2|0 run 13 1700000002\n\
             E|mk8s-b-1/exit.x|0 run 13 1\nF|10|mk8s-a-1/stdout\nF|0|mk8s-a-1/stderr\nG|mk8s-z-1\nX| slurm is away \n\
             T|JobId=9 JobName=x ExitCode=0:53 Reason=None\n",
        );
        assert_eq!(answer.claims["mk8s-a-1"], "12");
        assert_eq!(answer.tasks["mk8s-b-1"], [0, 2, 3]);
        assert_eq!(answer.left[&("mk8s-a-1".to_owned(), None)].code, 3);
        assert_eq!(answer.left[&("mk8s-b-1".to_owned(), Some(2))].code, 0);
        assert_eq!(answer.left.len(), 2);
        assert_eq!(answer.sizes["mk8s-a-1"], [("stdout".to_owned(), 10), ("stderr".to_owned(), 0)]);
        assert_eq!((answer.gone, answer.away.as_deref()), (vec!["mk8s-z-1".to_owned()], Some("slurm is away")));
        assert_eq!(answer.exits["9"], (0, 53));
    }

    proptest! {
        #[test]
        fn nothing_that_is_printed_breaks_it(text in "([NQSTGCAEFX]\\|[ -~]{0,60}\n|[ -~é]{0,40}\n){0,12}") {
            let _ = answer(&text);
        }
    }
}
