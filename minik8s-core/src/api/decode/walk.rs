//! Holds a parsed text against a schema.

use super::node::Node;
use super::scalar::{self, Mismatch};
use crate::api::Schemas;
use crate::api::schema::{Field, FieldType, TypeSchema};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// No more problems than these are told of.
const MAX_PROBLEMS: usize = 100;

/// An object that fits its schema.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// The object without what the schema does not know.
    pub value: Value,
    /// `unknown field "spec.bogus"`, `duplicate field "data.a"`, in the order of the text.
    pub problems: Vec<String>,
}

/// Where the walk stands, for its messages.
struct Walk<'a> {
    schemas: &'a Schemas,
    problems: Vec<String>,
    /// `spec.containers[0].image`
    path: String,
    /// `spec.containers.image`, as Go's JSON package counts.
    fields: Vec<String>,
    /// `Container`
    owner: String,
}

pub(super) fn check(schemas: &Schemas, schema: &TypeSchema, node: Node) -> Result<Checked, String> {
    let mut walk =
        Walk { schemas, problems: Vec::new(), path: String::new(), fields: Vec::new(), owner: String::new() };
    let Node::Map(entries) = node else {
        let short = schema.short_name();
        let found = kind_of(&node);
        return Err(format!("json: cannot unmarshal {found} into Go value of type {}.{short}", schema.version()));
    };
    let value = walk.object(entries, schema)?;
    Ok(Checked { value: Value::Object(value), problems: walk.problems })
}

/// The duplicate fields of a text that has no schema.
pub(super) fn duplicates(node: &Node) -> Vec<String> {
    fn visit(walk: &mut Walk<'_>, node: &Node) {
        match node {
            Node::Scalar(_) => {}
            Node::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    walk.at(&format!("[{index}]"), |walk| visit(walk, item));
                }
            }
            Node::Map(entries) => {
                walk.duplicates(entries);
                for (key, value) in entries {
                    let step = walk.key_step(key);
                    walk.at(&step, |walk| visit(walk, value));
                }
            }
        }
    }
    let schemas = Schemas::builtin();
    let mut walk = Walk::new(&schemas);
    visit(&mut walk, node);
    walk.problems
}

/// What Go would not encode again: empty values of fields that are neither pointers nor required.
pub(in crate::api) fn is_omitted(field: &Field, value: &Value) -> bool {
    let empty = match value {
        Value::Null => return true,
        Value::String(text) => text.is_empty(),
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty() && matches!(field.ty, FieldType::Map(_)),
    };
    empty && !field.pointer && !field.required
}

fn kind_of(node: &Node) -> &'static str {
    match node {
        Node::List(_) => "array",
        Node::Map(_) => "object",
        Node::Scalar(Value::String(_)) => "string",
        Node::Scalar(Value::Bool(_)) => "bool",
        Node::Scalar(Value::Number(_)) => "number",
        Node::Scalar(_) => "null",
    }
}

