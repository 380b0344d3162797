//! The parts of a cluster as programs of their own: the same library objects as in `minik8s server`, with gRPC between
//! them. Each has a binary in `src/bin` that calls one function here.

mod apiserver;
mod loops;

use crate::args::Agent;
use crate::{output, program, up};
use clap::Parser;
use std::process::ExitCode;

/// How much a component says.
#[derive(Debug, clap::Args)]
struct Verbosity {
    /// Show what the program does; twice for more
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Verbosity {
    fn start_logging(&self) {
        output::start_logging(true, self.verbose);
    }
}

/// The node agent of minik8s: joins a cluster with this machine, and runs its node.
#[derive(Debug, Parser)]
#[command(name = "minik8s-agent", version)]
struct AgentProgram {
    #[command(flatten)]
    verbosity: Verbosity,
    #[command(flatten)]
    agent: Agent,
}

/// `minik8s-apiserver`: the API, over REST and gRPC.
pub fn apiserver() -> ExitCode {
    program(|p: &apiserver::Program| p.verbosity.start_logging(), async |p| done(apiserver::run(&p).await))
}

/// `minik8s-scheduler`: places pods.
pub fn scheduler() -> ExitCode {
    program(|p: &loops::Scheduler| p.common.verbosity.start_logging(), async |p| done(loops::scheduler(&p).await))
}

/// `minik8s-controller-manager`: the controllers.
pub fn controller_manager() -> ExitCode {
    program(|p: &loops::Controllers| p.common.verbosity.start_logging(), async |p| done(loops::controllers(&p).await))
}

/// `minik8s-agent`: the node agent.
pub fn agent() -> ExitCode {
    program(|p: &AgentProgram| p.verbosity.start_logging(), async |p| done(Box::pin(up::agent(&p.agent)).await))
}

fn done(outcome: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    outcome.map(|()| ExitCode::SUCCESS)
}
