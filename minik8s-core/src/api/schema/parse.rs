//! The format of the schema table, one line each:
//!
//! - `% SHORT PACKAGE GROUP` opens a package: `% core/v1 io.k8s.api.core.v1 core`.
//! - `= TYPE [@] [atomic]` opens a type; `@` marks one with `apiVersion` and `kind`.
//! - ` NAME TAG [*][!]CODE [FLAG…]` is a field: JSON name, protobuf number, type. `*` is a pointer, `!` required.
//! - ` + TAG TYPE` inlines another type.
//!
//! Codes: `s` text, `b` bool, `i` int32, `l` int64, `d` float, `x` bytes, `T` time, `U` micro time, `D` duration,
//! `Q` quantity, `I` int or string, `R` any JSON, `w` wrapped list of text, `[]CODE` list, `{}CODE` map with text keys,
//! else a type: `Container`, `meta/v1.ObjectMeta`, or a full name. Flags: `ps=merge[,retainKeys]` and `pk=KEY` (strategic
//! merge), `lt=set|map|atomic`, `lk=KEY,…`, `atomic`, `granular` (server-side apply), `df=JSON` (default).

use super::{Field, FieldType, ListKind, PatchStrategy, SchemaError, TypeSchema};
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Where a type stands in the table's text, and what was made of it.
struct Entry {
    package: usize,
    text: Range<usize>,
    parsed: OnceLock<Arc<TypeSchema>>,
}

struct Package {
    name: String,
    group: String,
}

/// A table, cut into types; each is parsed when it is first asked for.
pub(super) struct Table {
    text: Cow<'static, str>,
    packages: Vec<Package>,
    short: HashMap<String, usize>,
    types: HashMap<String, Entry>,
}

