//! What can be typed.

mod function;
mod job;
mod machine;
pub(crate) mod workflow;

pub(crate) use job::{Job, JobLogs, JobOptions, JobResults, JobSubmit};
pub(crate) use machine::{
    Agent, ControlPlane, DataDir, Dns, Down, Etcd, HostSetup, NetworkKind, NodeOptions, Ranges, RuntimeKind, StoreKind,
    Token, Up,
};

pub(crate) use function::{BaseFrom, Code, Function, Invoke};
pub(crate) use workflow::{TriggerCommand, WorkflowCommand, WorkflowGraph, WorkflowLogs, WorkflowRunOptions};

use crate::commands::cordon::Nodes;
use crate::commands::drain::Drain;
use crate::commands::top::Top;
use clap::{Args as ClapArgs, Parser, Subcommand};
use std::net::IpAddr;
use std::path::PathBuf;

/// A small Kubernetes: run a cluster on this machine, and talk to it (or to any other).
#[derive(Debug, Parser)]
#[command(
    name = "minik8s",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Args {
    /// Which cluster: a kubeconfig file [default: $KUBECONFIG, then DATA-DIR/admin.kubeconfig, then ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Cluster")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Namespace [default: the kubeconfig's, else "default"]
    #[arg(short, long, global = true, value_name = "NAME", help_heading = "Cluster")]
    pub(crate) namespace: Option<String>,
    /// Show what the program does; twice for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole cluster on this machine, in this process
    Up(Up),
    /// Run a control plane that other machines join, and a node beside it
    Server(Up),
    /// Join a cluster with this machine, and run its node
    Agent(Agent),
    /// Tokens with which machines join
    #[command(subcommand)]
    Token(Token),
    /// Remove the pods, links, rules and mounts that `up` made on this machine
    Down(Down),
    /// Names of the cluster, on this machine
    #[command(subcommand)]
    Dns(Dns),
    /// Create or change objects so that they match manifests
    Apply(Apply),
    /// Print manifests of the first minik8s in today's form
    Convert(Convert),
    /// Show objects as a table, YAML, JSON or names
    Get(Get),
    /// Show one object with its events
    Describe(Describe),
    /// Delete objects and wait until they are gone
    Delete(Delete),
    /// Print a container's log, or a job's output
    Logs(Logs),
    /// Batch jobs: submit, look at, fetch, cancel
    #[command(subcommand)]
    Job(Job),
    /// Run a command in a container
    Exec(Exec),
    /// Let ports of this machine lead to ports of a pod
    PortForward(PortForward),
    /// Run workflows, follow their runs, and draw them
    #[command(subcommand, visible_alias = "wf")]
    Workflow(WorkflowCommand),
    /// See to events that triggers have seen
    #[command(subcommand)]
    Trigger(TriggerCommand),
    /// Show what nodes and pods use; on a terminal, live
    Top(Top),
    /// Set the number of replicas
    Scale(Scale),
    /// Watch, undo or restart a rollout
    #[command(subcommand)]
    Rollout(Rollout),
    /// Keep new pods away from nodes
    Cordon(Nodes),
    /// Let new pods come to nodes again
    Uncordon(Nodes),
    /// Keep new pods away from nodes, and evict those that are there
    Drain(Drain),
    /// Images of this machine's cluster
    #[command(subcommand)]
    Image(Image),
    /// Functions: code in, URL out
    #[command(subcommand, alias = "fn")]
    Function(Function),
    /// Call a function
    #[command(alias = "execute")]
    Invoke(Invoke),
    /// Print the versions of this program and of the cluster
    Version(Version),
    /// Print a completion script for a shell
    Completion(Completion),
}

