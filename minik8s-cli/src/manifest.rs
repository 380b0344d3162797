//! Manifests: files, directories and standard input, one or several documents each. Errors name file and line.

use crate::legacy;
use crate::output::warn;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// One object of a manifest, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    /// File name, or `standard input`.
    pub(crate) source: String,
    /// First line of its document, from 1.
    pub(crate) line: usize,
    /// Text of its document, to find fields in.
    text: String,
    /// The object, in today's form.
    pub(crate) object: Value,
    /// What was changed to make it so.
    notes: Vec<String>,
}

impl Manifest {
    fn field(&self, pointer: &str) -> &str {
        self.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn api_version(&self) -> &str {
        self.field("/apiVersion")
    }

    pub(crate) fn kind(&self) -> &str {
        self.field("/kind")
    }

    pub(crate) fn name(&self) -> &str {
        self.field("/metadata/name")
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        Some(self.field("/metadata/namespace")).filter(|n| !n.is_empty())
    }

    /// `web.yaml:12`
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.source, self.line)
    }

    /// The line of a field that an error of the server names (`spec.containers[0].image`), as near as the text tells:
    /// where the last key of the path first stands after the ones before it.
    pub(crate) fn place_of(&self, path: &str) -> String {
        let mut line = 0;
        for key in path.split('.').map(|k| k.split('[').next().unwrap_or(k)) {
            let spelled =
                |l: &str| l.trim_start().trim_start_matches("- ").trim_start().starts_with(&format!("{key}:"));
            match self.text.lines().enumerate().skip(line).find(|(_, l)| spelled(l)) {
                Some((n, _)) => line = n,
                None => break,
            }
        }
        format!("{}:{}", self.source, self.line + line)
    }
}

/// Reads everything that `paths` name, in their order; a directory's files in order of their names. What had to be put
/// into today's form is told.
pub(crate) fn read_all(paths: &[PathBuf], recursive: bool) -> Result<Vec<Manifest>> {
    let mut out = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            out.extend(parse("standard input", &text)?);
            continue;
        }
        for file in files_of(path, recursive)? {
            let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            out.extend(parse(&file.display().to_string(), &text)?);
        }
    }
    if out.is_empty() {
        let names: Vec<String> = paths
            .iter()
            .map(|p| if p.as_os_str() == "-" { "standard input".into() } else { p.display().to_string() })
            .collect();
        bail!("no objects in {}: expected YAML or JSON with apiVersion, kind and metadata.name", names.join(", "));
    }
    tell(&out);
    distinct(&out)?;
    Ok(out)
}

/// Tells what was put into today's form.
pub(crate) fn tell(manifests: &[Manifest]) {
    for manifest in manifests {
        for note in &manifest.notes {
            let field = note.split([':', ' ']).next().unwrap_or_default();
            warn(&format!("{}: {note}", manifest.place_of(field)));
        }
    }
}

/// Two objects must not become one because a name that may not be was put right.
fn distinct(manifests: &[Manifest]) -> Result<()> {
    let mut seen: HashMap<[&str; 4], &Manifest> = HashMap::new();
    for one in manifests.iter().filter(|one| !one.name().is_empty()) {
        let key = [one.api_version(), one.kind(), one.namespace().unwrap_or_default(), one.name()];
        if let Some(other) = seen.insert(key, one)
            && !(one.notes.is_empty() && other.notes.is_empty())
        {
            let (place, kind, name) = (one.place(), one.kind(), one.name());
            bail!("{place}: this {kind} and the one at {} would both be called {name:?}; rename one", other.place());
        }
    }
    Ok(())
}

fn files_of(path: &Path, recursive: bool) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
        .with_context(|| format!("cannot read directory {}", path.display()))?
        .map(|e| e.map(|e| e.path()))
        .collect::<std::io::Result<_>>()?;
    entries.sort();
    let mut out = Vec::new();
    for entry in entries {
        let manifest = entry.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known));
        if entry.is_dir() && recursive {
            out.extend(files_of(&entry, true)?);
        } else if entry.is_file() && manifest {
            out.push(entry);
        }
    }
    Ok(out)
}

