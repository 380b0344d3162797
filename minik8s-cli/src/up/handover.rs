//! A restart that nobody notices: on SIGUSR2 the process ends its work in peace and becomes its successor, which goes on
//! with the gateway's listening sockets. What a service manager opened beforehand (`LISTEN_FDS`) is taken as well.

use crate::output::say;
use anyhow::{Context, Error};
use minik8s_net::gateway::Sockets;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The process that is meant, and descriptors of listening sockets: `PID:5,9`.
const HANDED: &str = "MINIK8S_LISTENERS";
/// The first descriptor that service managers pass.
const FIRST: RawFd = 3;

/// The sockets that were left open for this process.
pub(crate) fn inherited() -> Sockets {
    let var = |name: &str| std::env::var(name).ok();
    let ours = handed(&var(HANDED).unwrap_or_default(), std::process::id());
    let managers = passed(&var("LISTEN_PID").unwrap_or_default(), &var("LISTEN_FDS").unwrap_or_default());
    Sockets::inherited(ours.into_iter().chain(managers).filter_map(listener).collect())
}

fn handed(text: &str, pid: u32) -> Vec<RawFd> {
    let own = text.split_once(':').filter(|(of, _)| of.parse() == Ok(pid));
    own.map(|(_, all)| all.split(',').filter_map(|fd| fd.parse().ok()).collect()).unwrap_or_default()
}

fn passed(pid: &str, count: &str) -> Vec<RawFd> {
    let count = count.parse().unwrap_or(0);
    if pid.parse() == Ok(std::process::id()) { (FIRST..FIRST.saturating_add(count)).collect() } else { Vec::new() }
}

/// The listening socket of a descriptor; `None` where it is something else, or nothing.
fn listener(fd: RawFd) -> Option<TcpListener> {
    let target = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    target.to_str().filter(|target| target.starts_with("socket:"))?;
    // SAFETY: the descriptor is open, and whoever started this process said that it is this process's to own; it is
    // asked for once, before anything else is opened.
    #[allow(unsafe_code, reason = "descriptors that a process begins with have no safe owner")]
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    let listening = nix::sys::socket::getsockopt(&owned, nix::sys::socket::sockopt::AcceptConn).ok()?;
    listening.then(|| TcpListener::from(owned))
}

/// Becomes the same program anew, with the sockets. Returns only where that cannot be.
pub(crate) fn again(sockets: &Sockets) -> Error {
    let kept = sockets.hand_over();
    for socket in &kept {
        if let Err(error) = fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty())) {
            return Error::new(error).context("cannot keep a listening socket open");
        }
    }
    let fds: Vec<String> = kept.iter().map(|socket| socket.as_raw_fd().to_string()).collect();
    let program = match std::env::current_exe().context("cannot tell which program this is") {
        // A newer one may have come in its place.
        Ok(program) => program.to_string_lossy().trim_end_matches(" (deleted)").to_owned(),
        Err(error) => return error,
    };
    say("restarting");
    let mut command = Command::new(&program);
    command.args(std::env::args_os().skip(1)).env(HANDED, format!("{}:{}", std::process::id(), fds.join(",")));
    Error::new(command.exec()).context(format!("cannot start {program} again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_meant_for_this_process_is_taken() {
        assert_eq!(handed("7:5,9", 7), [5, 9]);
        for text in ["8:5,9", "", "7", "7:", "x:5"] {
            assert!(handed(text, 7).is_empty(), "{text}");
        }
        let own = std::process::id().to_string();
        assert_eq!((passed(&own, "2"), passed("1", "2"), passed(&own, "")), (vec![3, 4], vec![], vec![]));
        assert!(listener(9999).is_none());
    }
}
