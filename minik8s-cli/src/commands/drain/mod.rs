//! `drain`: a node is cordoned, and its pods leave it as fast as their budgets allow.

mod choose;

use super::cordon::{self, Nodes};
use super::delete::until_gone;
use super::get::query;
use crate::api::Conn;
use crate::output::{say, warn};
use anyhow::{Result, bail};
use choose::{Allowed, Leaving, choose};
use clap::Args as ClapArgs;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// How many pods are evicted at once.
const PARALLEL: usize = 32;
/// Between tries where a budget refuses, as kubectl has it.
const PAUSE: Duration = Duration::from_secs(5);

/// How nodes are emptied.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Drain {
    #[command(flatten)]
    pub(crate) nodes: Nodes,
    /// Leave pods of DaemonSets where they are
    #[arg(long)]
    pub(crate) ignore_daemonsets: bool,
    /// Go on although data in emptyDir volumes is lost
    #[arg(long)]
    pub(crate) delete_emptydir_data: bool,
    /// Go on although nobody will make some of the pods again
    #[arg(long)]
    pub(crate) force: bool,
    /// Seconds that processes get to end [default: what each pod says]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) grace_period: Option<u32>,
    /// Give up after this long, such as 90, 90s, 5m or 1h; 0 never does
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Only pods with these labels leave
    #[arg(long, value_name = "SELECTOR", default_value = "")]
    pub(crate) pod_selector: String,
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("say a number of seconds, or one with a unit: 90s, 5m, 1h".to_owned()),
    };
    digits.parse::<u64>().map(|n| Duration::from_secs(n.saturating_mul(unit))).map_err(|e| e.to_string())
}

pub(crate) async fn run(conn: &Conn, options: &Drain) -> Result<()> {
    let nodes = options.nodes.find(conn).await?;
    for node in &nodes {
        cordon::set(conn, &options.nodes, node, true).await?;
    }
    for node in &nodes {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        Emptying { conn, options, node: name, refused: RefCell::default() }.run().await?;
        say(&format!("node/{name} drained{}", options.nodes.dry().1));
    }
    Ok(())
}

/// One node on its way to being empty.
struct Emptying<'a> {
    conn: &'a Conn,
    options: &'a Drain,
    node: &'a str,
    /// What keeps each pod that has to wait.
    refused: RefCell<BTreeMap<String, String>>,
}

impl Emptying<'_> {
    async fn run(&self) -> Result<()> {
        let options = self.options;
        let allowed = Allowed {
            ignore_daemonsets: options.ignore_daemonsets,
            delete_emptydir_data: options.delete_emptydir_data,
            force: options.force,
        };
        let choice = choose(&self.pods().await?, allowed);
        if !choice.obstacles.is_empty() {
            bail!("cannot drain node {:?}, which stays cordoned:\n  {}", self.node, choice.obstacles.join("\n  "));
        }
        choice.warnings.iter().for_each(|warning| warn(warning));
        let leave = futures::stream::iter(&choice.leaving).map(|pod| self.leave(pod));
        let all = leave.buffer_unordered(PARALLEL).try_collect::<()>();
        if options.timeout.is_zero() {
            return all.await;
        }
        match tokio::time::timeout(options.timeout, all).await {
            Ok(done) => done,
            Err(_) => self.gave_up(&choice.leaving).await,
        }
    }

    async fn pods(&self) -> Result<Vec<Value>> {
        let of_node = query(&self.options.pod_selector, &format!("spec.nodeName={}", self.node));
        let list = self.conn.get(&format!("/api/v1/pods{of_node}")).await?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Evicts a pod, as often as it takes, and returns when it is gone.
    async fn leave(&self, pod: &Leaving) -> Result<()> {
        let (asked, said) = self.options.nodes.dry();
        let collection = format!("/api/v1/namespaces/{}/pods", pod.namespace);
        let mut eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": {"preconditions": {"uid": pod.uid}}});
        if let Some(grace) = self.options.grace_period {
            eviction["deleteOptions"]["gracePeriodSeconds"] = grace.into();
        }
        say(&format!("evicting pod {}{said}", pod.key()));
        while let Err(error) = self.conn.post(&format!("{collection}/{}/eviction{asked}", pod.name), &eviction).await {
            match status(&error) {
                // It went on its own, or another one has its name by now.
                Some(status) if matches!(status.code, 404 | 409) => return Ok(()),
                Some(status) if status.code == 429 => self.has_to_wait(pod, status),
                _ => return Err(error.context(format!("cannot evict pod {}", pod.key()))),
            }
            if self.options.nodes.dry_run {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.refused.borrow_mut().remove(&pod.key());
        if self.options.nodes.dry_run {
            return Ok(());
        }
        until_gone(self.conn, &collection, &pod.name, &pod.uid).await?;
        say(&format!("pod {} is gone", pod.key()));
        Ok(())
    }

    /// Says it once per reason.
    fn has_to_wait(&self, pod: &Leaving, status: &kube::core::Status) {
        let causes = status.details.iter().flat_map(|d| &d.causes).map(|c| c.message.as_str());
        let why = causes.into_iter().next().filter(|why| !why.is_empty()).unwrap_or(&status.message).to_owned();
        if self.refused.borrow_mut().insert(pod.key(), why.clone()).as_ref() != Some(&why) {
            warn(&format!("pod {} has to wait: {why}", pod.key()));
        }
    }

    async fn gave_up(&self, leaving: &[Leaving]) -> Result<()> {
        let there = self.pods().await?;
        let is_there = |pod: &&Leaving| there.iter().any(|p| p["metadata"]["uid"] == pod.uid.as_str());
        let left = leaving.iter().filter(is_there);
        let refused = self.refused.borrow().clone();
        let told: Vec<String> = left
            .map(|pod| match refused.get(&pod.key()) {
                Some(why) => format!("{}: {why}", pod.key()),
                None => format!("{}: it is told to end, but has not", pod.key()),
            })
            .collect();
        let node = self.conn.get(&cordon::path(self.node)).await?;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let way_out = if conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "Unknown") {
            "the node is silent, so nobody says that its pods have ended; if it is dead for good, `minik8s delete node \
             NAME` lets them go"
        } else {
            "the node stays cordoned: drain it again to go on, or take it back with `minik8s uncordon`"
        };
        let seconds = self.options.timeout.as_secs();
        bail!("node {:?} is not empty after {seconds} s:\n  {}\n  {way_out}", self.node, told.join("\n  "))
    }
}

fn status(error: &anyhow::Error) -> Option<&kube::core::Status> {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => Some(status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_a_unit() {
        for (text, seconds) in [("0", 0), ("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "s", "1d", "-1", "1.5m"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
