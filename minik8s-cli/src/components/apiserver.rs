//! The API server as a process of its own.

use super::Verbosity;
use crate::args::ControlPlane;
use crate::up::{self, Door};
use anyhow::Result;
use clap::Parser;

/// The API server of minik8s: REST and gRPC on one port, over a store that several may share.
#[derive(Debug, Parser)]
#[command(name = "minik8s-apiserver", version)]
pub(super) struct Program {
    #[command(flatten)]
    pub(super) verbosity: Verbosity,
    #[command(flatten)]
    options: ControlPlane,
}

pub(super) async fn run(program: &Program) -> Result<()> {
    up::apiserver(&program.options, Door::All).await
}
