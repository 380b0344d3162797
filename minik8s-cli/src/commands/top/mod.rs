//! `top`: what nodes and pods use, as a table or as a screen that follows it.

mod frame;
mod live;
mod model;

use super::get::query;
use crate::api::Conn;
use crate::output::{Rows, render, say};
use anyhow::{Context, Result, bail};
use clap::{Args as ClapArgs, ValueEnum};
use model::{Sort, View};
use serde_json::Value;
use std::io::IsTerminal;

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Pods
    #[value(alias = "pod", alias = "po")]
    Pods,
    /// Nodes
    #[value(alias = "node", alias = "no")]
    Nodes,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Top {
    /// What [default: both, live on a terminal]
    #[arg(value_name = "TYPE")]
    what: Option<What>,
    /// Only the one of this name
    #[arg(value_name = "NAME", conflicts_with = "selector")]
    name: Option<String>,
    /// Only those with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", default_value = "")]
    selector: String,
    /// Pods of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Each container of the pods
    #[arg(long)]
    containers: bool,
    /// The largest first, or by name
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Sort::Name)]
    sort_by: Sort,
    /// Without the line of headings
    #[arg(long)]
    no_headers: bool,
    /// A line with the sum of the pods
    #[arg(long)]
    sum: bool,
}

pub(crate) async fn run(conn: &Conn, options: &Top) -> Result<()> {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    match options.what {
        Some(what) => print(conn, options, what).await,
        None if terminal => live::run(conn, options).await,
        None => {
            print(conn, options, What::Nodes).await?;
            say("");
            print(conn, options, What::Pods).await
        }
    }
}

async fn print(conn: &Conn, options: &Top, what: What) -> Result<()> {
    let view = match what {
        What::Pods => View { pods: pods(conn, options, options.all_namespaces).await?, ..View::default() },
        What::Nodes => View { nodes: nodes(conn, options).await?, ..View::default() },
    };
    let rows = match what {
        What::Pods => view.pod_rows(options.sort_by, options.containers, options.all_namespaces, options.sum),
        What::Nodes => view.node_rows(options.sort_by),
    };
    if rows.rows.is_empty() {
        crate::output::warn("nothing is measured: nothing runs here, or it has just started");
        return Ok(());
    }
    render(&rows, !options.no_headers).iter().for_each(|line| say(line));
    Ok(())
}

async fn pods(conn: &Conn, options: &Top, everywhere: bool) -> Result<Vec<model::Pod>> {
    let namespace = if everywhere { String::new() } else { format!("/namespaces/{}", conn.namespace) };
    let path = format!("/apis/metrics.k8s.io/v1beta1{namespace}/pods");
    read(conn, &path, options).await?.iter().map(model::Pod::read).collect()
}

async fn nodes(conn: &Conn, options: &Top) -> Result<Vec<model::Node>> {
    let metrics = read(conn, "/apis/metrics.k8s.io/v1beta1/nodes", options).await;
    let records = read(conn, "/api/v1/nodes", options).await?;
    // A single node that does not answer is an error; of several, the others are shown.
    let metrics = if options.name.is_some() { metrics? } else { metrics.unwrap_or_default() };
    records.iter().map(|record| model::Node::read(record, &metrics)).collect()
}

/// The objects that are meant.
async fn read(conn: &Conn, path: &str, options: &Top) -> Result<Vec<Value>> {
    let Some(name) = &options.name else {
        let list = conn.get(&format!("{path}{}", query(&options.selector, ""))).await.context("no metrics")?;
        return Ok(list["items"].as_array().cloned().unwrap_or_default());
    };
    if options.all_namespaces {
        bail!("names cannot be looked up in all namespaces at once; drop -A or the name");
    }
    Ok(vec![conn.get(&format!("{path}/{name}")).await?])
}

/// Rows under headings.
fn table(headings: &[&str], rows: Vec<Vec<String>>) -> Rows {
    Rows { headings: headings.iter().map(|h| (*h).to_owned()).collect(), rows }
}
