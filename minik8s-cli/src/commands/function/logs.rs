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

/// The life of a container that is asked for with an instance's log: its id. It is the one that runs or has run; while
/// the next one waits to start, the one before. The number of restarts does not tell: it is that of the next as soon as
/// there is a next, before it says anything. `None` where none has begun yet.
fn life(pod: &Value) -> Option<&str> {
    let status = &pod["status"]["containerStatuses"][0];
    let has = |state: &str, what: &str| status[state][what].is_object();
    let id = if has("state", "running") {
        &status["containerID"]
    } else if has("state", "terminated") {
        &status["state"]["terminated"]["containerID"]
    } else if has("lastState", "terminated") {
        &status["lastState"]["terminated"]["containerID"]
    } else {
        return None;
    };
    Some(id.as_str().unwrap_or_default())
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
        if life(pod).is_none() {
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

/// A life of an instance's container: the instance's name and the container's id.
type Life = (String, String);

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
        let Some(container) = life(pod) else { return };
        let life = (name_of(pod), container.to_owned());
        // One that starts anew has a log anew.
        if !self.heard.insert(life.clone()) {
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

    /// A pod with this of its container.
    fn life_in(status: &Value) -> Option<String> {
        life(&json!({"status": {"containerStatuses": [status]}})).map(str::to_owned)
    }

    #[test]
    fn who_has_not_started_has_no_log() {
        assert_eq!(life(&json!({"status": {}})), None);
        assert_eq!(life_in(&json!({"state": {"waiting": {"reason": "ContainerCreating"}}})), None);
        // Made, not started.
        assert_eq!(life_in(&json!({"containerID": "c://0", "state": {"waiting": {}}})), None);
    }

    #[test]
    fn a_container_that_starts_anew_is_heard_anew_and_not_before_it_starts() {
        let ended = |id: &str| json!({"terminated": {"exitCode": 1, "containerID": id}});
        let waits = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let table = [
            (json!({"containerID": "c://0", "restartCount": 0, "state": {"running": {}}}), "c://0"),
            (json!({"containerID": "c://0", "restartCount": 0, "state": ended("c://0")}), "c://0"),
            (json!({"containerID": "c://0", "restartCount": 0, "state": waits, "lastState": ended("c://0")}), "c://0"),
            // The next is there and has not started: the log is still that of the one before.
            (json!({"containerID": "c://1", "restartCount": 1, "state": waits, "lastState": ended("c://0")}), "c://0"),
            (
                json!({"containerID": "c://1", "restartCount": 1, "state": {"running": {}}, "lastState": ended("c://0")}),
                "c://1",
            ),
        ];
        for (status, heard) in table {
            assert_eq!(life_in(&status).as_deref(), Some(heard), "{status}");
        }
    }
}
