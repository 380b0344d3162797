//! What can be typed about jobs.

use super::Get;
use clap::{Args as ClapArgs, Subcommand};
use std::path::PathBuf;

/// What whoever operates the control plane allows to jobs.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct JobOptions {
    /// Let GpuJobs run as processes of this machine, as the user that this runs as: on JobClusters with `local`
    #[arg(long, help_heading = "Jobs")]
    pub(crate) local_jobs: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Job {
    /// Hand a job over to Slurm, nodes or this machine: a manifest, or a directory with job.yaml and the files it starts with
    Submit(JobSubmit),
    /// Show jobs
    Get(JobGet),
    /// Print a job's output
    Logs(JobLogs),
    /// Fetch the files of an ended job, and check them
    Results(JobResults),
    /// End jobs; they and their output stay
    Cancel(JobNames),
    /// Stop jobs, or keep them from starting
    Suspend(JobNames),
    /// Let them go on
    Resume(JobNames),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct JobSubmit {
    /// A manifest, or a directory that holds job.yaml
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR")]
    pub(crate) path: PathBuf,
    /// Wait for its end, print its output, and end as it did
    #[arg(short, long)]
    pub(crate) wait: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct JobGet {
    /// Names [default: all]
    pub(crate) names: Vec<String>,
    /// table, wide, yaml, json, name, or jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: String,
    /// Go on showing changes
    #[arg(short, long)]
    pub(crate) watch: bool,
}

impl JobGet {
    /// The same, of `get`.
    pub(crate) fn plain(&self) -> Get {
        let mut what = vec!["gpujobs".to_owned()];
        what.extend(self.names.iter().cloned());
        Get {
            raw: None,
            what,
            output: self.output.clone(),
            selector: String::new(),
            field_selector: String::new(),
            all_namespaces: false,
            watch: self.watch,
            no_headers: false,
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct JobLogs {
    /// The job
    pub(crate) name: String,
    /// Go on printing
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Its errors instead of its output
    #[arg(short = 'e', long)]
    pub(crate) stderr: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<i64>,
    /// Of this task of its array
    #[arg(long, value_name = "INDEX")]
    pub(crate) task: Option<u32>,
    /// Of an earlier attempt
    #[arg(long, value_name = "NUMBER")]
    pub(crate) attempt: Option<u32>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct JobResults {
    /// The job
    pub(crate) name: String,
    /// Where they go
    #[arg(short = 'o', long, value_name = "DIR", default_value = ".")]
    pub(crate) directory: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct JobNames {
    /// The jobs
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
}
