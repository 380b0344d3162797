//! `cordon` and `uncordon`: whether new pods come to a node.

use super::get::query;
use crate::api::{Conn, MERGE};
use crate::output::say;
use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use serde_json::{Value, json};

/// Which nodes.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Nodes {
    /// Names of nodes
    #[arg(value_name = "NODE", required_unless_present = "selector")]
    pub(crate) names: Vec<String>,
    /// All nodes with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "names")]
    pub(crate) selector: Option<String>,
    /// Let the server check everything, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl Nodes {
    /// The nodes that are meant, as they are now.
    pub(crate) async fn find(&self, conn: &Conn) -> Result<Vec<Value>> {
        let Some(selector) = &self.selector else {
            let mut nodes = Vec::new();
            for name in &self.names {
                nodes.push(conn.get(&path(name)).await?);
            }
            return Ok(nodes);
        };
        let list = conn.get(&format!("/api/v1/nodes{}", query(selector, ""))).await?;
        match list["items"].as_array() {
            Some(nodes) if !nodes.is_empty() => Ok(nodes.clone()),
            _ => bail!("no node has the labels {selector:?}; `minik8s get nodes` lists those there are"),
        }
    }

    /// What a write is asked with, and what is said of it.
    pub(crate) fn dry(&self) -> (&'static str, &'static str) {
        if self.dry_run { ("?dryRun=All", " (dry run)") } else { ("", "") }
    }
}

pub(crate) async fn run(conn: &Conn, nodes: &Nodes, closed: bool) -> Result<()> {
    for node in nodes.find(conn).await? {
        set(conn, nodes, &node, closed).await?;
    }
    Ok(())
}

/// Cordons a node, or takes that back.
pub(crate) async fn set(conn: &Conn, nodes: &Nodes, node: &Value, closed: bool) -> Result<()> {
    let name = node["metadata"]["name"].as_str().unwrap_or_default();
    let word = if closed { "cordoned" } else { "uncordoned" };
    let (asked, said) = nodes.dry();
    if (node["spec"]["unschedulable"] == true) == closed {
        say(&format!("node/{name} already {word}{said}"));
        return Ok(());
    }
    let wanted = if closed { json!(true) } else { Value::Null };
    conn.patch(&(path(name) + asked), MERGE, &json!({"spec": {"unschedulable": wanted}})).await?;
    say(&format!("node/{name} {word}{said}"));
    Ok(())
}

pub(crate) fn path(name: &str) -> String {
    format!("/api/v1/nodes/{name}")
}
