//! `rollout canary`: an HTTPRoute gives its second backend more and more, and takes it back where that fails.

use crate::api::{Conn, MERGE};
use crate::args::CanaryOptions;
use crate::output::say;
use anyhow::{Context, Result, bail};
use minik8s_core::controllers::canary::{Canary, Phase};
use minik8s_core::routing::CANARY_ANNOTATION;
use serde_json::{Value, json};
use std::time::Duration;

/// How often the route is looked at.
const LOOK: Duration = Duration::from_millis(300);

pub(super) async fn run(conn: &Conn, options: &CanaryOptions) -> Result<()> {
    let name = options.name.strip_prefix("httproute/").unwrap_or(&options.name);
    let path = format!("/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes/{name}", conn.namespace);
    let route: Value = conn.get(&path).await?;
    let mut rules = route.pointer("/spec/rules").and_then(Value::as_array).into_iter().flatten();
    let two = |rule: &&Value| rule["backendRefs"].as_array().is_some_and(|all| all.len() == 2);
    if rules.find(two).is_none() {
        bail!("no rule of HTTPRoute {name} has two backends: the first is what runs, the second is the canary");
    }
    let canary = Canary {
        to: options.to,
        step: options.step.unwrap_or(options.to).min(options.to),
        interval_seconds: options.interval,
        max_error_rate: options.max_error_rate,
        max_latency_ms: options.max_latency,
        min_requests: options.min_requests,
        ..Canary::default()
    };
    let annotation = serde_json::to_string(&canary)?;
    conn.patch(&path, MERGE, &json!({"metadata": {"annotations": {CANARY_ANNOTATION: annotation}}})).await?;
    if options.no_wait {
        say(&format!("httproute/{name}: the canary begins"));
        return Ok(());
    }
    follow(conn, &path, name).await
}

/// Says how it goes, until it is over.
async fn follow(conn: &Conn, path: &str, name: &str) -> Result<()> {
    let mut told = None;
    loop {
        let route: Value = conn.get(path).await?;
        let text = route["metadata"]["annotations"][CANARY_ANNOTATION].as_str();
        let canary: Canary = serde_json::from_str(text.context("somebody has stopped the canary")?)?;
        match canary.phase {
            Phase::Completed => {
                say(&format!("httproute/{name}: the canary {}", canary.message));
                return Ok(());
            }
            Phase::RolledBack => bail!("httproute/{name}: the canary was {}", canary.message),
            Phase::Progressing if told != Some(canary.percent) => {
                say(&format!("httproute/{name}: the canary gets {} %", canary.percent));
                told = Some(canary.percent);
            }
            Phase::Progressing => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}
