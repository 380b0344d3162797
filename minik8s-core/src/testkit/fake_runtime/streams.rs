//! Commands in containers: scripted answers, a few words of shell, or an echo of the command line.

use super::containers::wrong_state;
use super::shell::World;
use super::{ExecAnswer, FakeOp, FakeRuntime, not_found};
use crate::runtime::{Connection, ContainerState, ExecSpec, Output, RuntimeResult, StreamSession, Streams};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, oneshot};

/// Pieces of output a session buffers.
const BUFFER: usize = 64;

impl FakeRuntime {
    fn command(&self, id: &str, spec: &ExecSpec) -> RuntimeResult<(World, Option<ExecAnswer>, mpsc::Receiver<Output>)> {
        let state = self.inner.state.lock();
        let container = state.containers.get(id).ok_or_else(|| not_found("container", id))?;
        if container.info.state != ContainerState::Running {
            return Err(wrong_state(id, "not running", "run a command in it"));
        }
        let line = spec.command.join(" ");
        let answer =
            state.answers.iter().rev().find(|(which, text, _)| which.matches(&container.spec) && line.contains(text));
        let hostname = state.sandboxes.get(&container.info.sandbox).map(|s| s.spec.hostname.clone());
        // What is printed meets a bounded channel at the far end only: a command's output is small.
        let (out, pieces) = unbounded(BUFFER);
        let tty = spec.tty;
        let world = World {
            spec: container.spec.clone(),
            hostname: hostname.unwrap_or_default(),
            main: false,
            trap: Mutex::new(None),
            out: Box::new(move |piece| {
                let piece = match piece {
                    Output::Stderr(bytes) if tty => Output::Stdout(bytes),
                    piece => piece,
                };
                let _ = out.send(piece);
            }),
        };
        Ok((world, answer.map(|(_, _, a)| a.clone()), pieces))
    }
}

/// An unbounded sender in front of a bounded receiver.
fn unbounded(size: usize) -> (mpsc::UnboundedSender<Output>, mpsc::Receiver<Output>) {
    let (first, mut second) = mpsc::unbounded_channel();
    let (sender, receiver) = mpsc::channel(size);
    tokio::spawn(async move {
        while let Some(piece) = second.recv().await {
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    (first, receiver)
}

async fn play(
    world: World,
    spec: ExecSpec,
    answer: Option<ExecAnswer>,
    mut stdin: Option<mpsc::Receiver<Bytes>>,
) -> i32 {
    let Some(answer) = answer else { return world.run(&spec.command, &mut stdin).await };
    tokio::time::sleep(answer.after).await;
    if !answer.stdout.is_empty() {
        (world.out)(Output::Stdout(answer.stdout.into()));
    }
    if !answer.stderr.is_empty() {
        (world.out)(Output::Stderr(answer.stderr.into()));
    }
    answer.code
}

#[async_trait]
impl Streams for FakeRuntime {
    async fn exec(&self, id: &str, spec: ExecSpec) -> RuntimeResult<StreamSession> {
        self.inner.call(FakeOp::Exec, id).await?;
        if spec.command.is_empty() {
            return Err(crate::runtime::RuntimeError::Invalid("the command is empty".into()));
        }
        let (world, answer, pieces) = self.command(id, &spec)?;
        let (stdin, input) = mpsc::channel(BUFFER);
        let (done, exit) = oneshot::channel();
        let wants_input = spec.stdin;
        let resize = spec.tty.then(|| mpsc::channel(1).0);
        let control = self.inner.state.lock().containers.get(id).and_then(|c| c.control.clone());
        tokio::spawn(async move {
            let mut done = done;
            let input = wants_input.then_some(input);
            let gone = async {
                match control {
                    Some(control) => control.ended.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            let code = tokio::select! {
                code = play(world, spec, answer, input) => code,
                () = done.closed() => return,
                () = gone => 137,
            };
            let _ = done.send(Ok(code));
        });
        Ok(StreamSession { stdin: wants_input.then_some(stdin), output: pieces, resize, exit })
    }

    async fn attach(&self, id: &str, stdin: bool) -> RuntimeResult<StreamSession> {
        self.inner.call(FakeOp::Attach, id).await?;
        let inner = self.inner.clone();
        let (control, takes_input) = {
            let state = inner.state.lock();
            let container = state.containers.get(id).ok_or_else(|| not_found("container", id))?;
            let control = container.control.clone().ok_or_else(|| wrong_state(id, "not running", "attach"))?;
            (control, container.spec.stdin)
        };
        let mut pieces = control.output.subscribe();
        let (sender, output) = mpsc::channel(BUFFER);
        let (done, exit) = oneshot::channel();
        let input = (stdin && takes_input).then(|| control.stdin.lock().clone()).flatten();
        let id = id.to_owned();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    piece = pieces.recv() => match piece {
                        Ok(piece) => if sender.send(piece).await.is_err() { return },
                        Err(broadcast::error::RecvError::Lagged(_)) => {}
                        Err(broadcast::error::RecvError::Closed) => break,
                    },
                    () = control.ended.cancelled() => break,
                    () = sender.closed() => return,
                }
            }
            let state = inner.state.lock();
            let code = match state.containers.get(&id).map(|c| &c.info.state) {
                Some(ContainerState::Exited(exit)) => exit.code,
                _ => 137,
            };
            drop(state);
            let _ = done.send(Ok(code));
        });
        Ok(StreamSession { stdin: input, output, resize: None, exit })
    }
    async fn connect(&self, sandbox: &str, port: u16) -> RuntimeResult<Connection> {
        self.inner.call(FakeOp::Connect, sandbox).await?;
        Ok(Box::new(self.dial(sandbox, port)?))
    }
}
