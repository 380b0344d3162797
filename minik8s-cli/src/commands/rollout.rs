//! `rollout`: watch, undo, restart or stop the change of a Deployment.

use crate::api::{Conn, MERGE, Resources, STRATEGIC, parse_what};
use crate::args::{Rollout, RolloutTarget};
use crate::output::{Rows, render, say};
use anyhow::{Context, Result, bail};
use futures::{AsyncBufReadExt, StreamExt};
use serde_json::{Value, json};
use std::time::Duration;

const REVISION: &str = "deployment.kubernetes.io/revision";
const CAUSE: &str = "kubernetes.io/change-cause";
const HASH: &str = "pod-template-hash";

/// The Deployment that a rollout command is about.
struct Target<'a> {
    conn: &'a Conn,
    path: String,
    name: String,
}

pub(crate) async fn run(conn: &Conn, command: &Rollout) -> Result<()> {
    let (Rollout::Status(options)
    | Rollout::History(options)
    | Rollout::Undo(options)
    | Rollout::Restart(options)
    | Rollout::Pause(options)
    | Rollout::Resume(options)) = command
    else {
        return Ok(());
    };
    for target in targets(conn, options).await? {
        match command {
            Rollout::Status(_) => target.status(Duration::from_secs(options.timeout)).await?,
            Rollout::History(_) => target.history().await?,
            Rollout::Undo(_) => target.undo(options.to_revision).await?,
            Rollout::Restart(_) => target.restart().await?,
            Rollout::Pause(_) => target.pause(true).await?,
            Rollout::Resume(_) => target.pause(false).await?,
            // Of routes, not of Deployments.
            Rollout::Canary(_) => {}
        }
    }
    Ok(())
}

async fn targets<'a>(conn: &'a Conn, options: &RolloutTarget) -> Result<Vec<Target<'a>>> {
    let known = Resources::load(conn).await?;
    let mut out = Vec::new();
    for selected in parse_what(&known, &options.what)? {
        if selected.resource.kind != "Deployment" {
            bail!("rollouts are of Deployments, not of {}", selected.resource.plural);
        }
        if selected.names.is_empty() {
            bail!("say which Deployment: deploy/NAME");
        }
        for name in selected.names {
            out.push(Target { conn, path: selected.resource.path(&conn.namespace, Some(&name)), name });
        }
    }
    Ok(out)
}

