//! `function`: functions by command. What a cluster does with them, it does by itself: these commands upload files and
//! write objects.

mod archive;
mod base;
mod logs;
mod registry;

use crate::api::Conn;
use crate::api::MERGE;
use crate::args::{Args, Code, Describe, Function, Get};
use crate::output::{note, say};
use anyhow::{Context, Result, bail};
use futures::{AsyncBufReadExt, StreamExt};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How long a function may take to become ready.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) async fn run(args: &Args, command: &Function) -> Result<()> {
    let conn = &Conn::open(args).await?;
    match command {
        Function::Create(code) => {
            let spec = spec(conn, code, None).await?;
            let object = json!({"apiVersion": "minik8s.io/v1alpha1", "kind": "Function",
                "metadata": {"name": code.name}, "spec": spec});
            conn.post(&path(conn, None), &object).await?;
            say(&format!("function {} created", code.name));
            finish(conn, code).await
        }
        Function::Update(code) => {
            let before = conn.get(&path(conn, Some(&code.name))).await?;
            let spec = spec(conn, code, before["spec"]["runtime"].as_str()).await?;
            conn.patch(&path(conn, Some(&code.name)), MERGE, &json!({ "spec": spec })).await?;
            say(&format!("function {} updated", code.name));
            finish(conn, code).await
        }
        Function::Get { name, output } => super::get::run(conn, &get(name.as_deref(), output)).await,
        Function::Describe { name } => describe(conn, name).await,
        Function::Delete { names } => {
            for name in names {
                conn.delete(&path(conn, Some(name)), &json!({})).await?;
                say(&format!("function {name} deleted"));
            }
            Ok(())
        }
        Function::Rollback { name, to } => rollback(conn, name, *to).await,
        Function::Logs { name, follow } => logs::run(conn, name, *follow).await,
        Function::Base { name, from } => base::add(conn, name, from).await,
    }
}

fn path(conn: &Conn, name: Option<&str>) -> String {
    let name = name.map(|name| format!("/{name}")).unwrap_or_default();
    format!("/apis/minik8s.io/v1alpha1/namespaces/{}/functions{name}", conn.namespace)
}

fn get(name: Option<&str>, output: &str) -> Get {
    Get {
        raw: None,
        what: vec![name.map_or_else(|| "functions".to_owned(), |name| format!("functions/{name}"))],
        output: output.to_owned(),
        selector: String::new(),
        field_selector: String::new(),
        all_namespaces: false,
        watch: false,
        no_headers: false,
    }
}

/// What the arguments say of a function; its files are uploaded.
/// What is asked for, of a function with that runtime where there is one.
async fn spec(conn: &Conn, code: &Code, before: Option<&str>) -> Result<Value> {
    let mut spec = Map::new();
    if let Some(files) = &code.files {
        let source = registry::upload(conn, archive::of(files)?).await?;
        spec.insert("source".to_owned(), source);
        spec.insert("runtime".to_owned(), json!(runtime_of_files(code.runtime.as_deref(), before)));
    } else if let Some(runtime) = &code.runtime {
        spec.insert("runtime".to_owned(), json!(runtime));
    }
    for (field, text) in [("handler", &code.handler), ("image", &code.image)] {
        text.iter().for_each(|text| drop(spec.insert(field.to_owned(), json!(text))));
    }
    for (field, number) in [("concurrency", code.concurrency), ("timeoutSeconds", code.timeout)] {
        number.iter().for_each(|number| drop(spec.insert(field.to_owned(), json!(number))));
    }
    if let Some(percent) = code.canary {
        spec.insert("canaryPercent".to_owned(), if percent == 100 { Value::Null } else { json!(percent) });
    }
    let mut scale = Map::new();
    let of_scale = [("min", code.min), ("max", code.max), ("idleSeconds", code.idle), ("pausedSeconds", code.paused)];
    for (field, number) in of_scale {
        number.iter().for_each(|number| drop(scale.insert(field.to_owned(), json!(number))));
    }
    if !scale.is_empty() {
        spec.insert("scale".to_owned(), scale.into());
    }
    if !code.env.is_empty() {
        let pairs = code.env.iter().map(|pair| {
            let (name, value) = pair.split_once('=').with_context(|| format!("--env {pair:?}: write NAME=VALUE"))?;
            Ok(json!({"name": name, "value": value}))
        });
        spec.insert("env".to_owned(), pairs.collect::<Result<_>>()?);
    }
    Ok(spec.into())
}

