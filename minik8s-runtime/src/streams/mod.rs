//! Input and output of processes: FIFOs for commands and open standard inputs, the log driver for the rest. And
//! connections to their ports.

mod attach;
mod connect;
mod exec;
mod fifo;
mod pump;
mod tail;

use crate::containers::{Record, TaskIo};
use crate::log_driver::{Order, VERB};
use crate::runtime::Inner;
use fifo::make_fifos;
use minik8s_core::runtime::{RuntimeError, RuntimeResult};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn failed(operation: &'static str) -> impl Fn(std::io::Error) -> RuntimeError {
    move |e| RuntimeError::Unavailable { operation, cause: e.to_string() }
}

impl Inner {
    /// Directory of a container's FIFOs.
    pub(crate) fn fifo_dir(&self, cid: &str) -> PathBuf {
        self.config.state.join("io").join(cid)
    }

    /// Ends the log driver of a container with open input, should it still wait for a writer, and removes its FIFOs.
    pub(crate) fn remove_fifos(&self, cid: &str) {
        let dir = self.fifo_dir(cid);
        for name in ["stdout", "stderr"] {
            // A writer that comes and goes is an end of file for the reader.
            let _ = fifo::open_nonblocking(&dir.join(name));
        }
        let _ = std::fs::remove_dir_all(dir);
    }

    /// Where a container's outputs go. containerd starts the log driver itself, except where standard input stays open
    /// without a terminal: its shim then only knows FIFOs, so the driver reads those.
    pub(crate) async fn task_io(&self, cid: &str, record: &Record) -> RuntimeResult<TaskIo> {
        let order = record.log_order();
        let text = |path: &Path| path.to_string_lossy().into_owned();
        if !record.stdin {
            let uri = order.map(|o| o.to_uri(&self.log_driver)).unwrap_or_default();
            return Ok(TaskIo { stdin: String::new(), stdout: uri.clone(), stderr: uri });
        }
        let dir = self.fifo_dir(cid);
        let [stdin, stdout, stderr] = make_fifos(&dir).map_err(failed("making FIFOs"))?;
        if let (true, Some(order)) = (record.tty, &order) {
            let uri = order.to_uri(&self.log_driver);
            return Ok(TaskIo { stdin: text(&stdin), stdout: uri.clone(), stderr: uri });
        }
        if let Some(order) = order {
            self.spawn_log_driver(Order { fifos: Some((stdout.clone(), stderr.clone())), ..order })?;
            return Ok(TaskIo { stdin: text(&stdin), stdout: text(&stdout), stderr: text(&stderr) });
        }
        Ok(TaskIo { stdin: text(&stdin), ..TaskIo::default() })
    }

    /// Its own process group, so that it outlives us.
    fn spawn_log_driver(&self, order: Order) -> RuntimeResult<()> {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(&self.log_driver);
        command.args([VERB, &order.to_argument()]).current_dir("/").env_clear().process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = tokio::process::Command::from(command).spawn().map_err(failed("starting the log driver"))?;
        // Collects it when it ends; where we end first, it belongs to init.
        tokio::spawn(async move { child.wait().await });
        Ok(())
    }
}