/// Splits a text into its documents and reads each. A `List` is taken apart.
pub(crate) fn parse(source: &str, text: &str) -> Result<Vec<Manifest>> {
    let mut out = Vec::new();
    for (line, text) in documents(text) {
        let value = read_yaml(source, line, text)?;
        match value {
            Value::Null => {}
            Value::Object(ref map) if map.get("kind").and_then(Value::as_str) == Some("List") => {
                for item in value["items"].as_array().into_iter().flatten() {
                    out.push(manifest(source, line, text, item.clone())?);
                }
            }
            object => out.push(manifest(source, line, text, object)?),
        }
    }
    Ok(out)
}

/// Documents with the number of their first line.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut out = Vec::new();
    let (mut start, mut first_line, mut at) = (0, 1, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if line.trim_end() == "---" || line.starts_with("--- ") {
            out.push((first_line, &text[start..at]));
            start = at + line.len();
            first_line = number + 2;
        }
        at += line.len();
    }
    out.push((first_line, &text[start..]));
    out.retain(|(_, t)| t.lines().any(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#')));
    out
}

/// A piece of an object, in YAML or JSON, that an option has.
pub(crate) fn piece(option: &str, text: &str) -> Result<Value> {
    read_yaml(option, 1, text)
}

/// YAML as Kubernetes reads it: `0644` is octal, `yes` is true.
fn read_yaml(source: &str, line: usize, text: &str) -> Result<Value> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true, strict_booleans: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let at = error.location().map_or(line, |l| line + l.line() as usize - 1);
        anyhow::anyhow!("{source}:{at}: not valid YAML\n{}", error)
    })
}

fn manifest(source: &str, line: usize, text: &str, mut object: Value) -> Result<Manifest> {
    if let Some(why) = legacy::refusal(&object) {
        bail!("{source}:{line}: {why}");
    }
    let notes = legacy::translate(&mut object);
    checked(Manifest { source: source.into(), line, text: text.into(), object, notes })
}

fn checked(manifest: Manifest) -> Result<Manifest> {
    let place = manifest.place();
    if !manifest.object.is_object() {
        bail!("{place}: expected an object with apiVersion, kind and metadata, found {}", short(&manifest.object));
    }
    for (field, example) in [("apiVersion", "v1"), ("kind", "Pod")] {
        match manifest.object.get(field) {
            Some(Value::String(text)) if !text.is_empty() => {}
            Some(other) if !other.is_null() => bail!("{place}: {field} must be a string, found {}", short(other)),
            _ => bail!("{place}: {field} is missing; write for example `{field}: {example}`"),
        }
    }
    if manifest.name().is_empty() && manifest.field("/metadata/generateName").is_empty() {
        bail!("{place}: metadata.name is missing in this {}", manifest.kind());
    }
    Ok(manifest)
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 40 { format!("{}…", text.chars().take(40).collect::<String>()) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "# two\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: b\nspec:\n  containers:\n  - name: c\n    imagee: x\n";

    #[test]
    fn documents_keep_their_lines() {
        let found = parse("two.yaml", TWO).unwrap();
        let places: Vec<String> = found.iter().map(Manifest::place).collect();
        assert_eq!(places, ["two.yaml:1", "two.yaml:8"]);
        assert_eq!(found[1].place_of("spec.containers[0].imagee"), "two.yaml:15");
    }

    #[test]
    fn numbers_and_booleans_are_read_as_kubernetes_does() {
        let text = "apiVersion: v1\nkind: X\nmetadata: {name: a}\nmode: 0644\non: yes\n";
        let object = &parse("x", text).unwrap()[0].object;
        assert_eq!((&object["mode"], &object["on"]), (&Value::from(420), &Value::from(true)));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        // text, part of the message
        let table = [
            ("apiVersion: v1\nkind: Pod\nmetadata:\n\tname: a\n", "bad.yaml:4"),
            ("apiVersion: v1\nkind: Pod\n", "metadata.name is missing"),
            ("kind: Pod\nmetadata: {name: a}\n", "apiVersion is missing"),
            ("apiVersion: 1\nkind: Pod\nmetadata: {name: a}\n", "apiVersion must be a string, found 1"),
            ("- a\n- b\n", "expected an object"),
            ("apiVersion: v1\nkind: Pod\nmetadata: {name: a, name: b}\n", "bad.yaml:3"),
        ];
        for (text, expected) in table {
            let message = parse("bad.yaml", text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text:?} gave {message}");
        }
    }
}
