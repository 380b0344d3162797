//! `rollout canary`: more and more requests for the second backend of an HTTPRoute, or for another template of a
//! Deployment, and back where that fails.

mod beside;
mod deployment;

use crate::api::{Conn, MERGE, is_not_found};
use crate::args::CanaryOptions;
use crate::output::say;
use anyhow::{Context, Result, bail};
use minik8s_core::controllers::canary::{Canary, Phase};
use minik8s_core::routing::CANARY_ANNOTATION;
use serde_json::{Value, json};
use std::time::Duration;

/// How often the route is looked at.
const LOOK: Duration = Duration::from_millis(300);

/// What a canary is of.
enum About<'a> {
    Route(&'a str),
    Deployment(&'a str),
}

pub(super) async fn run(conn: &Conn, options: &CanaryOptions) -> Result<()> {
    let name = match about(conn, &options.name).await? {
        About::Route(name) => {
            of_route(conn, name, options).await?;
            name.to_owned()
        }
        About::Deployment(name) => deployment::run(conn, name, options).await?,
    };
    if options.no_wait {
        say(&format!("httproute/{name}: the canary begins"));
        return Ok(());
    }
    follow(conn, &path(conn, &name), &name, options.abort).await
}

fn path(conn: &Conn, route: &str) -> String {
    format!("/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes/{route}", conn.namespace)
}

/// A bare name is a route's with two backends, or a Deployment's.
async fn about<'a>(conn: &Conn, name: &'a str) -> Result<About<'a>> {
    match name.split_once('/') {
        Some(("httproute" | "httproutes", name)) => return Ok(About::Route(name)),
        Some(("deploy" | "deployment" | "deployments" | "deployment.apps" | "deployments.apps", name)) => {
            return Ok(About::Deployment(name));
        }
        Some((kind, _)) => bail!("a canary is of an HTTPRoute or a Deployment, not of {kind}"),
        None => {}
    }
    match conn.get(&path(conn, name)).await {
        Ok(route) if two_backends(&route) => return Ok(About::Route(name)),
        Err(error) if !is_not_found(&error) => return Err(error),
        _ => {}
    }
    match conn.get(&deployment::path(conn, name)).await {
        Ok(_) => Ok(About::Deployment(name)),
        Err(error) if is_not_found(&error) => {
            bail!("there is neither a Deployment {name} nor an HTTPRoute {name} of which a rule has two backends")
        }
        Err(error) => Err(error),
    }
}

fn two_backends(route: &Value) -> bool {
    let mut rules = route.pointer("/spec/rules").and_then(Value::as_array).into_iter().flatten();
    rules.any(|rule| rule["backendRefs"].as_array().is_some_and(|all| all.len() == 2))
}

/// The canary as an annotation has it, if there is one.
fn noted(route: &Value) -> Option<Canary> {
    serde_json::from_str(route["metadata"]["annotations"][CANARY_ANNOTATION].as_str()?).ok()
}

/// What is wanted.
fn wanted(options: &CanaryOptions) -> Canary {
    let to = options.to.unwrap_or(100);
    Canary {
        to,
        step: options.step.unwrap_or(to).min(to),
        interval_seconds: options.interval,
        max_error_rate: Some(options.max_error_rate),
        max_latency_ms: options.max_latency,
        min_requests: options.min_requests,
        ..Canary::default()
    }
}

/// What ends the canary of a route.
fn aborted(route: &Value, name: &str) -> Result<Canary> {
    let canary = noted(route).with_context(|| format!("httproute/{name} has no canary"))?;
    match canary.phase {
        Phase::RolledBack => bail!("the canary of httproute/{name} was taken back before: {}", canary.message),
        Phase::Promoting => bail!("the canary has proven itself, and its Deployment rolls: see rollout undo"),
        Phase::Completed if canary.percent >= 100 => bail!("the canary of httproute/{name} is over"),
        Phase::Progressing | Phase::Completed => {}
    }
    Ok(Canary { stop: true, phase: Phase::Progressing, ..canary })
}

async fn of_route(conn: &Conn, name: &str, options: &CanaryOptions) -> Result<()> {
    if !(options.image.is_empty() && options.patch.is_none()) {
        bail!("--image and --patch are for canaries of Deployments; the second backend of a route is there already");
    }
    let route: Value = conn.get(&path(conn, name)).await?;
    if !two_backends(&route) {
        bail!("no rule of HTTPRoute {name} has two backends: the first is what runs, the second is the canary");
    }
    let canary = if options.abort { aborted(&route, name)? } else { wanted(options) };
    let annotation = serde_json::to_string(&canary)?;
    conn.patch(&path(conn, name), MERGE, &json!({"metadata": {"annotations": {CANARY_ANNOTATION: annotation}}}))
        .await?;
    Ok(())
}

/// Says how it goes, until it is over. To be taken back is a failure, but for who asked for it.
async fn follow(conn: &Conn, path: &str, name: &str, abort: bool) -> Result<()> {
    let mut told = None;
    loop {
        let route: Value = conn.get(path).await?;
        let canary = noted(&route).context("somebody has stopped the canary")?;
        match canary.phase {
            Phase::Completed => {
                say(&format!("httproute/{name}: the canary {}", canary.message));
                return Ok(());
            }
            Phase::RolledBack if abort => {
                say(&format!("httproute/{name}: the canary was {}", canary.message));
                return Ok(());
            }
            Phase::RolledBack => bail!("httproute/{name}: the canary was {}", canary.message),
            now if told == Some((now, canary.percent)) || canary.since == 0 => {}
            Phase::Progressing => {
                say(&format!("httproute/{name}: the canary gets {} %", canary.percent));
                told = Some((canary.phase, canary.percent));
            }
            Phase::Promoting => {
                say(&format!("httproute/{name}: the canary {}; its template becomes that of all", canary.message));
                told = Some((canary.phase, canary.percent));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
