//! What can be typed about functions.

use clap::{Args as ClapArgs, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Function {
    /// Make a function of a directory, an archive or an image
    Create(Code),
    /// Change a function's files or settings
    Update(Code),
    /// Show functions
    #[command(alias = "ls")]
    Get {
        /// Which [default: all]
        name: Option<String>,
        /// table, wide, yaml, json, name, or jsonpath=TEMPLATE
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: String,
    },
    /// Show a function with its revisions
    Describe {
        /// Which
        name: String,
    },
    /// Delete functions, with all that belongs to them
    #[command(alias = "rm")]
    Delete {
        /// Which
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Go back to an earlier revision
    Rollback {
        /// Which function
        name: String,
        /// Its number [default: the one before]
        #[arg(long, value_name = "NUMBER")]
        to: Option<i64>,
    },
    /// Print what instances of a function say
    Logs {
        /// Which function
        name: String,
        /// Go on printing, of instances to come too
        #[arg(short, long)]
        follow: bool,
    },
    /// Add a base image to the cluster's registry
    Base {
        /// `python`, `node`, or a name such as base/python:3
        name: String,
        #[command(flatten)]
        from: BaseFrom,
    },
}

/// Where a base image is.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub(crate) struct BaseFrom {
    /// An OCI archive, such as `minik8s image build -o` writes
    #[arg(short = 'f', long = "filename", value_name = "ARCHIVE")]
    pub(crate) archive: Option<PathBuf>,
    /// An image in a registry that this machine reaches and that asks nobody who he is, such as python:3-slim
    #[arg(long, value_name = "IMAGE")]
    pub(crate) from: Option<String>,
}

/// What a function is.
#[derive(Debug, ClapArgs)]
pub(crate) struct Code {
    /// Name of the function
    pub(crate) name: String,
    /// Its files: a directory, or a tar archive, compressed or not
    #[arg(short = 'f', long = "filename", value_name = "DIR")]
    pub(crate) files: Option<PathBuf>,
    /// python or node; without files, an image that is any HTTP server
    #[arg(long)]
    pub(crate) runtime: Option<String>,
    /// What is called: FILE.FUNCTION [default: main.main]
    #[arg(long)]
    pub(crate) handler: Option<String>,
    /// The image; with files, the base that they are laid on
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// NAME=VALUE, may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Calls that one instance gets at once
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<i64>,
    /// Seconds that a call may take
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<i64>,
    /// Instances at least
    #[arg(long, value_name = "N")]
    pub(crate) min: Option<i64>,
    /// Instances at most
    #[arg(long, value_name = "N")]
    pub(crate) max: Option<i64>,
    /// Seconds without a call after which nothing runs
    #[arg(long, value_name = "SECONDS")]
    pub(crate) idle: Option<i64>,
    /// Seconds for which the last instance is then kept paused, which wakes faster than nothing does
    #[arg(long, value_name = "SECONDS")]
    pub(crate) paused: Option<i64>,
    /// Calls that go to the new revision at first, of a hundred; `100` for all
    #[arg(long, value_name = "PERCENT")]
    pub(crate) canary: Option<i64>,
    /// Do not wait until it is ready
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// One call of a function.
#[derive(Debug, ClapArgs)]
pub(crate) struct Invoke {
    /// NAME, or NAMESPACE/NAME
    pub(crate) function: String,
    /// The body, JSON; @FILE for a file's, @- for standard input's
    #[arg(short, long, value_name = "JSON", default_value = "{}")]
    pub(crate) data: String,
    /// Where a gateway listens [default: as the cluster's nodes say]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) gateway: Option<String>,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) timeout: u64,
    /// Do not wait: print the name of an Invocation, which will have the result
    #[arg(long = "async", conflicts_with = "gateway")]
    pub(crate) no_wait: bool,
}
