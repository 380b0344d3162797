//! Writing container logs: a small process per container, started by containerd's shim, so that it outlives everyone
//! but the container. It reads the container's outputs and appends lines in CRI format to a file that it rotates.
//!
//! containerd starts it as `<program> container-log <order>`, with standard output on descriptor 3, standard error on 4,
//! and waits until it closes 5. A log that cannot be written loses lines and stops nobody. It ends when both outputs are closed, or, told to terminate, when they are empty.

mod lines;
mod order;
mod writer;

pub use order::{Order, VERB};

use lines::LineBuffer;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;
use writer::LogWriter;

/// Bytes read at once; longer lines are split at this size, as CRI writers do.
const CHUNK: usize = 16 * 1024;

/// Runs the log driver where this process was started as one, and returns its exit code; `None` otherwise. A program
/// that is its own log driver calls this before anything else in `main`, and before it starts any thread.
pub fn run_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some(VERB) {
        return None;
    }
    let done = args.next().ok_or_else(|| io::Error::other("the order is missing")).and_then(|order| run(&order));
    Some(if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(order: &str) -> io::Result<()> {
    let order: Order = order.parse()?;
    let signals = SignalFd::with_flags(&blocked_signals()?, SfdFlags::SFD_CLOEXEC)?;
    // Opening the pipes anew needs no raw descriptors; a writer's end of file shows on every reader.
    let mut sources = match &order.fifos {
        Some((out, err)) => vec![Source::open(out, "stdout", &order)?, Source::open(err, "stderr", &order)?],
        None => vec![
            Source::open("/proc/self/fd/3".as_ref(), "stdout", &order)?,
            Source::open("/proc/self/fd/4".as_ref(), "stderr", &order)?,
        ],
    };
    let mut writer = LogWriter::open(&order)?;
    if order.fifos.is_none() {
        nix::unistd::close(5)?;
    }
    copy(&mut sources, &mut writer, &signals)
}

fn blocked_signals() -> io::Result<SigSet> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE] {
        set.add(signal);
    }
    set.thread_block()?;
    Ok(set)
}

fn copy(sources: &mut Vec<Source>, writer: &mut LogWriter, signals: &SignalFd) -> io::Result<()> {
    let mut leaving = false;
    while !sources.is_empty() {
        let timeout = if leaving { PollTimeout::ZERO } else { PollTimeout::NONE };
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(sources.iter().map(|s| PollFd::new(s.file.as_fd(), PollFlags::POLLIN)));
        let ready = match poll(&mut fds, timeout) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        let fired: Vec<bool> = fds.iter().map(|f| f.any().unwrap_or(false)).collect();
        if ready == 0 || (leaving && !fired.iter().skip(1).any(|f| *f)) {
            break;
        }
        leaving |= fired.first().copied().unwrap_or(false);
        let mut open = fired.iter().skip(1);
        let mut keep = Vec::with_capacity(sources.len());
        for source in sources.drain(..) {
            let fired = open.next().copied().unwrap_or(false);
            if let Some(source) = if fired { source.pump(writer)? } else { Some(source) } {
                keep.push(source);
            }
        }
        *sources = keep;
    }
    sources.drain(..).for_each(|s| s.finish(writer));
    Ok(())
}

/// One output of the container.
struct Source {
    file: File,
    lines: LineBuffer,
}

impl Source {
    fn open(path: &std::path::Path, stream: &'static str, order: &Order) -> io::Result<Self> {
        // Without blocking: a FIFO has no writer before the container starts, and may never get one.
        let file = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
        Ok(Self { file, lines: LineBuffer::new(stream, order.eager) })
    }

    /// Takes what is there; `None` at its end.
    fn pump(mut self, writer: &mut LogWriter) -> io::Result<Option<Self>> {
        let mut chunk = [0u8; CHUNK];
        match self.file.read(&mut chunk) {
            Ok(0) => {
                self.finish(writer);
                Ok(None)
            }
            Ok(n) => {
                let text = chunk.get(..n).unwrap_or_default();
                self.lines.feed(text, &mut |entry| writer.append(entry));
                writer.flush();
                Ok(Some(self))
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => Ok(Some(self)),
            Err(e) => Err(e),
        }
    }

    fn finish(mut self, writer: &mut LogWriter) {
        self.lines.finish(&mut |entry| writer.append(entry));
        writer.flush();
    }
}
