//! Ports of containers: one listens while it runs, if its command line has a word like busybox' server,
//! `nc -ll -p 8080 -e cat`. Each connection has the program behind `-e`, of the few that the fake shell knows.

use super::containers::wrong_state;
use super::process::Control;
use super::script::command_line;
use super::shell::{World, commands};
use super::{FakeRuntime, not_found};
use crate::runtime::{ContainerSpec, ContainerState, Output, RuntimeError, RuntimeResult};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

/// Bytes on their way in each direction.
const BUFFER: usize = 64 << 10;

struct Listener {
    program: Vec<String>,
    spec: ContainerSpec,
    hostname: String,
    control: Arc<Control>,
}

impl FakeRuntime {
    pub(super) fn dial(&self, sandbox: &str, port: u16) -> RuntimeResult<DuplexStream> {
        let listener = self.listener(sandbox, port)?;
        let (near, far) = tokio::io::duplex(BUFFER);
        tokio::spawn(async move {
            let ended = listener.control.ended.clone();
            tokio::select! {
                () = answer(listener, far) => {}
                () = ended.cancelled() => {}
            }
        });
        Ok(near)
    }

    fn listener(&self, id: &str, port: u16) -> RuntimeResult<Listener> {
        let state = self.inner.state.lock();
        let sandbox = state.sandboxes.get(id).ok_or_else(|| not_found("sandbox", id))?;
        let running = |c: &&super::FakeContainer| c.info.sandbox == id && c.info.state == ContainerState::Running;
        for container in state.containers.values().filter(running) {
            if let Some(program) = program(&container.spec, port) {
                let late = || wrong_state(id, "not running", "connect to it");
                let control = container.control.clone().ok_or_else(late)?;
                let (spec, hostname) = (container.spec.clone(), sandbox.spec.hostname.clone());
                return Ok(Listener { program, spec, hostname, control });
            }
        }
        Err(RuntimeError::Refused { sandbox: id.to_owned(), port, cause: "Connection refused".to_owned() })
    }
}

/// What a container runs for those who connect to a port.
fn program(spec: &ContainerSpec, port: u16) -> Option<Vec<String>> {
    let port = port.to_string();
    commands(&command_line(spec)).into_iter().find_map(|words| {
        let server = words.iter().position(|w| w == "nc")?;
        let words = &words[server..];
        let listens = words.iter().any(|w| w == "-l" || w == "-ll") && words.windows(2).any(|w| w == ["-p", &port]);
        let program = words.iter().position(|w| w == "-e").filter(|_| listens)?;
        Some(words[program + 1..].to_vec())
    })
}

async fn answer(listener: Listener, far: DuplexStream) {
    let (mut read, mut write) = tokio::io::split(far);
    if listener.program == ["cat"] {
        // Straight through, so that one who sends and does not read is held back.
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
        return;
    }
    let (out, mut pieces) = mpsc::unbounded_channel();
    let (stdin, input) = mpsc::channel(16);
    let world = World {
        spec: listener.spec,
        hostname: listener.hostname,
        main: false,
        trap: Mutex::new(None),
        out: Box::new(move |piece| drop(out.send(piece))),
    };
    let feed = async move {
        let mut buffer = bytes::BytesMut::with_capacity(BUFFER);
        while let Ok(1..) = read.read_buf(&mut buffer).await {
            if stdin.send(buffer.split().freeze()).await.is_err() {
                break;
            }
        }
        drop(stdin);
        std::future::pending::<()>().await;
    };
    let run = async move {
        world.run(&listener.program, &mut Some(input)).await;
    };
    let print = async move {
        while let Some(Output::Stdout(piece) | Output::Stderr(piece)) = pieces.recv().await {
            if write.write_all(&piece).await.is_err() {
                return;
            }
        }
        let _ = write.shutdown().await;
    };
    tokio::select! {
        () = feed => {}
        _ = async { tokio::join!(run, print) } => {}
    }
}
