//! A simulated main process: a task that follows its script or its command line until it ends or is ended.

use super::log::LogWriter;
use super::script::{End, Script, command_line};
use super::shell::World;
use super::{FakeContainer, Inner};
use crate::runtime::{ContainerState, Exit, Output};
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

/// The handle on a running process.
pub(super) struct Control {
    term: CancellationToken,
    kill: CancellationToken,
    /// Cancelled once the end is on record.
    pub(super) ended: CancellationToken,
    forced: Mutex<Option<Exit>>,
    pub(super) output: broadcast::Sender<Output>,
    pub(super) stdin: Mutex<Option<mpsc::Sender<Bytes>>>,
}

impl Control {
    pub(super) fn new() -> (Arc<Self>, mpsc::Receiver<Bytes>) {
        let (stdin, receiver) = mpsc::channel(16);
        let control = Self {
            term: CancellationToken::new(),
            kill: CancellationToken::new(),
            ended: CancellationToken::new(),
            forced: Mutex::new(None),
            output: broadcast::channel(256).0,
            stdin: Mutex::new(Some(stdin)),
        };
        (Arc::new(control), receiver)
    }

    pub(super) fn term(&self) {
        self.term.cancel();
    }

    pub(super) fn kill(&self) {
        self.end(Exit { code: 137, ..Exit::default() });
    }

    /// Ends the process this way, unless it is ending already.
    pub(super) fn end(&self, exit: Exit) -> bool {
        let mut forced = self.forced.lock();
        if forced.is_some() || self.ended.is_cancelled() {
            return false;
        }
        *forced = Some(exit);
        self.kill.cancel();
        true
    }
}

impl Inner {
    /// Starts the process of a container that is on record as running.
    pub(super) fn spawn(
        self: &Arc<Self>,
        container: &FakeContainer,
        control: Arc<Control>,
        stdin: mpsc::Receiver<Bytes>,
        hostname: String,
        script: Option<Script>,
    ) {
        let log = Arc::new(Mutex::new(LogWriter::new(&container.spec)));
        log.lock().open();
        let (writer, output) = (log.clone(), control.output.clone());
        let world = World {
            spec: container.spec.clone(),
            hostname,
            main: true,
            trap: Mutex::new(None),
            out: Box::new(move |piece| {
                writer.lock().write(&piece);
                let _ = output.send(piece);
            }),
        };
        let stdin = container.spec.stdin.then_some(stdin);
        let (inner, id) = (self.clone(), container.spec.id.clone());
        tokio::spawn(async move {
            let exit = live(&world, script, stdin, &control).await;
            log.lock().finish();
            inner.ended(&id, &control, exit);
        });
    }

    fn ended(&self, id: &str, control: &Arc<Control>, exit: Exit) {
        let finished_at = self.now();
        let mut state = self.state.lock();
        // The container of that id may be another one by now.
        let ours = state
            .containers
            .get_mut(id)
            .filter(|c| c.control.as_ref().is_some_and(|current| Arc::ptr_eq(current, control)));
        let sandbox = ours.map(|container| {
            container.control = None;
            container.info.pid = None;
            container.info.state = ContainerState::Exited(Exit { finished_at, ..exit });
            container.info.sandbox.clone()
        });
        drop(state);
        control.ended.cancel();
        if let Some(sandbox) = sandbox {
            self.announce(&sandbox, id);
        }
    }
}

async fn live(
    world: &World,
    script: Option<Script>,
    mut stdin: Option<mpsc::Receiver<Bytes>>,
    control: &Control,
) -> Exit {
    let own = async {
        match &script {
            Some(script) => scripted(world, script).await,
            None => {
                let code = match command_line(&world.spec).as_slice() {
                    [] => banner(world).await,
                    argv => world.run(argv, &mut stdin).await,
                };
                Exit { code, ..Exit::default() }
            }
        }
    };
    let told = async {
        control.term.cancelled().await;
        let (ignores, code) = match (&script, *world.trap.lock()) {
            (Some(script), _) => (script.ignore_term, script.term_code.unwrap_or(143)),
            (None, Some(None)) => (true, 0),
            (None, Some(Some(code))) => (false, code),
            (None, None) => (false, 143),
        };
        if ignores {
            std::future::pending::<()>().await;
        }
        Exit { code, ..Exit::default() }
    };
    tokio::select! {
        biased;
        () = control.kill.cancelled() => control.forced.lock().clone().unwrap_or_default(),
        exit = told => exit,
        exit = own => exit,
    }
}

/// An image's own entrypoint: says that it started, and stays.
async fn banner(world: &World) -> i32 {
    (world.out)(Output::Stdout(format!("{} started\n", world.spec.image).into()));
    std::future::pending().await
}

async fn scripted(world: &World, script: &Script) -> Exit {
    for line in &script.stdout {
        (world.out)(Output::Stdout(format!("{line}\n").into()));
    }
    for line in &script.stderr {
        (world.out)(Output::Stderr(format!("{line}\n").into()));
    }
    if !script.after.is_zero() {
        tokio::time::sleep(script.after).await;
    }
    match script.end {
        End::Never => std::future::pending().await,
        End::Code(code) => Exit { code, ..Exit::default() },
        End::OutOfMemory => Exit { code: 137, oom_killed: true, ..Exit::default() },
    }
}
