//! Processes of a host that a test keeps hold of.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// A program that runs on a host, with its output in a file. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(super) fn spawn(mut command: Command, log: PathBuf) -> Self {
        let file = fs::File::options().create(true).append(true).open(&log).expect("a log file");
        let again = file.try_clone().expect("the file a second time");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(again).spawn();
        Self { child: child.unwrap_or_else(|error| panic!("{command:?}: {error}")), log }
    }

    /// Its id as the test's machine counts; `None` where it is not there yet, or not any more.
    pub fn pid(&self) -> Option<u32> {
        let parent = self.child.id();
        fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            (parent_of(pid)? == parent).then_some(pid)
        })
    }

    /// Sends a signal by its name, `TERM`. What ended already is left alone.
    ///
    /// # Panics
    /// Without a shell.
    pub fn signal(&self, signal: &str) {
        if let Some(pid) = self.pid() {
            let _ = Command::new("sh").args(["-c", &format!("kill -{signal} {pid} 2>/dev/null")]).status();
        }
    }

    /// Kills it at once and waits until it is gone; what it started lives on.
    pub fn kill(&mut self) {
        // Whoever waits for it on the host ends with it; where there is nothing to wait for yet, that one dies itself.
        if self.ended().is_none() {
            match self.pid() {
                Some(_) => self.signal("KILL"),
                None => drop(self.child.kill()),
            }
        }
        let _ = self.child.wait();
    }

    /// Asks it to end, and waits until it did.
    ///
    /// # Panics
    /// Where nobody can wait for it.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().expect("a child can be waited for")
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Everything it printed so far, to either output, and its predecessors of the same name before it.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The file with its output.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The fourth field; the second is a name in parentheses, with whatever in it.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}
