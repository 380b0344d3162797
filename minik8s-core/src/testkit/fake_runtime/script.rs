//! What tests tell a fake runtime: how processes behave, what goes wrong.

use crate::runtime::{ContainerSpec, RuntimeError};
use std::time::Duration;

/// How a process ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// Only when it is told to.
    #[default]
    Never,
    /// By itself, with an exit code.
    Code(i32),
    /// The kernel kills it for memory: code 137, flagged.
    OutOfMemory,
}

/// The life of a scripted process: lines are printed, time passes, it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    pub(super) stdout: Vec<String>,
    pub(super) stderr: Vec<String>,
    pub(super) after: Duration,
    pub(super) end: End,
    pub(super) ignore_term: bool,
    pub(super) term_code: Option<i32>,
}

impl Script {
    /// Runs until it is stopped.
    pub fn forever() -> Self {
        Self::default()
    }

    /// Exits at once.
    pub fn exits(code: i32) -> Self {
        Self { end: End::Code(code), ..Self::default() }
    }

    /// Exits after a while (on tokio's clock).
    pub fn exits_after(after: Duration, code: i32) -> Self {
        Self { after, ..Self::exits(code) }
    }

    /// Is killed for memory after a while.
    pub fn out_of_memory_after(after: Duration) -> Self {
        Self { after, end: End::OutOfMemory, ..Self::default() }
    }

    /// Prints a line to standard output before anything else.
    #[must_use]
    pub fn prints(mut self, line: impl Into<String>) -> Self {
        self.stdout.push(line.into());
        self
    }

    /// Prints a line to standard error before anything else.
    #[must_use]
    pub fn complains(mut self, line: impl Into<String>) -> Self {
        self.stderr.push(line.into());
        self
    }

    /// Does not react to SIGTERM.
    #[must_use]
    pub fn ignoring_term(mut self) -> Self {
        self.ignore_term = true;
        self
    }

    /// Ends with this code when it gets SIGTERM, instead of 143.
    #[must_use]
    pub fn on_term(mut self, code: i32) -> Self {
        self.term_code = Some(code);
        self
    }
}

/// The answer to a command run by `exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecAnswer {
    /// What it prints to standard output.
    pub stdout: String,
    /// What it prints to standard error.
    pub stderr: String,
    /// Its exit code.
    pub code: i32,
    /// How long it takes.
    pub after: Duration,
}

impl ExecAnswer {
    /// Ends at once with this code and prints nothing.
    pub fn code(code: i32) -> Self {
        Self { code, ..Self::default() }
    }
}

/// The calls of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FakeOp {
    /// `capabilities`, about nothing.
    Capabilities,
    /// `run_sandbox`, about a sandbox id.
    RunSandbox,
    /// `remove_sandbox`, about a sandbox id.
    RemoveSandbox,
    /// `sandboxes`.
    Sandboxes,
    /// `create_container`, about a container id.
    Create,
    /// `start_container`, about a container id.
    Start,
    /// `stop_container`, about a container id.
    Stop,
    /// `pause_container` and `resume_container`, about a container id.
    Pause,
    /// `remove_container`, about a container id.
    Remove,
    /// `containers` and `container`.
    Containers,
    /// `stats`, about a container id.
    Stats,
    /// `image` and `images`, about an image name.
    Image,
    /// `pull`, about an image name.
    Pull,
    /// `import`, about a path.
    Import,
    /// `remove_image`, about an image name.
    RemoveImage,
    /// `exec`, about a container id.
    Exec,
    /// `attach`, about a container id.
    Attach,
    /// `connect`, about a sandbox id.
    Connect,
}

/// A call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeCall {
    /// Which.
    pub op: FakeOp,
    /// About what: a sandbox, container or image.
    pub subject: String,
}

/// Something that goes wrong, or takes long.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) op: FakeOp,
    pub(super) subject: String,
    pub(super) times: Option<u32>,
    pub(super) delay: Duration,
    pub(super) error: Option<RuntimeError>,
}

impl Fault {
    pub(super) fn hits(&self, op: FakeOp, subject: &str) -> bool {
        self.op == op && self.times != Some(0) && subject.contains(&self.subject)
    }
}

/// Which containers a script is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those of this image, as the specification spells it.
    Image(String),
    /// Those whose id contains this text.
    Id(String),
    /// Those whose command line (command and arguments, joined by blanks) contains this text.
    Command(String),
    /// All.
    Any,
}

impl Which {
    pub(super) fn matches(&self, spec: &ContainerSpec) -> bool {
        match self {
            Which::Image(image) => spec.image == *image,
            Which::Id(part) => spec.id.contains(part),
            Which::Command(part) => command_line(spec).join(" ").contains(part),
            Which::Any => true,
        }
    }
}

/// Command and arguments of a container.
pub(super) fn command_line(spec: &ContainerSpec) -> Vec<String> {
    spec.command.iter().chain(&spec.args).cloned().collect()
}
