//! Types from OpenAPI v3 schemas, for the kinds of extensions.

use super::{Field, FieldType, ListKind, SchemaError, TypeSchema};
use serde_json::Value;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// Deeper schemas are refused: nobody writes them by hand.
const MAX_DEPTH: usize = 64;

struct Builder {
    group: String,
    out: Vec<TypeSchema>,
}

/// The type `name` and every type nested in it.
pub(super) fn types(name: &str, group: &str, schema: &Value) -> Result<Vec<TypeSchema>, SchemaError> {
    let mut builder = Builder { group: group.to_owned(), out: Vec::new() };
    builder.object(name, schema, 0)?;
    if let Some(root) = builder.out.last_mut() {
        root.root = true;
        root.fields.retain(|f| !["apiVersion", "kind", "metadata"].contains(&f.name.as_str()));
        root.fields.insert(0, plain("metadata", FieldType::Message(OBJECT_META.into())));
    }
    Ok(builder.out)
}

fn plain(name: &str, ty: FieldType) -> Field {
    Field { ty, ..Field::named(name) }
}

fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or_default()
}

fn strings(schema: &Value, key: &str) -> Vec<String> {
    let list = schema.get(key).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

impl Builder {
    fn object(&mut self, name: &str, schema: &Value, depth: usize) -> Result<(), SchemaError> {
        let fail = |why: &str| SchemaError::OpenApi { name: name.to_owned(), why: why.to_owned() };
        if depth > MAX_DEPTH {
            return Err(fail("nested too deeply"));
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        let open = flag(schema, "x-kubernetes-preserve-unknown-fields");
        if properties.is_none() && !open {
            return Err(fail("an object's schema has 'properties'"));
        }
        let required = strings(schema, "required");
        let mut fields = Vec::new();
        for (key, property) in properties.into_iter().flatten() {
            let ty = self.field_type(&format!("{name}.{key}"), property, depth + 1)?;
            let list = match property.get("x-kubernetes-list-type").and_then(Value::as_str) {
                Some("set") => ListKind::Set,
                Some("map") => ListKind::Map(strings(property, "x-kubernetes-list-map-keys")),
                _ => ListKind::Atomic,
            };
            let default = property.get("default").map(Value::to_string).unwrap_or_default();
            let atomic = property.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic");
            fields.push(Field { required: required.contains(key), list, default, atomic, ..plain(key, ty) });
        }
        self.out.push(TypeSchema { group: self.group.clone(), fields, open, ..TypeSchema::named(name) });
        Ok(())
    }

    fn field_type(&mut self, name: &str, schema: &Value, depth: usize) -> Result<FieldType, SchemaError> {
        if flag(schema, "x-kubernetes-int-or-string") {
            return Ok(FieldType::IntOrString);
        }
        let kind = match schema.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            Some(Value::Array(kinds)) => {
                kinds.iter().filter_map(Value::as_str).find(|k| *k != "null").unwrap_or_default()
            }
            _ => "",
        };
        let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
        Ok(match (kind, format) {
            ("string", "byte") => FieldType::Bytes,
            ("string", _) => FieldType::String,
            ("boolean", _) => FieldType::Bool,
            ("integer", "int32") => FieldType::Int32,
            ("integer", _) => FieldType::Int64,
            ("number", _) => FieldType::Float,
            ("array", _) => match schema.get("items") {
                Some(items) => {
                    FieldType::List(Box::new(self.field_type(&format!("{name}.items"), items, depth + 1)?))
                }
                None => FieldType::List(Box::new(FieldType::Any)),
            },
            ("object", _) if schema.get("properties").is_some() => {
                self.object(name, schema, depth)?;
                FieldType::Message(name.into())
            }
            ("object", _) => match schema.get("additionalProperties") {
                Some(items @ Value::Object(_)) => {
                    FieldType::Map(Box::new(self.field_type(&format!("{name}.values"), items, depth + 1)?))
                }
                _ => FieldType::Any,
            },
            _ => FieldType::Any,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FieldType, ListKind, Schemas};
    use serde_json::json;

    #[test]
    fn properties_become_fields_and_nested_types() {
        let mut schemas = Schemas::builtin();
        let schema = json!({"type": "object", "properties": {"spec": {
            "type": "object", "required": ["size"], "properties": {
                "size": {"type": "integer", "format": "int32", "default": 1},
                "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                    "items": {"type": "object", "properties": {"port": {"x-kubernetes-int-or-string": true}}}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "note": {"type": ["string", "null"]},
        }}}});
        schemas.insert_open_api("io.example.v1.Widget", "example.io", &schema).unwrap();
        let widget = schemas.get("io.example.v1.Widget").unwrap();
        assert!(widget.root && widget.field("metadata").is_some());
        let spec = schemas.get("io.example.v1.Widget.spec").unwrap();
        assert!(spec.field("size").unwrap().required && spec.field("size").unwrap().default == "1");
        assert_eq!(spec.field("ports").unwrap().list, ListKind::Map(vec!["port".into()]));
        assert_eq!(spec.field("labels").unwrap().ty, FieldType::Map(Box::new(FieldType::String)));
        assert_eq!(spec.field("free").unwrap().ty, FieldType::Any);
        assert_eq!(spec.field("note").unwrap().ty, FieldType::String);
        assert_eq!(schemas.get("io.example.v1.Widget.spec.ports.items").unwrap().fields[0].ty, FieldType::IntOrString);
        assert!(schemas.insert_open_api("x.v1.Y", "x", &json!({"type": "string"})).is_err());
    }
}
