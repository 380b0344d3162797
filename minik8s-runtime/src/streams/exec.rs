//! Commands beside the main process. containerd's shim copies between the process and FIFOs; we hold the other ends.

use super::failed;
use super::fifo::make_fifos;
use super::pump::{Pumps, feed_stdin, forward_sizes};
use crate::connection::unavailable;
use crate::containers::{containerd_id, plain_cause, wrong_state};
use crate::runtime::Inner;
use containerd_client::services::v1 as api;
use minik8s_core::runtime::{ExecSpec, RuntimeError, RuntimeResult, StreamSession};
use nix::sys::signal::Signal;
use prost_types::Any;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// Pieces of output, input or sizes on their way; the process waits where more come.
const QUEUE: usize = 16;

/// A process that containerd knows by two names.
#[derive(Clone)]
pub(super) struct ProcessRef {
    pub(super) inner: Arc<Inner>,
    pub(super) cid: String,
    /// Empty for the main process.
    pub(super) exec: String,
}

impl Inner {
    pub(crate) async fn exec(self: &Arc<Self>, id: &str, spec: ExecSpec) -> RuntimeResult<StreamSession> {
        if spec.command.first().is_none_or(String::is_empty) {
            return Err(RuntimeError::Invalid("a command to run is missing".to_owned()));
        }
        let cid = containerd_id(id);
        let (container, process) = tokio::try_join!(self.containerd_record(&cid), self.process(&cid, ""))?;
        let container = container.ok_or_else(|| RuntimeError::NotFound { what: "container", name: id.to_owned() })?;
        wrong_state(id, process.as_ref(), self.files(&cid).started().is_some(), "run a command")?;
        let template = container.spec.map(|s| s.value).unwrap_or_default();
        let process = command_process(&template, &spec).map_err(|e| RuntimeError::Invalid(e.to_string()))?;
        let name = format!("exec-{}", uuid::Uuid::new_v4().simple());
        let dir = self.fifo_dir(&cid).join(&name);
        let process_ref = ProcessRef { inner: self.clone(), cid, exec: name };
        let id = id.to_owned();
        // It goes on where the caller goes away: the session then ends at once, and the process with it.
        let begun = tokio::spawn(async move {
            let session = process_ref.begin(&id, &spec, process, dir.clone()).await;
            if session.is_err() {
                let _ = process_ref.delete().await;
                let _ = std::fs::remove_dir_all(dir);
            }
            session
        });
        let broken = |e: tokio::task::JoinError| RuntimeError::Unavailable {
            operation: "running a command",
            cause: e.to_string(),
        };
        begun.await.map_err(broken)?
    }
}

/// The container's own process with another command: same user, capabilities, environment, directory.
fn command_process(container_spec: &[u8], spec: &ExecSpec) -> serde_json::Result<Vec<u8>> {
    let container: Value = serde_json::from_slice(container_spec)?;
    let mut process = container["process"].clone();
    process["args"] = json!(spec.command);
    process["terminal"] = json!(spec.tty);
    if let Some(env) = process["env"].as_array_mut().filter(|_| spec.tty)
        && !env.iter().any(|e| e.as_str().is_some_and(|e| e.starts_with("TERM=")))
    {
        env.push(json!("TERM=xterm"));
    }
    serde_json::to_vec(&process)
}

impl ProcessRef {
    async fn begin(&self, id: &str, spec: &ExecSpec, process: Vec<u8>, dir: PathBuf) -> RuntimeResult<StreamSession> {
        let [stdin, stdout, stderr] = make_fifos(&dir).map_err(failed("making FIFOs"))?;
        let open = |path: &PathBuf| pipe::OpenOptions::new().open_receiver(path).map_err(failed("opening a FIFO"));
        // Both ends of the input are ours, so that opening never waits for the shim.
        let input = pipe::OpenOptions::new().read_write(true).open_sender(&stdin).map_err(failed("opening a FIFO"))?;
        let outputs = (open(&stdout)?, if spec.tty { None } else { Some(open(&stderr)?) });
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let request = api::ExecProcessRequest {
            container_id: self.cid.clone(),
            exec_id: self.exec.clone(),
            stdin: if spec.stdin { text(&stdin) } else { String::new() },
            stdout: text(&stdout),
            stderr: if spec.tty { String::new() } else { text(&stderr) },
            terminal: spec.tty,
            spec: Some(Any { type_url: PROCESS_TYPE.to_owned(), value: process }),
        };
        let wrong = |status: tonic::Status| RuntimeError::Container {
            operation: "run a command in",
            id: id.to_owned(),
            cause: plain_cause(status.message()).to_owned(),
        };
        let connection = &self.inner.connection;
        connection.tasks().exec(connection.request(request)).await.map_err(wrong)?;
        let start = api::StartRequest { container_id: self.cid.clone(), exec_id: self.exec.clone() };
        connection.tasks().start(connection.request(start)).await.map_err(wrong)?;
        // The shim holds the other ends now, so an end of file is one.
        Ok(self.clone().converse(spec, input, outputs, dir))
    }

