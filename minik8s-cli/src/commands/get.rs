//! `get`: objects as a table, YAML, JSON, names or what a JSONPath finds.

use crate::api::{Conn, Resource, Resources, Selected, parse_what};
use crate::args::Get;
use crate::output::{Format, Rows, print_objects, render, say};
use anyhow::{Result, bail};
use futures::AsyncBufReadExt;
use futures::StreamExt;
use serde_json::Value;

pub(crate) async fn run(conn: &Conn, options: &Get) -> Result<()> {
    if let Some(path) = &options.raw {
        let request = http::Request::get(path).body(Vec::new())?;
        say(conn.client.request_text(request).await.map_err(crate::api::explain)?.trim_end());
        return Ok(());
    }
    let format = Format::parse(&options.output)?;
    let known = Resources::load(conn).await?;
    let selected = parse_what(&known, &options.what)?;
    if options.all_namespaces && selected.iter().any(|s| !s.names.is_empty()) {
        bail!("names cannot be looked up in all namespaces at once; drop -A or the names");
    }
    match (&format, options.watch) {
        (Format::Table { wide }, true) => watch(conn, options, &selected, *wide).await,
        (_, true) => bail!("--watch prints tables only"),
        (Format::Table { wide }, false) => tables(conn, options, &selected, *wide).await,
        (other, false) => objects(conn, options, &selected, other).await,
    }
}

impl Get {
    fn namespace<'a>(&self, conn: &'a Conn) -> &'a str {
        if self.all_namespaces { "" } else { &conn.namespace }
    }
}

/// Paths of what was selected: one per name, or the collection.
pub(crate) fn paths(namespace: &str, selected: &Selected, labels: &str, fields: &str) -> Vec<String> {
    let resource = &selected.resource;
    if selected.names.is_empty() {
        return vec![resource.path(namespace, None) + &query(labels, fields)];
    }
    selected.names.iter().map(|n| resource.path(namespace, Some(n))).collect()
}

/// The part of a path that says which objects of a collection are meant.
pub(super) fn query(labels: &str, fields: &str) -> String {
    let parts: Vec<String> = [("labelSelector", labels), ("fieldSelector", fields)]
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect();
    if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
}

/// Percent-encoding of a query value or of a part of a path (RFC 3986).
pub(super) fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

async fn tables(conn: &Conn, options: &Get, selected: &[Selected], wide: bool) -> Result<()> {
    let several = selected.len() > 1;
    let mut printed = 0;
    for selection in selected {
        let namespaces = options.all_namespaces && selection.resource.namespaced;
        let mut all = Rows::default();
        for path in paths(options.namespace(conn), selection, &options.selector, &options.field_selector) {
            let mut rows = Rows::from_table(&conn.table(&path).await?, wide, namespaces);
            all.headings = std::mem::take(&mut rows.headings);
            all.rows.extend(rows.rows);
        }
        if all.rows.is_empty() {
            continue;
        }
        if several {
            all.prefix_names(&selection.resource.label());
            if printed > 0 {
                say("");
            }
        }
        render(&all, !options.no_headers).iter().for_each(|line| say(line));
        printed += 1;
    }
    if printed == 0 {
        let place =
            if options.all_namespaces { "any namespace".into() } else { format!("namespace {:?}", conn.namespace) };
        eprint_line(&format!("nothing found in {place}"));
    }
    Ok(())
}

fn eprint_line(line: &str) {
    anstream::eprintln!("{line}");
}

async fn objects(conn: &Conn, options: &Get, selected: &[Selected], format: &Format) -> Result<()> {
    let mut found = Vec::new();
    let single = selected.len() == 1 && selected[0].names.len() == 1;
    for selection in selected {
        for path in paths(options.namespace(conn), selection, &options.selector, &options.field_selector) {
            let answer = conn.get(&path).await?;
            found.extend(items(answer, &selection.resource));
        }
    }
    print_objects(format, found, single)
}

/// The items of a list, each with kind and apiVersion, or the one object.
pub(crate) fn items(answer: Value, resource: &Resource) -> Vec<(String, Value)> {
    let Value::Object(mut map) = answer else { return Vec::new() };
    let Some(Value::Array(items)) = map.remove("items") else {
        return vec![(resource.label(), Value::Object(map))];
    };
    let complete = |mut item: Value| {
        if let Some(object) = item.as_object_mut() {
            object.entry("apiVersion").or_insert_with(|| resource.api_version().into());
            object.entry("kind").or_insert_with(|| resource.kind.clone().into());
        }
        (resource.label(), item)
    };
    items.into_iter().map(complete).collect()
}

/// The table, then one row for each change, for as long as the server goes on.
async fn watch(conn: &Conn, options: &Get, selected: &[Selected], wide: bool) -> Result<()> {
    let [selection] = selected else { bail!("--watch follows one kind") };
    let namespaces = options.all_namespaces && selection.resource.namespaced;
    let (labels, mut fields) = (&options.selector, options.field_selector.clone());
    match selection.names.as_slice() {
        [] => {}
        [name] => fields = format!("metadata.name={name}"),
        _ => bail!("--watch follows one object or all of them"),
    }
    let path = selection.resource.path(options.namespace(conn), None);
    let first = conn.table(&(path.clone() + &query(labels, &fields))).await?;
    let mut rows = Rows::from_table(&first, wide, namespaces);
    render(&rows, !options.no_headers).iter().for_each(|line| say(line));
    let version = first["metadata"]["resourceVersion"].as_str().unwrap_or("0");
    let query = query(labels, &fields);
    let joint = if query.is_empty() { "?" } else { "&" };
    let request = Conn::table_request(&format!("{path}{query}{joint}watch=true&resourceVersion={version}"))?;
    let stream = conn.client.request_stream(request).await.map_err(crate::api::explain)?;
    let mut lines = std::pin::pin!(stream.lines());
    while let Some(line) = lines.next().await {
        let event: Value = serde_json::from_str(&line?)?;
        if event["type"] == "ERROR" {
            bail!("the watch ended: {}", event["object"]["message"].as_str().unwrap_or("no reason given"));
        }
        let mut change = event["object"].clone();
        // Only the first event of a watch names the columns.
        if change["columnDefinitions"].as_array().is_none_or(Vec::is_empty) {
            change["columnDefinitions"] = first["columnDefinitions"].clone();
        }
        rows.rows = Rows::from_table(&change, wide, namespaces).rows;
        render(&rows, false).iter().for_each(|line| say(line));
    }
    Ok(())
}
