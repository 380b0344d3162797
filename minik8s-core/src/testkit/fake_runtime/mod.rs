//! A container runtime without containers: it keeps state, simulates processes, writes real log files, records calls
//! and fails on request. It lives as long as its `Arc`: hand the same one to a second agent to play an agent's restart.
//!
//! Unscripted containers run until they are stopped; a few words of shell are understood (`sh -c 'echo hi; exit 3'`).
//! A container listens to a port where its command line has `nc -ll -p 8080 -e cat`, with such a program behind `-e`.
//! Any image pulls at once, except from registries that end in `.invalid`, and names that cannot be read.

mod containers;
mod images;
mod load;
mod log;
mod ports;
mod process;
mod sandboxes;
mod script;
mod shell;
mod streams;
#[cfg(test)]
mod tests;

pub use load::Load;
pub use script::{End, ExecAnswer, FakeCall, FakeOp, Script, Which};

use crate::clock::{SharedClock, SystemClock};
use crate::runtime::{
    ContainerInfo, ContainerSpec, ContainerState, Exit, ImageInfo, MemoryVolume, Runtime, RuntimeCapabilities,
    RuntimeError, RuntimeEvent, RuntimeResult, SandboxInfo, Volumes,
};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use process::Control;
use script::Fault;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

/// Events kept for a slow listener before it is told to list again.
const EVENT_BUFFER: usize = 1024;

/// A scriptable [`Runtime`]: [`Script`] says what its containers do.
pub struct FakeRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    /// The canonical state; never held across an await.
    state: Mutex<State>,
    events: broadcast::Sender<RuntimeEvent>,
    clock: SharedClock,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, SandboxInfo>,
    containers: BTreeMap<String, FakeContainer>,
    images: BTreeMap<String, ImageInfo>,
    known_images: Option<Vec<String>>,
    scripts: Vec<(Which, Script)>,
    answers: Vec<(Which, String, ExecAnswer)>,
    faults: Vec<Fault>,
    calls: Vec<FakeCall>,
    last_pid: u32,
    loads: Option<load::Loads>,
}

struct FakeContainer {
    info: ContainerInfo,
    spec: ContainerSpec,
    control: Option<Arc<Control>>,
    used: load::Used,
}

impl Default for FakeRuntime {
    fn default() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }
}

impl FakeRuntime {
    /// A runtime with nothing in it.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A runtime whose time stamps come from `clock`.
    pub fn with_clock(clock: SharedClock) -> Self {
        let (events, _) = broadcast::channel(EVENT_BUFFER);
        Self { inner: Arc::new(Inner { state: Mutex::default(), events, clock }) }
    }

    /// How the processes of certain containers behave. The latest script that fits wins.
    pub fn script(&self, which: Which, script: Script) {
        self.inner.state.lock().scripts.push((which, script));
    }

    /// What a command answers: `command` must occur in the command line. The latest answer that fits wins.
    pub fn answer(&self, which: Which, command: impl Into<String>, answer: ExecAnswer) {
        self.inner.state.lock().answers.push((which, command.into(), answer));
    }

    /// From now on only these images can be pulled.
    pub fn only_images<I: Into<String>>(&self, names: impl IntoIterator<Item = I>) {
        self.inner.state.lock().known_images = Some(names.into_iter().map(Into::into).collect());
    }

    /// Calls of `op` whose subject contains `subject` fail, `times` times (`None`: until [`Self::heal`]).
    pub fn fail(&self, op: FakeOp, subject: impl Into<String>, times: Option<u32>, error: RuntimeError) {
        let fault = Fault { op, subject: subject.into(), times, delay: Duration::ZERO, error: Some(error) };
        self.inner.state.lock().faults.push(fault);
    }

    /// Calls of `op` whose subject contains `subject` take this long.
    pub fn delay(&self, op: FakeOp, subject: impl Into<String>, delay: Duration) {
        let fault = Fault { op, subject: subject.into(), times: None, delay, error: None };
        self.inner.state.lock().faults.push(fault);
    }

    /// Ends all failures and delays.
    pub fn heal(&self) {
        self.inner.state.lock().faults.clear();
    }

    /// Every call so far, in order.
    pub fn calls(&self) -> Vec<FakeCall> {
        self.inner.state.lock().calls.clone()
    }

    /// How often `op` was called on subjects that contain `subject`.
    pub fn count(&self, op: FakeOp, subject: &str) -> usize {
        self.inner.state.lock().calls.iter().filter(|c| c.op == op && c.subject.contains(subject)).count()
    }

    /// Ends a container's process, as if by itself. False where none runs.
    pub fn exit(&self, id: &str, code: i32) -> bool {
        self.end(id, Exit { code, ..Exit::default() })
    }

