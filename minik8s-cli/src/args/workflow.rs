//! What `minik8s workflow` can be told.

use clap::{Args as ClapArgs, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum WorkflowCommand {
    /// Begin a run of a workflow, wait for its end and print what came out
    Run(WorkflowRunOptions),
    /// Show all runs, or one with its steps
    Get(WorkflowGet),
    /// Print what happened in a run
    Logs(WorkflowLogs),
    /// Draw a workflow, or a run with the state of its steps
    Graph(WorkflowGraph),
    /// Stop a run
    Cancel {
        /// The run
        run: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct WorkflowRunOptions {
    /// The workflow
    pub(crate) workflow: String,
    /// Its input: JSON, @FILE, or - for standard input [default: the workflow's own]
    #[arg(short, long, value_name = "JSON", visible_alias = "data", short_alias = 'd')]
    pub(crate) input: Option<String>,
    /// The run's name [default: the workflow's and some letters]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Do not wait for the end
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct WorkflowGet {
    /// The run [default: all of them]
    pub(crate) run: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct WorkflowLogs {
    /// The run
    pub(crate) run: String,
    /// Go on printing until the run is over
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct WorkflowGraph {
    /// A run, or a workflow
    pub(crate) name: String,
    /// As SVG into this file; - for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}
