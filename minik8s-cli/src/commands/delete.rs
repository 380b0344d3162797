//! `delete`: objects go, and the command returns when they are gone.

use super::get;
use crate::api::{Conn, Resource, Resources, parse_what};
use crate::args::Delete;
use crate::manifest;
use crate::output::say;
use anyhow::{Context, Result, anyhow, bail};
use futures::{AsyncBufReadExt, StreamExt};
use serde_json::{Value, json};

/// One object to delete.
struct Victim {
    resource: Resource,
    namespace: String,
    name: String,
}

/// What fails does not keep the rest: a deletion that was cut short can be repeated.
pub(crate) async fn run(conn: &Conn, options: &Delete) -> Result<()> {
    let known = Resources::load(conn).await?;
    let mut problems = Vec::new();
    let mut victims = from_files(conn, options, &known, &mut problems)?;
    if !options.what.is_empty() {
        victims.extend(from_words(conn, options, &known).await?);
    }
    let mut going = Vec::new();
    for victim in victims {
        match begin(conn, options, &victim).await {
            Ok(Some(uid)) => {
                say(&format!("{} {:?} deleted", victim.resource.label(), victim.name));
                going.push((victim, uid));
            }
            Ok(None) => {}
            Err(error) => problems.push(error),
        }
    }
    for (victim, uid) in going.iter().filter(|_| !options.no_wait) {
        let collection = victim.resource.path(&victim.namespace, None);
        problems.extend(until_gone(conn, &collection, &victim.name, uid).await.err());
    }
    match problems.len() {
        0 => Ok(()),
        1 => Err(problems.remove(0)),
        _ => {
            let all: Vec<String> = problems.iter().map(|error| format!("{error:#}")).collect();
            bail!("not everything was deleted:\n  {}", all.join("\n  "))
        }
    }
}

fn from_files(
    conn: &Conn,
    options: &Delete,
    known: &Resources,
    problems: &mut Vec<anyhow::Error>,
) -> Result<Vec<Victim>> {
    if options.filename.is_empty() {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    // Backwards: a namespace goes after what is in it.
    for m in manifest::read_all(&options.filename, false)?.into_iter().rev() {
        // Its definition may be gone already, and the objects with it.
        let Some(resource) = known.find_gvk(m.api_version(), m.kind()) else {
            problems.push(anyhow!("{}: the cluster has no kind {:?}", m.place(), m.kind()));
            continue;
        };
        let namespace = conn.namespace_of(resource, m.namespace()).with_context(|| m.place())?.to_owned();
        out.push(Victim { resource: resource.clone(), namespace, name: m.name().to_owned() });
    }
    Ok(out)
}

async fn from_words(conn: &Conn, options: &Delete, known: &Resources) -> Result<Vec<Victim>> {
    let mut out = Vec::new();
    for selected in parse_what(known, &options.what)? {
        let mut names = selected.names.clone();
        if names.is_empty() {
            if options.selector.is_empty() && !options.all {
                bail!("say which {}: by name, with --selector, or --all", selected.resource.plural);
            }
            let path = get::paths(&conn.namespace, &selected, &options.selector, "").remove(0);
            let list = get::items(conn.get(&path).await?, &selected.resource);
            names = list.iter().filter_map(|(_, o)| o["metadata"]["name"].as_str().map(str::to_owned)).collect();
        }
        let victim = |name| Victim { resource: selected.resource.clone(), namespace: conn.namespace.clone(), name };
        out.extend(names.into_iter().map(victim));
    }
    Ok(out)
}

/// Asks for the deletion; the uid of what is going, `None` where it was missing and may be.
async fn begin(conn: &Conn, options: &Delete, victim: &Victim) -> Result<Option<String>> {
    let path = victim.resource.path(&victim.namespace, Some(&victim.name));
    let mut body = json!({"propagationPolicy": "Background"});
    if let Some(grace) = options.grace_period {
        body["gracePeriodSeconds"] = grace.into();
    }
    match conn.delete(&path, &body).await {
        Ok(answer) => {
            let uid = answer.pointer("/details/uid").or_else(|| answer.pointer("/metadata/uid"));
            Ok(Some(uid.and_then(Value::as_str).unwrap_or_default().to_owned()))
        }
        Err(error) if options.ignore_not_found && crate::api::is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Watches until the object of that uid is gone from a collection.
pub(super) async fn until_gone(conn: &Conn, path: &str, name: &str, uid: &str) -> Result<()> {
    let query = format!("?fieldSelector=metadata.name%3D{name}");
    loop {
        let list = conn.get(&format!("{path}{query}")).await?;
        let still = list["items"].as_array().into_iter().flatten().any(|o| o["metadata"]["uid"] == uid);
        if !still {
            return Ok(());
        }
        let version = list["metadata"]["resourceVersion"].as_str().unwrap_or("0");
        let watch =
            http::Request::get(format!("{path}{query}&watch=true&resourceVersion={version}")).body(Vec::new())?;
        let stream = conn.client.request_stream(watch).await.map_err(crate::api::explain)?;
        let mut lines = std::pin::pin!(stream.lines());
        while let Some(line) = lines.next().await {
            let event: Value = serde_json::from_str(&line?)?;
            if event["type"] == "DELETED" || event["type"] == "ERROR" {
                break;
            }
        }
    }
}