    fn converse(
        self,
        spec: &ExecSpec,
        input: pipe::Sender,
        outputs: (pipe::Receiver, Option<pipe::Receiver>),
        dir: PathBuf,
    ) -> StreamSession {
        let (output_tx, output) = mpsc::channel(QUEUE);
        let (exit_tx, exit) = oneshot::channel();
        let stdin = spec.stdin.then(|| {
            let (tx, rx) = mpsc::channel(QUEUE);
            tokio::spawn(feed_stdin(self.clone(), rx, input));
            tx
        });
        let resize = spec.tty.then(|| {
            let (tx, rx) = mpsc::channel(QUEUE);
            tokio::spawn(forward_sizes(self.clone(), rx));
            tx
        });
        tokio::spawn(async move {
            let mut exit_tx = exit_tx;
            let pumps = Pumps::start(outputs.0, outputs.1, output_tx.clone());
            let code = tokio::select! {
                code = self.wait() => code,
                // Nobody listens any more, to output or end: the command dies with its session.
                () = async { output_tx.closed().await; exit_tx.closed().await } => {
                    let _ = self.kill(Signal::SIGKILL).await;
                    self.wait().await
                }
            };
            drop(output_tx);
            pumps.drain().await;
            let _ = exit_tx.send(code);
            // The shim may take its time to let go of outputs that a child still holds.
            let _ = self.delete().await;
            let _ = std::fs::remove_dir_all(dir);
        });
        StreamSession { stdin, output, resize, exit }
    }

    pub(super) async fn wait(&self) -> RuntimeResult<i32> {
        let request = api::WaitRequest { container_id: self.cid.clone(), exec_id: self.exec.clone() };
        let connection = &self.inner.connection;
        let ended =
            connection.tasks().wait(connection.request(request)).await.map_err(unavailable("waiting for a command"))?;
        Ok(i32::try_from(ended.into_inner().exit_status).unwrap_or(255))
    }

    async fn kill(&self, signal: Signal) -> Result<(), tonic::Status> {
        let request = api::KillRequest {
            container_id: self.cid.clone(),
            exec_id: self.exec.clone(),
            signal: u32::try_from(signal as i32).unwrap_or_default(),
            all: false,
        };
        let connection = &self.inner.connection;
        connection.tasks().kill(connection.request(request)).await.map(drop)
    }

    pub(super) async fn close_stdin(&self) {
        let request = api::CloseIoRequest { container_id: self.cid.clone(), exec_id: self.exec.clone(), stdin: true };
        let connection = &self.inner.connection;
        let _ = connection.tasks().close_io(connection.request(request)).await;
    }

    pub(super) async fn resize(&self, width: u16, height: u16) {
        let (container_id, exec_id) = (self.cid.clone(), self.exec.clone());
        let request = api::ResizePtyRequest { container_id, exec_id, width: width.into(), height: height.into() };
        let connection = &self.inner.connection;
        let _ = connection.tasks().resize_pty(connection.request(request)).await;
    }

    async fn delete(&self) -> Result<(), tonic::Status> {
        let request = api::DeleteProcessRequest { container_id: self.cid.clone(), exec_id: self.exec.clone() };
        let connection = &self.inner.connection;
        connection.tasks().delete_process(connection.request(request)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_keeps_all_but_the_command() {
        let container =
            br#"{"process":{"args":["a"],"terminal":false,"user":{"uid":5,"gid":6},"env":["A=b"],"cwd":"/w"}}"#;
        let spec = ExecSpec { command: vec!["ls".into()], tty: true, stdin: false };
        let process: Value = serde_json::from_slice(&command_process(container, &spec).expect("json")).expect("json");
        let want =
            json!({"args":["ls"],"terminal":true,"user":{"uid":5,"gid":6},"env":["A=b","TERM=xterm"],"cwd":"/w"});
        assert_eq!(process, want);
    }
}
