//! The processes of a job: those of the session that its wrapper leads.

use super::record::Record;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(20);

/// A process and when it began, so that a number that is used again means nobody else.
fn leader(record: &Record) -> Option<(i32, u64)> {
    let text = record.text("pid").ok()??;
    let (pid, began) = text.split_once(' ')?;
    Some((pid.parse().ok()?, began.parse().ok()?))
}

/// Session, start and state of a process.
fn look(pid: i32) -> Option<(i32, u64, char)> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in the middle may hold anything.
fn parse(stat: &str) -> Option<(i32, u64, char)> {
    let words: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((words.get(3)?.parse().ok()?, words.get(19)?.parse().ok()?, words.first()?.chars().next()?))
}

/// True while its wrapper lives.
pub(super) fn lives(record: &Record) -> bool {
    let Some((pid, began)) = leader(record) else { return false };
    look(pid).is_some_and(|(_, start, state)| start == began && !matches!(state, 'Z' | 'X'))
}

/// Everything in its session that lives. Once the leader is gone its number may mean another session, which is told by
/// the directory that all of ours work in or descend from.
fn all(record: &Record) -> Vec<i32> {
    let Some((session, began)) = leader(record) else { return Vec::new() };
    let known = look(session).is_none_or(|(_, start, _)| start == began);
    if !known {
        return Vec::new();
    }
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = |pid: &i32| {
        look(*pid).is_some_and(|(of, start, state)| of == session && start >= began && !matches!(state, 'Z' | 'X'))
    };
    pids.filter(ours).collect()
}

fn signal(record: &Record, signal: Signal) -> bool {
    let pids = all(record);
    for pid in &pids {
        // Gone meanwhile is as good.
        let _ = kill(Pid::from_raw(*pid), signal);
    }
    !pids.is_empty()
}

/// Stops it, or lets it go on.
pub(super) fn stop(record: &Record, stop: bool) {
    signal(record, if stop { Signal::SIGSTOP } else { Signal::SIGCONT });
}

/// Asks it to end, and makes it end when it does not.
pub(super) fn end(record: &Record, patience: Duration) -> io::Result<()> {
    signal(record, Signal::SIGTERM);
    signal(record, Signal::SIGCONT);
    let until = Instant::now() + patience;
    while !all(record).is_empty() {
        if Instant::now() > until && signal(record, Signal::SIGKILL) && Instant::now() > until + patience * 4 {
            return Err(io::Error::other("processes of the job do not end"));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// What the wrapper is started with: it says who it is, then becomes the wrapper.
pub(super) const START: &str = r#"set -e; cd "$1"; IFS= read -r stat </proc/self/stat; set -- "$1" ${stat##*) }
mk_began=${21}; printf '%s %s\n' "$$" "$mk_began" >.pid.$$; mv -f .pid.$$ pid; exec bash ./job.sh "$1""#;

/// True where a job's directory is there to be run.
pub(super) fn is_runnable(path: &Path) -> bool {
    path.join("job.sh").is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_read_whatever_their_name_is() {
        let stat = "42 (a ) b (c) S 1 40 39 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1 1";
        assert_eq!(parse(stat), Some((39, 777, 'S')));
        assert_eq!(parse("42 (x)"), None);
        let own = look(std::process::id() as i32).expect("this process");
        assert!(own.1 > 0);
    }
}
