//! Tables as kubectl prints them: columns three spaces apart, as wide as their widest cell.

use anstyle::{AnsiColor, Style};
use serde_json::Value;

/// Rows of cells under headings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) headings: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Rows {
    /// Reads a `meta.k8s.io` Table; columns of low priority only where `wide`. With `namespaces`, each row begins with
    /// its object's. A list of a server without tables gets name and age.
    pub(crate) fn from_table(table: &Value, wide: bool, namespaces: bool) -> Self {
        let none = Vec::new();
        let columns = table["columnDefinitions"].as_array().unwrap_or(&none);
        let shown: Vec<usize> =
            (0..columns.len()).filter(|i| wide || columns[*i]["priority"].as_i64().unwrap_or(0) == 0).collect();
        let mut headings: Vec<String> = shown.iter().map(|i| text(&columns[*i]["name"]).to_uppercase()).collect();
        if namespaces {
            headings.insert(0, "NAMESPACE".into());
        }
        let rows = table["rows"].as_array().unwrap_or(&none).iter().map(|row| {
            let cells = shown.iter().map(|i| text(&row["cells"][*i]));
            let namespace = namespaces.then(|| text(&row["object"]["metadata"]["namespace"]));
            namespace.into_iter().chain(cells).collect()
        });
        Self { headings, rows: rows.collect() }
    }

    /// Puts `prefix` before every name, for tables of several kinds.
    pub(crate) fn prefix_names(&mut self, prefix: &str) {
        if let Some(column) = self.headings.iter().position(|h| h == "NAME") {
            for row in &mut self.rows {
                row[column] = format!("{prefix}/{}", row[column]);
            }
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "<none>".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The table as lines. States that are not well are coloured where the output is a terminal.
pub(crate) fn render(table: &Rows, headings: bool) -> Vec<String> {
    let all = headings.then_some(&table.headings).into_iter().chain(&table.rows);
    let mut widths = vec![0; table.headings.len()];
    for row in all.clone() {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    all.enumerate().map(|(n, row)| line(row, &widths, headings && n == 0)).collect()
}

fn line(row: &[String], widths: &[usize], heading: bool) -> String {
    let mut out = String::new();
    for (i, (cell, width)) in row.iter().zip(widths).enumerate() {
        let last = i + 1 == row.len();
        let style = if heading { Style::new().bold() } else { style_of(cell) };
        out.push_str(&format!("{style}{cell}{style:#}"));
        if !last {
            out.push_str(&" ".repeat(width - cell.chars().count() + 3));
        }
    }
    out
}

/// Colours for the words people look for.
fn style_of(cell: &str) -> Style {
    let red =
        ["Error", "Failed", "CrashLoopBackOff", "OOMKilled", "NotReady", "ErrImage", "ImagePullBackOff", "Unknown"];
    let yellow = ["Pending", "ContainerCreating", "Terminating", "Init:", "PodInitializing", "SchedulingDisabled"];
    let colour = if red.iter().any(|w| cell.contains(w)) {
        AnsiColor::Red
    } else if yellow.iter().any(|w| cell.contains(w)) {
        AnsiColor::Yellow
    } else if matches!(cell, "Running" | "Ready" | "Active" | "Completed" | "Succeeded") {
        AnsiColor::Green
    } else {
        return Style::new();
    };
    colour.on_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_is_aligned_and_hides_wide_columns() {
        let table = json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "Restarts", "priority": 0}, {"name": "Node", "priority": 1}],
            "rows": [
                {"cells": ["web-1", 12, "n1"], "object": {"metadata": {"namespace": "default"}}},
                {"cells": ["a", 0, null], "object": {"metadata": {"namespace": "kube-system"}}}
            ]
        });
        let plain = |rows: &Rows| {
            let lines = render(rows, true).join("\n");
            anstream::adapter::strip_str(&lines).to_string()
        };
        assert_eq!(plain(&Rows::from_table(&table, false, false)), "NAME    RESTARTS\nweb-1   12\na       0");
        let mut wide = Rows::from_table(&table, true, true);
        wide.prefix_names("pod");
        assert_eq!(
            plain(&wide),
            "NAMESPACE     NAME        RESTARTS   NODE\ndefault       pod/web-1   12         n1\nkube-system   pod/a       0          <none>"
        );
    }
}
