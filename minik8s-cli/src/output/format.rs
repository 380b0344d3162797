//! Output formats, and objects printed in them.

use super::{jsonpath, say};
use anyhow::{Result, bail};
use serde_json::Value;

/// How objects are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Table { wide: bool },
    Yaml,
    Json,
    Name,
    JsonPath(String),
}

impl Format {
    /// Reads the value of `--output`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "table" | "" => Format::Table { wide: false },
            "wide" => Format::Table { wide: true },
            "yaml" => Format::Yaml,
            "json" => Format::Json,
            "name" => Format::Name,
            _ => match text.strip_prefix("jsonpath=") {
                Some(template) => Format::JsonPath(template.to_owned()),
                None => {
                    bail!("unknown output format {text:?}; known are table, wide, yaml, json, name, jsonpath=TEMPLATE")
                }
            },
        })
    }
}

/// Prints objects in any format but tables. One object that was asked for by name stands alone; else they form a list.
pub(crate) fn print_objects(format: &Format, objects: Vec<(String, Value)>, single: bool) -> Result<()> {
    if *format == Format::Name {
        for (label, object) in &objects {
            say(&format!("{label}/{}", object["metadata"]["name"].as_str().unwrap_or_default()));
        }
        return Ok(());
    }
    let mut objects: Vec<Value> = objects.into_iter().map(|(_, object)| object).collect();
    let shown = match (single, objects.len()) {
        (true, 1) => objects.remove(0),
        _ => serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects}),
    };
    match format {
        Format::Json => say(&serde_json::to_string_pretty(&shown)?),
        Format::Yaml => say(serde_saphyr::to_string(&shown)?.trim_end()),
        Format::JsonPath(template) => {
            use std::io::Write;
            write!(std::io::stdout(), "{}", jsonpath::render(template, &shown)?)?;
        }
        Format::Name | Format::Table { .. } => {}
    }
    Ok(())
}