    /// Lets the kernel kill a container's process for memory. False where none runs.
    pub fn out_of_memory(&self, id: &str) -> bool {
        self.end(id, Exit { code: 137, oom_killed: true, ..Exit::default() })
    }

    /// Removes a container behind everyone's back.
    pub fn vanish(&self, id: &str) -> bool {
        let gone = self.inner.state.lock().containers.remove(id);
        let Some(gone) = gone else { return false };
        if let Some(control) = &gone.control {
            control.kill();
        }
        self.inner.announce(&gone.info.sandbox, id);
        true
    }

    /// The machine starts anew: every process is dead, no sandbox is ready, the images are still here.
    pub fn reboot(&self) {
        let mut state = self.inner.state.lock();
        for container in state.containers.values_mut() {
            if let Some(control) = container.control.take() {
                control.kill();
            }
            if container.info.state == ContainerState::Running {
                container.info.state =
                    ContainerState::Exited(Exit { code: 255, finished_at: self.inner.now(), ..Exit::default() });
                container.info.pid = None;
            }
        }
        state.sandboxes.values_mut().for_each(|sandbox| sandbox.ready = false);
        drop(state);
        self.lose_events();
    }

    /// Tells listeners that events may have been lost.
    pub fn lose_events(&self) {
        let _ = self.inner.events.send(RuntimeEvent::Resync);
    }

    /// Every container, without it counting as a call.
    pub fn snapshot(&self) -> Vec<ContainerInfo> {
        self.inner.state.lock().containers.values().map(|c| c.info.clone()).collect()
    }

    /// What a container was made from.
    pub fn spec(&self, id: &str) -> Option<ContainerSpec> {
        self.inner.state.lock().containers.get(id).map(|c| c.spec.clone())
    }

    /// The ids of all sandboxes, without it counting as a call.
    pub fn sandbox_ids(&self) -> Vec<String> {
        self.inner.state.lock().sandboxes.keys().cloned().collect()
    }

    fn end(&self, id: &str, exit: Exit) -> bool {
        let control = self.inner.state.lock().containers.get(id).and_then(|c| c.control.clone());
        control.is_some_and(|control| control.end(exit))
    }
}

impl Inner {
    fn now(&self) -> i64 {
        self.clock.now().as_millisecond()
    }

    fn announce(&self, sandbox: &str, id: &str) {
        // Nobody listening is fine.
        let _ = self.events.send(RuntimeEvent::Container { sandbox: sandbox.to_owned(), id: id.to_owned() });
    }

    /// Records a call, then waits and fails as the faults say.
    async fn call(&self, op: FakeOp, subject: &str) -> RuntimeResult<()> {
        let (delay, error) = self.record(op, subject);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        error.map_or(Ok(()), Err)
    }

    fn record(&self, op: FakeOp, subject: &str) -> (Duration, Option<RuntimeError>) {
        let mut state = self.state.lock();
        state.calls.push(FakeCall { op, subject: subject.to_owned() });
        let mut delay = Duration::ZERO;
        for fault in state.faults.iter_mut().filter(|fault| fault.hits(op, subject)) {
            delay = delay.max(fault.delay);
            if fault.error.is_some() {
                fault.times = fault.times.map(|n| n - 1);
                return (delay, fault.error.clone());
            }
        }
        (delay, None)
    }
}

fn not_found(what: &'static str, name: &str) -> RuntimeError {
    RuntimeError::NotFound { what, name: name.to_owned() }
}

/// Plain directories: nobody fills them.
#[async_trait]
impl Volumes for FakeRuntime {
    async fn mount_memory(&self, volume: &MemoryVolume) -> RuntimeResult<()> {
        let unavailable = |e: std::io::Error| RuntimeError::Unavailable {
            operation: "making a volume",
            cause: format!("{}: {e}", volume.directory.display()),
        };
        std::fs::create_dir_all(&volume.directory).map_err(unavailable)
    }

    async fn unmount_below(&self, _directory: &Path) -> RuntimeResult<()> {
        Ok(())
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn capabilities(&self) -> RuntimeResult<RuntimeCapabilities> {
        self.inner.call(FakeOp::Capabilities, "").await?;
        let version = concat!("fake://", env!("CARGO_PKG_VERSION")).to_owned();
        Ok(RuntimeCapabilities { version, real_processes: false, share_pids: true })
    }

    async fn events(&self) -> RuntimeResult<BoxStream<'static, RuntimeEvent>> {
        let receiver = self.inner.events.subscribe();
        // The stream must not end with a lagging receiver: what was lost is said.
        Ok(BroadcastStream::new(receiver).map(|event| event.unwrap_or(RuntimeEvent::Resync)).boxed())
    }
}