/// The type's name in a message of Go's JSON package.
fn go_type(ty: &FieldType) -> String {
    match ty {
        FieldType::String => "string".into(),
        FieldType::Bool => "bool".into(),
        FieldType::Int32 => "int32".into(),
        FieldType::Int64 => "int64".into(),
        FieldType::Float => "float64".into(),
        FieldType::Bytes => "[]uint8".into(),
        FieldType::Time => "v1.Time".into(),
        FieldType::MicroTime => "v1.MicroTime".into(),
        FieldType::Duration => "v1.Duration".into(),
        FieldType::Quantity => "resource.Quantity".into(),
        FieldType::IntOrString => "intstr.IntOrString".into(),
        FieldType::Any => "interface {}".into(),
        FieldType::Strings => "[]string".into(),
        FieldType::List(item) => format!("[]{}", go_type(item)),
        FieldType::Map(item) => format!("map[string]{}", go_type(item)),
        FieldType::Message(name) => {
            let mut parts = name.rsplit('.');
            let (short, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            format!("{version}.{short}")
        }
    }
}

impl<'a> Walk<'a> {
    fn new(schemas: &'a Schemas) -> Self {
        Self { schemas, problems: Vec::new(), path: String::new(), fields: Vec::new(), owner: String::new() }
    }
}

impl Walk<'_> {
    fn report(&mut self, what: &str) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(format!("{what} field {:?}", self.path));
        }
    }

    fn mismatch(&self, node: &Node, ty: &FieldType) -> String {
        let mut found = kind_of(node).to_owned();
        if let Node::Scalar(Value::Number(number)) = node
            && matches!(ty, FieldType::Int32 | FieldType::Int64)
        {
            found = format!("number {number}");
        }
        let fields = self.fields.join(".");
        format!("json: cannot unmarshal {found} into Go struct field {}.{fields} of type {}", self.owner, go_type(ty))
    }

    /// Runs `inner` one step deeper in the path.
    fn at<T>(&mut self, step: &str, inner: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(step);
        let out = inner(self);
        self.path.truncate(length);
        out
    }

    fn key_step(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!(".{key}") }
    }

    /// Reports the keys that occur again.
    fn duplicates(&mut self, entries: &[(String, Node)]) {
        let mut seen = HashSet::with_capacity(entries.len());
        let again: Vec<&str> = entries.iter().filter(|(k, _)| !seen.insert(k)).map(|(k, _)| k.as_str()).collect();
        for key in again {
            self.at(&self.key_step(key), |w| w.report("duplicate"));
        }
    }

    fn object(&mut self, entries: Vec<(String, Node)>, schema: &TypeSchema) -> Result<Map<String, Value>, String> {
        self.duplicates(&entries);
        let mut out = Map::new();
        for (key, node) in entries {
            let step = self.key_step(&key);
            let value = self.at(&step, |walk| walk.entry(&key, node, schema))?;
            match value {
                Some(value) => out.insert(key, value),
                None => out.remove(&key),
            };
        }
        Ok(out)
    }

    fn entry(&mut self, key: &str, node: Node, schema: &TypeSchema) -> Result<Option<Value>, String> {
        let own_name = schema.root && (key == "apiVersion" || key == "kind");
        let Some(field) = schema.field(key) else {
            if own_name {
                return self.typed(key, node, &FieldType::String, schema).map(Some);
            }
            if schema.open {
                return Ok(Some(node.into_value()));
            }
            self.report("unknown");
            return Ok(None);
        };
        let value = self.typed(key, node, &field.ty, schema)?;
        Ok(Some(value).filter(|value| !is_omitted(field, value)))
    }

    fn typed(&mut self, key: &str, node: Node, ty: &FieldType, schema: &TypeSchema) -> Result<Value, String> {
        let owner = std::mem::replace(&mut self.owner, schema.short_name().to_owned());
        self.fields.push(key.to_owned());
        let value = if matches!(node, Node::Scalar(Value::Null)) { Ok(Value::Null) } else { self.value(node, ty) };
        self.fields.pop();
        self.owner = owner;
        value
    }

    fn value(&mut self, node: Node, ty: &FieldType) -> Result<Value, String> {
        match (node, ty) {
            (node, FieldType::Any) => Ok(node.into_value()),
            (Node::Map(entries), FieldType::Message(name)) => {
                let schema = self.schemas.get(name).ok_or_else(|| format!("the server has no schema of {name}"))?;
                self.object(entries, &schema).map(Value::Object)
            }
            (Node::Map(entries), FieldType::Map(item)) => self.map(entries, item),
            (Node::List(items), FieldType::List(item)) => self.list(items, item),
            (Node::List(items), FieldType::Strings) => self.list(items, &FieldType::String),
            (Node::Scalar(value), ty) => match scalar::convert(value.clone(), ty) {
                Ok(value) => Ok(value),
                Err(Mismatch::Form(why)) => Err(why),
                Err(Mismatch::Type) => Err(self.mismatch(&Node::Scalar(value), ty)),
            },
            (node, ty) => Err(self.mismatch(&node, ty)),
        }
    }

    fn map(&mut self, entries: Vec<(String, Node)>, item: &FieldType) -> Result<Value, String> {
        self.duplicates(&entries);
        let mut out = Map::new();
        for (key, node) in entries {
            let step = self.key_step(&key);
            let value = self.at(&step, |walk| walk.item(node, item))?;
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }

    fn list(&mut self, items: Vec<Node>, item: &FieldType) -> Result<Value, String> {
        let each = |(index, node)| self.at(&format!("[{index}]"), |walk| walk.item(node, item));
        items.into_iter().enumerate().map(each).collect::<Result<Vec<_>, _>>().map(Value::Array)
    }

    /// A `null` among items is the empty value.
    fn item(&mut self, node: Node, ty: &FieldType) -> Result<Value, String> {
        if !matches!(node, Node::Scalar(Value::Null)) {
            return self.value(node, ty);
        }
        Ok(match ty {
            FieldType::String | FieldType::Bytes => "".into(),
            FieldType::Message(_) | FieldType::Map(_) => Value::Object(Map::new()),
            FieldType::List(_) | FieldType::Strings => Value::Array(Vec::new()),
            FieldType::Bool => false.into(),
            FieldType::Int32 | FieldType::Int64 | FieldType::Float | FieldType::IntOrString => 0.into(),
            FieldType::Quantity => "0".into(),
            FieldType::Duration => "0s".into(),
            FieldType::Time | FieldType::MicroTime | FieldType::Any => Value::Null,
        })
    }
}
