//! What `minik8s workflow` can be told.

use clap::{Args as ClapArgs, Subcommand};
use minik8s_serverless::triggers::TriggersConfig;
use minik8s_serverless::workflow::{Authorities, HttpPolicy, WorkflowsConfig};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum WorkflowCommand {
    /// Begin a run of a workflow, wait for its end and print what came out
    Run(WorkflowRunOptions),
    /// Show all runs, or one with its steps
    #[command(visible_alias = "list", alias = "ls")]
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

#[derive(Debug, Subcommand)]
pub(crate) enum TriggerCommand {
    /// Try dead deliveries again, under the keys they had
    Redeliver {
        /// The deliveries (`minik8s get triggerdeliveries` shows them)
        #[arg(required = true, value_name = "DELIVERY")]
        deliveries: Vec<String>,
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

/// An address that others are told to come to.
pub(crate) fn reachable(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| format!("{text:?} is no IP:PORT"))?;
    match address.ip().is_unspecified() {
        true => Err(format!("{} is no address that nodes could come to: name one of this machine's", address.ip())),
        false => Ok(address),
    }
}

/// Where calls that nobody waits for are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// Nowhere.
    None,
    /// Here.
    At(SocketAddr),
}

fn front(text: &str) -> Result<Front, String> {
    if text == "none" { Ok(Front::None) } else { reachable(text).map(Front::At) }
}

/// What workflows and triggers may do.
#[derive(Debug, Clone, ClapArgs)]
#[command(next_help_heading = "Workflows and triggers")]
pub(crate) struct WorkflowOptions {
    /// Listen here for events that triggers of webhooks take, in plain HTTP, whichever server leads [default: nowhere]
    #[arg(long, value_name = "IP:PORT")]
    webhooks: Option<SocketAddr>,
    /// Take events that triggers of webhooks take at every gateway too, below /trigger, with TLS where the gateway has it
    #[arg(long)]
    webhooks_at_gateways: bool,
    /// Where gateways of all nodes find what takes calls that nobody waits for, or `none`, so that all are waited for
    /// [default: any port of the API's address]
    #[arg(long, value_name = "IP:PORT", value_parser = front)]
    front: Option<Front>,
    /// A file or directory of this machine that triggers may watch; may be repeated [default: none]
    #[arg(long, value_name = "PATH")]
    trigger_path: Vec<PathBuf>,
    /// URLs that steps may call: those that begin so, `any` or `none`; may be repeated [default: all but this machine's]
    #[arg(long, value_name = "URL")]
    workflow_urls: Vec<String>,
    /// Certificate authorities (PEM) that steps trust beside those of this machine [default: none]
    #[arg(long, value_name = "FILE", value_parser = authorities)]
    workflow_ca: Option<Authorities>,
}

fn authorities(path: &str) -> Result<Authorities, String> {
    let pem = std::fs::read(path).map_err(|e| format!("{path}: {e}"))?;
    Authorities::from_pem(&pem).map_err(|e| format!("{path}: {e}"))
}

impl WorkflowOptions {
    pub(crate) fn workflows(&self) -> WorkflowsConfig {
        let http = match self.workflow_urls.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] => HttpPolicy::NotLocal,
            ["any"] => HttpPolicy::Any,
            ["none"] => HttpPolicy::Nothing,
            _ => HttpPolicy::Prefixes(self.workflow_urls.clone()),
        };
        let authorities = self.workflow_ca.clone().unwrap_or_default();
        WorkflowsConfig { http, authorities, ..WorkflowsConfig::default() }
    }

    pub(crate) fn triggers(&self) -> TriggersConfig {
        TriggersConfig {
            webhooks: self.webhooks,
            at_gateways: self.webhooks_at_gateways,
            files: self.trigger_path.clone(),
            ..TriggersConfig::default()
        }
    }

    /// Where calls that nobody waits for are taken, of a machine that others reach at this address, where it has one.
    pub(crate) fn front(&self, own: Option<IpAddr>) -> Option<SocketAddr> {
        match self.front {
            Some(Front::None) => None,
            Some(Front::At(address)) => Some(address),
            None => own.map(|own| SocketAddr::new(own, 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_front_is_at_an_address_that_others_reach_or_nowhere() {
        let at = |text: &str| Front::At(text.parse().unwrap());
        assert_eq!(front("none"), Ok(Front::None));
        assert_eq!(front("10.0.0.1:8082"), Ok(at("10.0.0.1:8082")));
        assert_eq!(front("[fd00::1]:0"), Ok(at("[fd00::1]:0")));
        for bad in ["", "None", "10.0.0.1", "0.0.0.0:80", "[::]:80"] {
            assert!(front(bad).is_err(), "{bad}");
        }
    }
}
