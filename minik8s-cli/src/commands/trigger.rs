//! `trigger`: what is done about events that did not come through.

use crate::api::{Conn, MERGE};
use crate::args::TriggerCommand;
use crate::output::say;
use anyhow::{Result, bail};
use serde_json::json;

pub(crate) async fn run(conn: &Conn, command: &TriggerCommand) -> Result<()> {
    let TriggerCommand::Redeliver { deliveries } = command;
    for name in deliveries {
        redeliver(conn, name).await?;
    }
    Ok(())
}

/// Has a dead delivery tried again, as often as at first. It keeps its name, from which its key follows.
async fn redeliver(conn: &Conn, name: &str) -> Result<()> {
    let path = format!("/apis/minik8s.io/v1alpha1/namespaces/{}/triggerdeliveries/{name}", conn.namespace);
    let found = conn.get(&path).await?;
    match found["status"]["phase"].as_str() {
        Some("Dead") => {}
        Some("Delivered") => bail!("the delivery {name} is delivered: only dead ones are tried again"),
        _ => bail!("the delivery {name} is not given up yet: it is tried again by itself"),
    }
    // What was seen is meant: somebody else may have done the same.
    let version = &found["metadata"]["resourceVersion"];
    let status = json!({"phase": "Pending", "attempts": 0, "nextAttempt": null, "finishedAt": null});
    let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
    conn.patch(&format!("{path}/status"), MERGE, &patch).await?;
    say(&format!("triggerdelivery.minik8s.io/{name} is tried again"));
    Ok(())
}