impl Target<'_> {
    async fn status(&self, timeout: Duration) -> Result<()> {
        tokio::time::timeout(timeout, self.follow())
            .await
            .with_context(|| format!("deployment {:?} was not rolled out within {} s", self.name, timeout.as_secs()))?
    }

    /// Says each new stage until the rollout is complete or has failed.
    async fn follow(&self) -> Result<()> {
        let mut said = String::new();
        let mut tell = |deployment: &Value| -> Result<bool> {
            let (line, done) = progress(deployment)?;
            if line != said {
                say(&line);
                said = line;
            }
            Ok(done)
        };
        loop {
            let deployment = self.conn.get(&self.path).await?;
            if tell(&deployment)? {
                return Ok(());
            }
            let version = deployment["metadata"]["resourceVersion"].as_str().unwrap_or("0");
            let collection = self.path.rsplit_once('/').map(|(c, _)| c).unwrap_or_default();
            let watch = format!(
                "{collection}?fieldSelector=metadata.name%3D{}&watch=true&resourceVersion={version}",
                self.name
            );
            let request = http::Request::get(watch).body(Vec::new())?;
            let stream = self.conn.client.request_stream(request).await.map_err(crate::api::explain)?;
            let mut lines = std::pin::pin!(stream.lines());
            while let Some(line) = lines.next().await {
                let event: Value = serde_json::from_str(&line?)?;
                match event["type"].as_str() {
                    Some("DELETED") => bail!("deployment {:?} was deleted", self.name),
                    Some("ADDED" | "MODIFIED") if tell(&event["object"])? => return Ok(()),
                    Some("ERROR") => break,
                    _ => {}
                }
            }
        }
    }

    /// The ReplicaSets of the Deployment with their revisions, oldest first.
    async fn revisions(&self) -> Result<Vec<(u64, Value)>> {
        let uid = self.conn.get(&self.path).await?["metadata"]["uid"].clone();
        let list = self.conn.get(&format!("/apis/apps/v1/namespaces/{}/replicasets", self.conn.namespace)).await?;
        let mut out: Vec<(u64, Value)> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|rs| rs["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|o| o["uid"] == uid))
            .filter_map(|rs| Some((rs["metadata"]["annotations"][REVISION].as_str()?.parse().ok()?, rs.clone())))
            .collect();
        out.sort_by_key(|(revision, _)| *revision);
        Ok(out)
    }

    async fn history(&self) -> Result<()> {
        let row = |(revision, rs): (u64, Value)| {
            let annotations = &rs["metadata"]["annotations"];
            let containers = rs["spec"]["template"]["spec"]["containers"].as_array().cloned().unwrap_or_default();
            let images: Vec<&str> = containers.iter().filter_map(|c| c["image"].as_str()).collect();
            vec![revision.to_string(), images.join(","), annotations[CAUSE].as_str().unwrap_or("<none>").to_owned()]
        };
        let rows = self.revisions().await?.into_iter().map(row).collect();
        let headings = ["REVISION", "IMAGES", "CHANGE-CAUSE"].map(str::to_owned).to_vec();
        render(&Rows { headings, rows }, true).iter().for_each(|line| say(line));
        Ok(())
    }

    async fn undo(&self, to: Option<u64>) -> Result<()> {
        let revisions = self.revisions().await?;
        let wanted = match to {
            Some(revision) => revisions.iter().find(|(r, _)| *r == revision),
            None => revisions.iter().rev().nth(1),
        };
        let Some((revision, rs)) = wanted else {
            let known: Vec<String> = revisions.iter().map(|(r, _)| r.to_string()).collect();
            bail!("deployment {:?} has no such earlier revision; it has {}", self.name, known.join(", "));
        };
        let mut template = rs["spec"]["template"].clone();
        if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
            labels.remove(HASH);
        }
        let patch = json!([{"op": "replace", "path": "/spec/template", "value": template}]);
        self.conn.patch(&self.path, "application/json-patch+json", &patch).await?;
        say(&format!("deployment.apps/{} rolled back to revision {revision}", self.name));
        Ok(())
    }

    async fn restart(&self) -> Result<()> {
        let now = jiff::Timestamp::now().to_string();
        let annotation = json!({"kubectl.kubernetes.io/restartedAt": now});
        let patch = json!({"spec": {"template": {"metadata": {"annotations": annotation}}}});
        self.conn.patch(&self.path, STRATEGIC, &patch).await?;
        say(&format!("deployment.apps/{} restarted", self.name));
        Ok(())
    }

    async fn pause(&self, paused: bool) -> Result<()> {
        let value = if paused { Value::Bool(true) } else { Value::Null };
        self.conn.patch(&self.path, MERGE, &json!({"spec": {"paused": value}})).await?;
        say(&format!("deployment.apps/{} {}", self.name, if paused { "paused" } else { "resumed" }));
        Ok(())
    }
}

/// The stage of a rollout in words, and whether it is complete.
fn progress(deployment: &Value) -> Result<(String, bool)> {
    let name = deployment["metadata"]["name"].as_str().unwrap_or_default();
    let status = &deployment["status"];
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
    if count("observedGeneration") < deployment["metadata"]["generation"].as_i64().unwrap_or(0) {
        return Ok((format!("waiting for deployment {name:?}: the change has not been seen yet"), false));
    }
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    if let Some(c) = conditions.iter().find(|c| c["reason"] == "ProgressDeadlineExceeded") {
        bail!("deployment {name:?} makes no progress: {}", c["message"].as_str().unwrap_or_default());
    }
    let (updated, all, available) = (count("updatedReplicas"), count("replicas"), count("availableReplicas"));
    let line = if updated < wanted {
        format!("waiting for deployment {name:?}: {updated} of {wanted} new replicas are made")
    } else if all > updated {
        format!("waiting for deployment {name:?}: {} old replicas are to go", all - updated)
    } else if available < updated {
        format!("waiting for deployment {name:?}: {available} of {updated} new replicas are available")
    } else {
        return Ok((format!("deployment {name:?} is rolled out: {available} of {wanted} replicas available"), true));
    };
    Ok((line, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_of_a_rollout_are_told_apart() {
        // observed, updated, replicas, available, part of the line, done
        let table = [
            (1, 0, 3, 3, "has not been seen", false),
            (2, 1, 3, 3, "1 of 3 new replicas are made", false),
            (2, 3, 4, 3, "1 old replicas are to go", false),
            (2, 3, 3, 2, "2 of 3 new replicas are available", false),
            (2, 3, 3, 3, "is rolled out", true),
        ];
        for (observed, updated, replicas, available, part, done) in table {
            let status = json!({"observedGeneration": observed, "updatedReplicas": updated, "replicas": replicas, "availableReplicas": available});
            let deployment =
                json!({"metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 3}, "status": status});
            let (line, is_done) = progress(&deployment).unwrap();
            assert!(line.contains(part) && is_done == done, "{line}");
        }
    }
}
