//! `describe`: one object for a person to read, and what happened to it.

use super::get;
use crate::api::{Conn, Resources, parse_what};
use crate::args::Describe;
use crate::output::{Rows, render, say};
use anyhow::Result;
use serde_json::Value;

pub(crate) async fn run(conn: &Conn, options: &Describe) -> Result<()> {
    let known = Resources::load(conn).await?;
    let namespace = if options.all_namespaces { "" } else { conn.namespace.as_str() };
    let mut first = true;
    for selected in parse_what(&known, &options.what)? {
        for path in get::paths(namespace, &selected, &options.selector, "") {
            for (_, object) in get::items(conn.get(&path).await?, &selected.resource) {
                if !first {
                    say("\n");
                }
                first = false;
                show(&object).iter().for_each(|line| say(line));
                events(conn, &object).await?;
            }
        }
    }
    Ok(())
}

/// Fields that say nothing to a person.
const HIDDEN: &[&str] = &["managedFields", "kubectl.kubernetes.io/last-applied-configuration"];

/// An object as indented lines; secrets only by their size.
fn show(object: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let mut object = object.clone();
    if object["kind"] == "Secret"
        && let Some(data) = object["data"].as_object_mut()
    {
        for value in data.values_mut() {
            // Base64 has four characters for three bytes, but for padding.
            let text = value.as_str().unwrap_or_default();
            let bytes = text.len() / 4 * 3 - text.bytes().rev().take_while(|b| *b == b'=').count();
            *value = Value::String(format!("{bytes} bytes"));
        }
    }
    if let Value::Object(map) = &object {
        let head = ["kind", "apiVersion", "metadata"];
        for key in head.iter().copied().chain(map.keys().map(String::as_str).filter(|k| !head.contains(k))) {
            if let Some(value) = map.get(key) {
                field(key, value, 0, &mut lines);
            }
        }
    }
    lines
}

/// `creationTimestamp` reads `Creation timestamp`, `podIP` reads `Pod IP`; keys that are data stay as they are.
fn title(key: &str) -> String {
    let letters: Vec<char> = key.chars().collect();
    if !letters.iter().all(char::is_ascii_alphanumeric) {
        return key.to_owned();
    }
    let upper = |i: usize| letters.get(i).is_some_and(char::is_ascii_uppercase);
    let mut out = String::new();
    for (i, c) in letters.iter().enumerate() {
        if i == 0 {
            out.push(c.to_ascii_uppercase());
        } else if upper(i) && !upper(i - 1) {
            out.push(' ');
            // A run of capitals is an abbreviation.
            out.push(if upper(i + 1) { *c } else { c.to_ascii_lowercase() });
        } else {
            out.push(*c);
        }
    }
    out
}

fn field(key: &str, value: &Value, depth: usize, lines: &mut Vec<String>) {
    if HIDDEN.contains(&key) {
        return;
    }
    let (indent, title) = ("  ".repeat(depth), title(key));
    match value {
        Value::Object(map) if !map.is_empty() => {
            lines.push(format!("{indent}{title}:"));
            map.iter().for_each(|(k, v)| field(k, v, depth + 1, lines));
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            lines.push(format!("{indent}{title}:"));
            items.iter().for_each(|item| entry(item, depth + 1, lines));
        }
        Value::Array(items) => {
            let words: Vec<String> = items.iter().map(plain).collect();
            lines.push(format!("{indent}{title}: {}", words.join(", ")));
        }
        other => lines.push(format!("{indent}{title}: {}", plain(other))),
    }
}

/// An item of a list: its name leads, the rest follows below.
fn entry(item: &Value, depth: usize, lines: &mut Vec<String>) {
    let Value::Object(map) = item else {
        lines.push(format!("{}{}", "  ".repeat(depth), plain(item)));
        return;
    };
    let lead = ["name", "type", "key", "kind"].iter().find(|k| map.get(**k).is_some_and(Value::is_string));
    let head = lead.map_or_else(|| "-".to_owned(), |k| plain(&map[*k]));
    lines.push(format!("{}{head}:", "  ".repeat(depth)));
    for (key, value) in map.iter().filter(|(k, _)| Some(k.as_str()) != lead.copied()) {
        field(key, value, depth + 1, lines);
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "\"\"".into(),
        Value::String(text) => text.clone(),
        Value::Object(map) if map.is_empty() => "{}".into(),
        Value::Null => "<none>".into(),
        other => other.to_string(),
    }
}

async fn events(conn: &Conn, object: &Value) -> Result<()> {
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
    let path = format!("/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.uid%3D{uid}");
    let list = conn.table(&path).await?;
    let table = Rows::from_table(&list, false, false);
    if table.rows.is_empty() {
        say("Events: <none>");
        return Ok(());
    }
    say("Events:");
    render(&table, true).iter().for_each(|line| say(&format!("  {line}")));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_become_titles() {
        let table = [("podIP", "Pod IP"), ("podIPs", "Pod IPs"), ("imageID", "Image ID"), ("startTime", "Start time")];
        for (key, expected) in table {
            assert_eq!(title(key), expected);
        }
        assert_eq!(title("app.kubernetes.io/name"), "app.kubernetes.io/name");
    }

    #[test]
    fn secrets_are_shown_by_size_and_keys_read_well() {
        let secret = json!({
            "kind": "Secret", "apiVersion": "v1",
            "metadata": {"name": "s", "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [{}]},
            "data": {"token": "aHVudGVyMg=="}
        });
        let lines = show(&secret);
        assert!(
            lines.contains(&"  token: 7 bytes".to_owned()) || lines.contains(&"  Token: 7 bytes".to_owned()),
            "{lines:?}"
        );
        assert!(lines.contains(&"  Creation timestamp: 2026-01-01T00:00:00Z".to_owned()), "{lines:?}");
        assert!(!lines.iter().any(|l| l.contains("aHVudGVy") || l.contains("anaged")), "{lines:?}");
    }
}