/// Where manifests come from.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Files {
    /// A file, a directory (its .yaml, .yml and .json files), or - for standard input; may be repeated
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Also look into subdirectories
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Apply {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Let the server check everything, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Convert {
    #[command(flatten)]
    pub(crate) files: Files,
    /// yaml or json
    #[arg(short, long, value_name = "FORMAT", default_value = "yaml")]
    pub(crate) output: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Get {
    /// What: `pods`, `pods,services`, `pod NAME`, `deploy/NAME`, `all`
    #[arg(required_unless_present = "raw", conflicts_with = "raw", value_name = "TYPE[/NAME]")]
    pub(crate) what: Vec<String>,
    /// What the server has at this path, as it is
    #[arg(long, value_name = "PATH")]
    pub(crate) raw: Option<String>,
    /// table, wide, yaml, json, name, or jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: String,
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", default_value = "")]
    pub(crate) selector: String,
    /// Only objects with these fields
    #[arg(long, value_name = "SELECTOR", default_value = "")]
    pub(crate) field_selector: String,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Go on showing changes
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Without the line of headings
    #[arg(long)]
    pub(crate) no_headers: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Describe {
    /// What: `pod NAME` or `pod/NAME`; without a name, all of them
    #[arg(required = true, value_name = "TYPE[/NAME]")]
    pub(crate) what: Vec<String>,
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", default_value = "")]
    pub(crate) selector: String,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Delete {
    /// What: `pod NAME...` or `pod/NAME`
    #[arg(value_name = "TYPE[/NAME]", required_unless_present = "filename")]
    pub(crate) what: Vec<String>,
    /// The objects in these manifests
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(crate) filename: Vec<PathBuf>,
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", default_value = "")]
    pub(crate) selector: String,
    /// Every object of the type in the namespace
    #[arg(long)]
    pub(crate) all: bool,
    /// Seconds that processes get to end
    #[arg(long, value_name = "SECONDS")]
    pub(crate) grace_period: Option<u32>,
    /// Do not wait until they are gone
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Missing objects are fine
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Logs {
    /// A pod, deploy/NAME for one of its pods, or job/NAME
    pub(crate) pod: String,
    /// Which container [default: the only one, or the annotated default]
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// Go on printing
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Of the container's instance before this one
    #[arg(short, long)]
    pub(crate) previous: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<i64>,
    /// Only lines of the last so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) since: Option<i64>,
    /// Begin each line with its time
    #[arg(long)]
    pub(crate) timestamps: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Exec {
    /// A pod, or deploy/NAME for one of its pods
    pub(crate) pod: String,
    /// Which container
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// With a terminal
    #[arg(short = 't', long)]
    pub(crate) tty: bool,
    /// The command, after --
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PortForward {
    /// A pod, or svc/NAME, deploy/NAME for one of its pods
    #[arg(value_name = "POD|TYPE/NAME")]
    pub(crate) what: String,
    /// Ports, by number or name: REMOTE, LOCAL:REMOTE, or :REMOTE for any local one
    #[arg(required = true, value_name = "[LOCAL:]REMOTE")]
    pub(crate) ports: Vec<String>,
    /// Address of this machine to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) address: IpAddr,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Scale {
    /// `deploy/NAME` or `deploy NAME`
    #[arg(required = true, value_name = "TYPE/NAME")]
    pub(crate) what: Vec<String>,
    /// How many
    #[arg(long)]
    pub(crate) replicas: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// Wait until a rollout is complete
    Status(RolloutTarget),
    /// Revisions that can be gone back to
    History(RolloutTarget),
    /// Go back to an earlier revision
    Undo(RolloutTarget),
    /// Replace all pods, a few at a time
    Restart(RolloutTarget),
    /// Stop in the middle
    Pause(RolloutTarget),
    /// Go on
    Resume(RolloutTarget),
    /// Give another template of a Deployment, or the second backend of an HTTPRoute, more and more requests, and take
    /// that back where it fails
    Canary(CanaryOptions),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CanaryOptions {
    /// `deploy/NAME`, to which one HTTPRoute leads, or `httproute/NAME`, whose rules with two backends are meant
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Share of requests that the canary gets in the end, in percent; a Deployment takes its template over at 100
    #[arg(long, value_name = "PERCENT", value_parser = percent, required_unless_present = "abort")]
    pub(crate) to: Option<u32>,
    /// The image to try in a Deployment
    #[arg(long, value_name = "[CONTAINER=]IMAGE")]
    pub(crate) image: Vec<String>,
    /// Another change of a Deployment's pod template to try, as a strategic merge patch in JSON or YAML
    #[arg(long, value_name = "PATCH")]
    pub(crate) patch: Option<String>,
    /// The HTTPRoute, where several lead to the Deployment
    #[arg(long, value_name = "NAME")]
    pub(crate) route: Option<String>,
    /// Take the canary back that is under way
    #[arg(long, conflicts_with_all = ["to", "image", "patch"])]
    pub(crate) abort: bool,
    /// How much more it gets at a time, in percent [default: all at once]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) step: Option<u32>,
    /// How long each share is watched
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) interval: u64,
    /// Takes it back where more of its requests fail, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    pub(crate) max_error_rate: f64,
    /// Takes it back where one in a hundred of its requests takes longer, in milliseconds
    #[arg(long, value_name = "MS")]
    pub(crate) max_latency: Option<u64>,
    /// So many requests at each share say something about it; with fewer, it waits
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) min_requests: u64,
    /// Do not wait for the end
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// `25` or `25%`.
fn percent(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse().ok().filter(|n| (1..=100).contains(n));
    number.ok_or_else(|| "a whole number from 1 to 100, with or without %".to_owned())
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RolloutTarget {
    /// `deploy/NAME`
    #[arg(required = true, value_name = "TYPE/NAME")]
    pub(crate) what: Vec<String>,
    /// The revision to go back to [default: the one before]
    #[arg(long, value_name = "REVISION")]
    pub(crate) to_revision: Option<u64>,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) timeout: u64,
}

/// Which containerd holds the images.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ImageHost {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// containerd's socket [default: the private one of DATA-DIR]
    #[arg(long, value_name = "SOCKET")]
    pub(crate) containerd: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Show images
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        host: ImageHost,
    },
    /// Fetch an image from its registry
    Pull {
        #[command(flatten)]
        host: ImageHost,
        /// Name of the image
        name: String,
    },
    /// Take in an OCI or docker archive
    Import {
        #[command(flatten)]
        host: ImageHost,
        /// The archive
        archive: PathBuf,
        /// Name it this
        #[arg(long)]
        name: Option<String>,
    },
    /// Make an image of a directory: its files, and how to start them
    Build(ImageBuild),
    /// Forget images
    #[command(name = "rm", alias = "remove")]
    Remove {
        #[command(flatten)]
        host: ImageHost,
        /// Names of the images
        #[arg(required = true)]
        names: Vec<String>,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ImageBuild {
    #[command(flatten)]
    pub(crate) host: ImageHost,
    /// The directory that becomes the root of the image
    pub(crate) directory: PathBuf,
    /// Name of the image
    #[arg(short, long)]
    pub(crate) tag: String,
    /// Write an OCI archive here instead of importing
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// What it starts, as a word or a JSON list
    #[arg(long, value_name = "COMMAND", default_value = "")]
    pub(crate) entrypoint: String,
    /// Default arguments, as a word or a JSON list
    #[arg(long, value_name = "ARGS", default_value = "")]
    pub(crate) cmd: String,
    /// NAME=VALUE, may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Working directory
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) workdir: String,
    /// User, `name`, `uid` or `uid:gid`
    #[arg(long, default_value = "")]
    pub(crate) user: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Version {
    /// Only of this program
    #[arg(long)]
    pub(crate) client: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Completion {
    /// bash, zsh, fish, elvish or powershell
    pub(crate) shell: clap_complete::Shell,
}
