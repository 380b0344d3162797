//! kubectl's JSONPath templates: text with `{…}` parts, `{range …}…{end}`, and `\.` in keys, on top of a JSONPath library.

use anyhow::{Result, bail};
use jsonpath_rust::JsonPath;
use serde_json::Value;

/// Fills a template with what its paths find.
pub(crate) fn render(template: &str, object: &Value) -> Result<String> {
    // A template without braces is one path.
    if !template.contains('{') {
        return render(&format!("{{{template}}}"), object);
    }
    let parts = split(template)?;
    let mut out = String::new();
    fill(&parts, object, &mut out)?;
    Ok(out)
}

enum Part {
    Text(String),
    Path(String),
    Range(String, Vec<Part>),
}

fn split(template: &str) -> Result<Vec<Part>> {
    // The outermost level and one for each open range.
    let mut levels: Vec<(String, Vec<Part>)> = vec![(String::new(), Vec::new())];
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let Some(length) = rest[open..].find('}') else { bail!("jsonpath {template:?}: a {{ is never closed") };
        let (text, inside) = (&rest[..open], rest[open + 1..open + length].trim());
        rest = &rest[open + length + 1..];
        push(&mut levels, Part::Text(text.to_owned()));
        if let Some(path) = inside.strip_prefix("range ") {
            levels.push((path.trim().to_owned(), Vec::new()));
        } else if inside == "end" {
            if levels.len() < 2 {
                bail!("jsonpath {template:?}: {{end}} without {{range}}");
            }
            if let Some((path, parts)) = levels.pop() {
                push(&mut levels, Part::Range(path, parts));
            }
        } else if inside.len() >= 2 && (inside.starts_with('"') || inside.starts_with('\'')) {
            push(&mut levels, Part::Text(unescape(&inside[1..inside.len() - 1])));
        } else {
            push(&mut levels, Part::Path(inside.to_owned()));
        }
    }
    push(&mut levels, Part::Text(rest.to_owned()));
    match (levels.pop(), levels.is_empty()) {
        (Some((_, parts)), true) => Ok(parts),
        _ => bail!("jsonpath {template:?}: {{range}} without {{end}}"),
    }
}

fn push(levels: &mut [(String, Vec<Part>)], part: Part) {
    if let Some((_, parts)) = levels.last_mut() {
        parts.push(part);
    }
}

fn unescape(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t")
}

fn fill(parts: &[Part], object: &Value, out: &mut String) -> Result<()> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Path(path) => {
                let found: Vec<String> = find(path, object)?.into_iter().map(plain).collect();
                out.push_str(&found.join(" "));
            }
            Part::Range(path, inner) => {
                for item in find(path, object)? {
                    fill(inner, item, out)?;
                }
            }
        }
    }
    Ok(())
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn find<'a>(path: &str, object: &'a Value) -> Result<Vec<&'a Value>> {
    let standard = standard(path);
    object.query(&standard).map_err(|e| anyhow::anyhow!("jsonpath {path:?} cannot be read: {e}"))
}

/// RFC 9535 spelling of a kubectl path: a leading `$`, and keys with dots in brackets.
fn standard(path: &str) -> String {
    let path = path.strip_prefix('$').unwrap_or(path);
    let path = path.strip_prefix('@').unwrap_or(path);
    let mut out = String::from("$");
    let mut keys = path.split_inclusive("\\.").peekable();
    if !path.contains("\\.") {
        if !path.is_empty() && !path.starts_with(['.', '[']) {
            out.push('.');
        }
        out.push_str(path.trim_end_matches('.'));
        return out;
    }
    // a.b\.c.d: glue the escaped pieces together, then bracket those keys that hold a dot.
    let mut glued = String::new();
    while let Some(piece) = keys.next() {
        glued.push_str(piece.strip_suffix("\\.").unwrap_or(piece));
        if keys.peek().is_some() {
            glued.push('\u{0}');
        }
    }
    for key in glued.split('.').filter(|k| !k.is_empty()) {
        let (name, brackets) = key.split_at(key.find('[').unwrap_or(key.len()));
        if name.contains('\u{0}') {
            out.push_str(&format!("['{}']", name.replace('\u{0}', ".")));
        } else {
            out.push_str(&format!(".{name}"));
        }
        out.push_str(brackets);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_render_as_kubectl_does() {
        let object = json!({"items": [
            {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x"}}, "status": {"phase": "Running"}},
            {"metadata": {"name": "b", "labels": {}}, "status": {"phase": "Pending"}}
        ]});
        let table = [
            ("{.items[*].metadata.name}", "a b"),
            ("{.items[0].status.phase}", "Running"),
            ("{range .items[*]}{.metadata.name}={.status.phase}{\"\\n\"}{end}", "a=Running\nb=Pending\n"),
            (".items[1].metadata.name", "b"),
            ("{.items[0].metadata.labels.app\\.kubernetes\\.io/name}", "x"),
            ("{.items[?(@.status.phase=='Pending')].metadata.name}", "b"),
            ("{.items[5].nothing}", ""),
        ];
        for (template, expected) in table {
            assert_eq!(render(template, &object).unwrap(), expected, "{template}");
        }
    }

    #[test]
    fn broken_templates_are_told() {
        for template in ["{.a", "{end}", "{range .items[*]}x", "{.a[}"] {
            assert!(render(template, &json!({})).is_err(), "{template}");
        }
    }
}
