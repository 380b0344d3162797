//! `function logs`: what all instances of a function say. One whose container has not started yet says nothing and keeps
//! nobody from hearing the others; with `-f` it is heard from when it starts.

use crate::api::{Conn, explain};
use crate::output::note;
use anyhow::{Result, bail};
use futures::{AsyncBufReadExt, StreamExt};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;
use tokio::task::JoinSet;

pub(super) async fn run(conn: &Conn, name: &str, follow: bool) -> Result<()> {
    // A function that there is not is told apart from one that nobody has called.
    conn.get(&super::path(conn, Some(name))).await?;
    if follow { all_from_now_on(conn, name).await } else { all_so_far(conn, name).await }
}

fn pods(conn: &Conn, name: &str) -> String {
    format!("/api/v1/namespaces/{}/pods?labelSelector=minik8s.io%2Ffunction%3D{name}", conn.namespace)
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// True where a container of the pod has begun, now or before its last restart.
fn has_begun(pod: &Value) -> bool {
    let statuses = pod["status"]["containerStatuses"].as_array();
    statuses.into_iter().flatten().any(|status| {
        let is = |state: &str, what: &str| status[state][what].is_object();
        is("state", "running") || is("state", "terminated") || is("lastState", "terminated")
    })
}

/// An instance may end, or begin anew, between the look at it and the question for its log.
fn is_no_log(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<kube::Error>(), Some(kube::Error::Api(status)) if matches!(status.code, 400 | 404))
}

async fn all_so_far(conn: &Conn, name: &str) -> Result<()> {
    let pods = conn.get(&pods(conn, name)).await?["items"].as_array().cloned().unwrap_or_default();
    if pods.is_empty() {
        bail!("no instance of function {name} runs: what those before it said is gone with them");
    }
    for pod in &pods {
        let instance = name_of(pod);
        if !has_begun(pod) {
            note(&format!("instance {instance} has not started yet"));
            continue;
        }
        match print(conn, &instance, false).await {
            Err(error) if is_no_log(&error) => note(&format!("instance {instance} has no log: {error}")),
            other => other?,
        }
    }
    Ok(())
}

/// Prints a log by whole lines, so that those of several instances do not run into each other.
async fn print(conn: &Conn, pod: &str, follow: bool) -> Result<()> {
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/log?follow={follow}", conn.namespace);
    let request = http::Request::get(path).body(Vec::new())?;
    let mut stream = std::pin::pin!(conn.client.request_stream(request).await.map_err(explain)?);
    let mut line = Vec::new();
    while stream.read_until(b'\n', &mut line).await? > 0 {
        let mut out = std::io::stdout().lock();
        // Nobody reads any more.
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            std::process::exit(0);
        }
        line.clear();
    }
    Ok(())
}

/// How long a watch or a log that was refused is not asked for again.
const REFUSED: Duration = Duration::from_secs(1);

/// Follows every instance from when it starts, those to come too, until the function is deleted.
async fn all_from_now_on(conn: &Conn, name: &str) -> Result<()> {
    let mut ears = Ears { conn, heard: BTreeSet::new(), printing: JoinSet::new() };
    loop {
        let list = conn.get(&pods(conn, name)).await?;
        let version = list["metadata"]["resourceVersion"].as_str().unwrap_or("0").to_owned();
        list["items"].as_array().into_iter().flatten().for_each(|pod| ears.hear(pod));
        // It may have gone while nobody watched.
        if is_gone(conn, name).await || ears.watch(name, &version).await? {
            ears.printing.join_all().await;
            return Ok(());
        }
    }
}

async fn is_gone(conn: &Conn, name: &str) -> bool {
    conn.get(&super::path(conn, Some(name))).await.is_err_and(|e| crate::api::is_not_found(&e))
}

/// A life of an instance's container.
type Life = (String, u64);

/// The life that a pod's container has now: one that starts anew has a log anew.
fn life(pod: &Value) -> Life {
    let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
    (name_of(pod), restarts.unwrap_or_default())
}

/// Who is listened to.
struct Ears<'a> {
    conn: &'a Conn,
    heard: BTreeSet<Life>,
    /// Logs that are printed; each tells whose it was if it broke off, to be heard again.
    printing: JoinSet<Option<Life>>,
}

impl Ears<'_> {
    /// Watches instances until the watch ends; true where the function has gone.
    async fn watch(&mut self, name: &str, version: &str) -> Result<bool> {
        let watch = format!("{}&watch=true&resourceVersion={version}", pods(self.conn, name));
        let request = http::Request::get(watch).body(Vec::new())?;
        let mut lines = std::pin::pin!(self.conn.client.request_stream(request).await.map_err(explain)?.lines());
        loop {
            let line = tokio::select! {
                line = lines.next() => line,
                Some(ended) = self.printing.join_next() => {
                    let Ok(Some(life)) = ended else { continue };
                    self.heard.remove(&life);
                    // What happened to it meanwhile was seen while it was heard still: nothing may follow.
                    tokio::time::sleep(REFUSED).await;
                    return Ok(false);
                }
            };
            let Some(line) = line else { return Ok(false) };
            let event: Value = serde_json::from_str(&line?)?;
            match event["type"].as_str() {
                Some("ADDED" | "MODIFIED") => self.hear(&event["object"]),
                Some("DELETED") => {
                    let gone = name_of(&event["object"]);
                    self.heard.retain(|(instance, _)| *instance != gone);
                    if is_gone(self.conn, name).await {
                        return Ok(true);
                    }
                }
                _ => {
                    tokio::time::sleep(REFUSED).await;
                    return Ok(false);
                }
            }
        }
    }

    fn hear(&mut self, pod: &Value) {
        let life = life(pod);
        if !has_begun(pod) || !self.heard.insert(life.clone()) {
            return;
        }
        let conn = self.conn.clone();
        self.printing.spawn(async move {
            let error = print(&conn, &life.0, true).await.err()?;
            note(&format!("instance {} is heard no more: {error}", life.0));
            Some(life)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_has_not_started_has_no_log() {
        let table = [
            (json!({}), false),
            (json!({"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}), false),
            (json!({"containerStatuses": [{"state": {"waiting": {}}, "lastState": {"terminated": {}}}]}), true),
            (json!({"containerStatuses": [{"state": {"running": {}}}]}), true),
            (json!({"containerStatuses": [{"state": {"terminated": {"exitCode": 1}}}]}), true),
        ];
        for (status, begun) in table {
            assert_eq!(has_begun(&json!({ "status": status })), begun, "{status}");
        }
    }

    #[test]
    fn a_container_that_starts_anew_is_heard_anew() {
        let pod = |restarts: u64| json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [{"restartCount": restarts}]}});
        assert_eq!(life(&pod(0)), life(&json!({"metadata": {"name": "p"}})));
        assert_eq!(life(&pod(1)), life(&pod(1)));
        assert_ne!(life(&pod(0)), life(&pod(1)));
    }
}
