//! Processes that are stopped where they stand.

#![allow(clippy::expect_used, reason = "a test that cannot go on must say so")]

use std::process::Command;
use std::time::Duration;

/// Stops a process (`SIGSTOP`), and returns once it does nothing any more: the signal stops each thread when that next looks
/// at it, which on a busy machine may be some answers later.
///
/// # Panics
/// Where there is no such process.
pub fn stop_still(process: u32) {
    let told = Command::new("sh").args(["-c", &format!("kill -STOP {process}")]).status();
    assert!(told.is_ok_and(|status| status.success()), "no process {process} to stop");
    while !stands_still(process) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn stands_still(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("it is there").flatten();
    let stat = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
    // The state comes behind the name, which is in brackets. A thread that has just ended says nothing.
    let stopped = |stat: String| stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'));
    threads.map(stat).all(stopped)
}