/// What a function says of itself; its log too where it has failed.
fn state(function: &Value) -> Result<Option<String>> {
    let status = &function["status"];
    if status["observedGeneration"] != function["metadata"]["generation"] {
        return Ok(None);
    }
    let condition = &status["conditions"][0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match (condition["status"].as_str(), condition["reason"].as_str()) {
        (Some("True"), _) => Ok(Some(text(&status["url"]))),
        (_, Some("Failed")) => {
            let (message, log) = (text(&condition["message"]), text(&status["log"]));
            let more = if message.contains(log.trim()) { String::new() } else { format!("\n{log}") };
            bail!("{message}{more}")
        }
        _ => Ok(None),
    }
}

async fn finish(conn: &Conn, code: &Code) -> Result<()> {
    if code.no_wait {
        return Ok(());
    }
    let Ok(url) = tokio::time::timeout(PATIENCE, ready(conn, &code.name)).await else {
        let function = conn.get(&path(conn, Some(&code.name))).await.unwrap_or_default();
        let why = function["status"]["conditions"][0]["message"].as_str().unwrap_or("nothing is told of it").to_owned();
        bail!("function {} is not ready after {} s: {why}", code.name, PATIENCE.as_secs());
    };
    let url = url.inspect_err(|_| {
        note(&format!("function {0} is kept: mend it with `minik8s function update {0}`, or delete it", code.name));
    })?;
    say(&format!("ready at {url} of every gateway"));
    Ok(())
}

/// Follows a function until it is ready, and answers its address. What it waits for is told meanwhile.
async fn ready(conn: &Conn, name: &str) -> Result<String> {
    let mut told = String::new();
    let mut state = |function: &Value| {
        let url = state(function)?;
        let why = function["status"]["conditions"][0]["message"].as_str().unwrap_or_default();
        if url.is_none() && !why.is_empty() && why != told {
            note(why);
            told = why.to_owned();
        }
        Ok::<_, anyhow::Error>(url)
    };
    loop {
        let function = conn.get(&path(conn, Some(name))).await?;
        if let Some(url) = state(&function)? {
            return Ok(url);
        }
        let version = function["metadata"]["resourceVersion"].as_str().unwrap_or("0");
        let watch =
            format!("{}?fieldSelector=metadata.name%3D{name}&watch=true&resourceVersion={version}", path(conn, None));
        let request = http::Request::get(watch).body(Vec::new())?;
        let stream = conn.client.request_stream(request).await.map_err(crate::api::explain)?;
        let mut lines = std::pin::pin!(stream.lines());
        while let Some(line) = lines.next().await {
            let event: Value = serde_json::from_str(&line?)?;
            match event["type"].as_str() {
                Some("DELETED") => bail!("function {name} was deleted"),
                Some("ADDED" | "MODIFIED") => {
                    if let Some(url) = state(&event["object"])? {
                        return Ok(url);
                    }
                }
                _ => break,
            }
        }
    }
}

/// What runs files where nobody says it: what ran those before them.
fn runtime_of_files<'a>(said: Option<&'a str>, before: Option<&'a str>) -> &'a str {
    said.or(before.filter(|runtime| *runtime != "image")).unwrap_or("python")
}

/// The revisions of a function, oldest first.
async fn revisions(conn: &Conn, name: &str) -> Result<Vec<Value>> {
    let list = format!(
        "/apis/minik8s.io/v1alpha1/namespaces/{}/functionrevisions?labelSelector=minik8s.io%2Ffunction%3D{name}",
        conn.namespace
    );
    let mut all = conn.get(&list).await?["items"].as_array().cloned().unwrap_or_default();
    all.sort_by_key(|revision| revision["spec"]["number"].as_i64());
    Ok(all)
}

async fn describe(conn: &Conn, name: &str) -> Result<()> {
    let described =
        Describe { what: vec![format!("functions/{name}")], selector: String::new(), all_namespaces: false };
    super::describe::run(conn, &described).await?;
    say("Revisions:");
    for revision in revisions(conn, name).await? {
        let text = |pointer: &str| revision.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = revision["spec"]["number"].as_i64().unwrap_or(0);
        say(&format!("  {number}  {}  {}", text("/metadata/name"), text("/status/conditions/0/message")));
    }
    Ok(())
}

/// Writes what an earlier revision was made of into the function.
async fn rollback(conn: &Conn, name: &str, to: Option<i64>) -> Result<()> {
    let all = revisions(conn, name).await?;
    let numbers = || all.iter().map(|r| r["spec"]["number"].to_string()).collect::<Vec<_>>().join(", ");
    let found = match to {
        None => all.iter().rev().nth(1),
        Some(number) => all.iter().find(|r| r["spec"]["number"].as_i64() == Some(number)),
    };
    let Some(found) = found else { bail!("function {name} has no such revision to go back to, only {}", numbers()) };
    let function = conn.get(&path(conn, Some(name))).await?;
    let mut spec = found["spec"]["template"].clone();
    // What is no part of a revision stays.
    for field in ["scale", "queue", "maxBodyBytes"] {
        spec[field] = function["spec"][field].clone();
    }
    let patch = json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": function["metadata"]["resourceVersion"]},
        {"op": "replace", "path": "/spec", "value": spec},
    ]);
    conn.patch(&path(conn, Some(name)), "application/json-patch+json", &patch).await?;
    say(&format!("function {name} goes back to revision {}", found["metadata"]["name"].as_str().unwrap_or_default()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_run_by_what_ran_those_before_them() {
        let table = [
            (None, None, "python"),
            (None, Some("node"), "node"),
            (None, Some("image"), "python"),
            (Some("node"), Some("python"), "node"),
            (Some("python"), None, "python"),
        ];
        for (said, before, want) in table {
            assert_eq!(runtime_of_files(said, before), want, "{said:?} {before:?}");
        }
    }
}
