//! One file per command. A command reads its arguments, asks the cluster, and prints; it decides nothing else.

mod apply;
mod canary;
mod convert;
pub(crate) mod cordon;
mod delete;
mod describe;
pub(crate) mod drain;
mod exec;
mod function;
mod get;
mod image;
mod invoke;
mod job;
mod logs;
mod pods;
mod port_forward;
mod rollout;
mod scale;
mod token;
pub(crate) mod top;
mod trigger;
mod version;
mod workflow;

use crate::api::Conn;
use crate::args::{Args, Command, Rollout};
use crate::up::{self, Door};
use anyhow::Result;
use clap::CommandFactory;
use std::process::ExitCode;

/// Runs the command that was asked for.
pub(crate) async fn dispatch(args: Args) -> Result<ExitCode> {
    match &args.command {
        Command::Up(options) => up::up(options, Door::Loopback).await?,
        Command::Server(options) => up::up(options, Door::All).await?,
        Command::Agent(options) => Box::pin(up::agent(options)).await?,
        Command::Token(command) => token::run(&Conn::open(&args).await?, command).await?,
        Command::Down(options) => up::down(options).await?,
        Command::Dns(command) => up::dns(command).await?,
        Command::Job(command) => return job::run(&Conn::open(&args).await?, command).await,
        Command::Image(command) => image::run(command).await?,
        Command::Function(command) => Box::pin(function::run(&args, command)).await?,
        Command::Invoke(options) => invoke::run(&args, options).await?,
        Command::Version(options) => version::run(&args, options).await?,
        Command::Completion(options) => {
            clap_complete::generate(options.shell, &mut Args::command(), "minik8s", &mut std::io::stdout());
        }
        Command::Apply(options) => apply::run(&Conn::open(&args).await?, options).await?,
        Command::Convert(options) => convert::run(options)?,
        Command::Get(options) => get::run(&Conn::open(&args).await?, options).await?,
        Command::Describe(options) => describe::run(&Conn::open(&args).await?, options).await?,
        Command::Delete(options) => delete::run(&Conn::open(&args).await?, options).await?,
        Command::Logs(options) => logs::run(&Conn::open(&args).await?, options).await?,
        Command::Exec(options) => return exec::run(&Conn::open(&args).await?, options).await,
        Command::PortForward(options) => port_forward::run(&Conn::open(&args).await?, options).await?,
        Command::Workflow(command) => return workflow::run(&Conn::open(&args).await?, command).await,
        Command::Trigger(command) => trigger::run(&Conn::open(&args).await?, command).await?,
        Command::Top(options) => Box::pin(top::run(&Conn::open(&args).await?, options)).await?,
        Command::Scale(options) => scale::run(&Conn::open(&args).await?, options).await?,
        Command::Cordon(nodes) => cordon::run(&Conn::open(&args).await?, nodes, true).await?,
        Command::Uncordon(nodes) => cordon::run(&Conn::open(&args).await?, nodes, false).await?,
        Command::Drain(options) => drain::run(&Conn::open(&args).await?, options).await?,
        Command::Rollout(Rollout::Canary(options)) => canary::run(&Conn::open(&args).await?, options).await?,
        Command::Rollout(options) => rollout::run(&Conn::open(&args).await?, options).await?,
    }
    Ok(ExitCode::SUCCESS)
}