impl Table {
    /// Finds the types, without looking at their fields.
    pub(super) fn index(text: Cow<'static, str>) -> Self {
        let (mut packages, mut short, mut types) = (Vec::<Package>::new(), HashMap::new(), HashMap::with_capacity(640));
        let mut open: Option<(String, usize)> = None;
        let mut at = 0;
        let mut close = |open: &mut Option<(String, usize)>, package: usize, end: usize| {
            if let Some((name, start)) = open.take() {
                types.insert(name, Entry { package, text: start..end, parsed: OnceLock::new() });
            }
        };
        for line in text.split_inclusive('\n') {
            if line.starts_with(['%', '=']) {
                close(&mut open, packages.len().saturating_sub(1), at);
            }
            let mut words = line.split_whitespace().skip(1);
            match (line.as_bytes()[0], words.next(), words.next(), words.next()) {
                (b'%', Some(name), Some(full), Some(group)) => {
                    short.insert(name.to_owned(), packages.len());
                    let group = if group == "core" { "" } else { group };
                    packages.push(Package { name: full.to_owned(), group: group.to_owned() });
                }
                (b'=', Some(name), ..) => open = packages.last().map(|p| (format!("{}.{name}", p.name), at)),
                _ => {}
            }
            at += line.len();
        }
        close(&mut open, packages.len().saturating_sub(1), at);
        Self { text, packages, short, types }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.types.keys().map(String::as_str)
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<TypeSchema>> {
        let entry = self.types.get(name)?;
        Some(entry.parsed.get_or_init(|| Arc::new(self.parse(name, entry))).clone())
    }

    /// The root type of this kind.
    pub(super) fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<TypeSchema>> {
        let mut packages =
            self.packages.iter().filter(|p| p.group == group && p.name.rsplit('.').next() == Some(version));
        packages.find_map(|p| self.get(&format!("{}.{kind}", p.name))).filter(|schema| schema.root)
    }

    fn parse(&self, name: &str, entry: &Entry) -> TypeSchema {
        let mut lines = self.text[entry.text.clone()].lines();
        let marks: Vec<&str> = lines.next().unwrap_or_default().split(' ').skip(2).collect();
        let mut out = TypeSchema {
            group: self.packages[entry.package].group.clone(),
            root: marks.contains(&"@"),
            atomic: marks.contains(&"atomic"),
            ..TypeSchema::named(name)
        };
        for line in lines {
            self.parse_line(line, entry.package, &mut out);
        }
        out
    }

    /// Lines were checked before ([`check`], or the tests for the built-in table): what does not parse is skipped.
    fn parse_line(&self, line: &str, package: usize, out: &mut TypeSchema) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, tag, code, flags @ ..] = words.as_slice() else { return };
        let tag = tag.parse().unwrap_or_default();
        if *name != "+" {
            out.fields.push(self.field(name, tag, code, flags, package));
            return;
        }
        let FieldType::Message(inlined) = self.field_type(code, package) else { return };
        if let Some(schema) = self.get(&inlined) {
            out.fields.extend(schema.fields.iter().map(|f| Field { tag: 0, ..f.clone() }));
        }
        out.inlined.push((tag, inlined));
    }

    fn field(&self, name: &str, tag: u32, code: &str, flags: &[&str], package: usize) -> Field {
        let value = |key: &str| flags.iter().find_map(|f| f.strip_prefix(key)).unwrap_or_default();
        let keys = || value("lk=").split(',').map(str::to_owned).collect();
        let strategy = value("ps=");
        Field {
            name: name.to_owned(),
            tag,
            ty: self.field_type(code.trim_start_matches(['*', '!']), package),
            pointer: code.starts_with('*'),
            required: code.starts_with('!') || code.starts_with("*!"),
            patch: PatchStrategy {
                merge: strategy.split(',').any(|s| s == "merge"),
                retain_keys: strategy.split(',').any(|s| s == "retainKeys"),
                merge_key: value("pk=").to_owned(),
            },
            list: match value("lt=") {
                "set" => ListKind::Set,
                "map" => ListKind::Map(keys()),
                _ => ListKind::Atomic,
            },
            atomic: flags.contains(&"atomic"),
            default: value("df=").to_owned(),
        }
    }

    fn field_type(&self, code: &str, package: usize) -> FieldType {
        if let Some(item) = code.strip_prefix("[]") {
            return FieldType::List(Box::new(self.field_type(item, package)));
        }
        if let Some(item) = code.strip_prefix("{}") {
            return FieldType::Map(Box::new(self.field_type(item, package)));
        }
        match code {
            "s" => FieldType::String,
            "b" => FieldType::Bool,
            "i" => FieldType::Int32,
            "l" => FieldType::Int64,
            "d" => FieldType::Float,
            "x" => FieldType::Bytes,
            "T" => FieldType::Time,
            "U" => FieldType::MicroTime,
            "D" => FieldType::Duration,
            "Q" => FieldType::Quantity,
            "I" => FieldType::IntOrString,
            "R" => FieldType::Any,
            "w" => FieldType::Strings,
            _ => FieldType::Message(self.type_name(code, package)),
        }
    }

    fn type_name(&self, code: &str, package: usize) -> Arc<str> {
        match code.split_once('.') {
            None => format!("{}.{code}", self.packages[package].name).into(),
            Some((short, name)) => match self.short.get(short) {
                Some(index) => format!("{}.{name}", self.packages[*index].name).into(),
                None => code.into(),
            },
        }
    }
}

/// Refuses a table that breaks the format.
pub(super) fn check(text: &str) -> Result<(), SchemaError> {
    let (mut packages, mut types) = (0, 0);
    for (index, line) in text.lines().enumerate() {
        let fail = |why: &str| Err(SchemaError::Table { line: index + 1, why: why.to_owned() });
        let words: Vec<&str> = line.split_whitespace().collect();
        match line.as_bytes().first() {
            None | Some(b'#') => {}
            Some(b'%') if words.len() == 4 && words[0] == "%" => (packages, types) = (packages + 1, 0),
            Some(b'%') => return fail("a package is '% SHORT PACKAGE GROUP'"),
            Some(b'=') if packages == 0 => return fail("a type before any package"),
            Some(b'=') if words.len() >= 2 && words[0] == "=" => types += 1,
            Some(b' ') if types == 0 => return fail("a field before any type"),
            Some(b' ') if words.len() < 3 => return fail("a field is 'NAME TAG TYPE'"),
            Some(b' ') if words[1].parse::<u32>().is_err() => return fail("the protobuf number is not a number"),
            Some(b' ') => {}
            Some(_) => return fail("a line starts with '%', '=', '#' or a space"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_builtin_table_keeps_to_its_format() {
        super::check(include_str!("builtin.txt")).unwrap();
        super::check(include_str!("own.txt")).unwrap();
    }
}
