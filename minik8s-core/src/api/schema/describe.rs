//! Types as OpenAPI v3 schemas: what `kubectl explain` shows, and what clients merge by.

use super::{Field, FieldType, ListKind, Schemas, TypeSchema};
use serde_json::{Map, Value, json};

impl Schemas {
    /// The `components.schemas` of a document: the types of these names, and every type they refer to. Types with
    /// `apiVersion` and `kind` carry `x-kubernetes-group-version-kind`.
    pub fn components<'a>(&self, roots: impl IntoIterator<Item = &'a str>) -> Map<String, Value> {
        let mut out = Map::new();
        let mut wanted: Vec<String> = roots.into_iter().map(str::to_owned).collect();
        while let Some(name) = wanted.pop() {
            if out.contains_key(&name) {
                continue;
            }
            let Some(schema) = self.get(&name) else { continue };
            wanted.extend(schema.fields.iter().filter_map(|field| message(&field.ty)).map(str::to_owned));
            out.insert(name, describe(&schema));
        }
        out
    }
}

/// The type a field's value, its items or its entries are of.
fn message(ty: &FieldType) -> Option<&str> {
    match ty {
        FieldType::Message(name) => Some(name),
        FieldType::List(item) | FieldType::Map(item) => message(item),
        _ => None,
    }
}

fn describe(schema: &TypeSchema) -> Value {
    let mut properties: Map<String, Value> =
        schema.fields.iter().map(|field| (field.name.clone(), property(field))).collect();
    if schema.root {
        properties.insert("apiVersion".into(), json!({"type": "string"}));
        properties.insert("kind".into(), json!({"type": "string"}));
    }
    let required: Vec<&str> = schema.fields.iter().filter(|f| f.required).map(|f| f.name.as_str()).collect();
    let mut out = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        out["required"] = required.into();
    }
    if schema.atomic {
        out["x-kubernetes-map-type"] = "atomic".into();
    }
    if schema.open {
        out["x-kubernetes-preserve-unknown-fields"] = true.into();
    }
    if schema.root {
        out["x-kubernetes-group-version-kind"] =
            json!([{"group": schema.group, "version": schema.version(), "kind": schema.short_name()}]);
    }
    out
}

fn property(field: &Field) -> Value {
    let mut out = value(&field.ty);
    let Value::Object(map) = &mut out else { return out };
    let mut set = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
    if field.patch.merge || field.patch.retain_keys {
        let both = [(field.patch.merge, "merge"), (field.patch.retain_keys, "retainKeys")];
        let names: Vec<&str> = both.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
        set("x-kubernetes-patch-strategy", names.join(",").into());
    }
    if !field.patch.merge_key.is_empty() {
        set("x-kubernetes-patch-merge-key", field.patch.merge_key.as_str().into());
    }
    match (&field.ty, &field.list) {
        (FieldType::List(_), ListKind::Map(keys)) => {
            set("x-kubernetes-list-type", "map".into());
            set("x-kubernetes-list-map-keys", json!(keys));
        }
        (FieldType::List(_), ListKind::Set) => set("x-kubernetes-list-type", "set".into()),
        (FieldType::List(_), ListKind::Atomic) => set("x-kubernetes-list-type", "atomic".into()),
        _ if field.atomic => set("x-kubernetes-map-type", "atomic".into()),
        _ => {}
    }
    if let Ok(default) = serde_json::from_str(&field.default) {
        set("default", default);
    }
    out
}

fn value(ty: &FieldType) -> Value {
    match ty {
        FieldType::String | FieldType::Duration => json!({"type": "string"}),
        FieldType::Bool => json!({"type": "boolean"}),
        FieldType::Int32 => json!({"type": "integer", "format": "int32"}),
        FieldType::Int64 => json!({"type": "integer", "format": "int64"}),
        FieldType::Float => json!({"type": "number", "format": "double"}),
        FieldType::Bytes => json!({"type": "string", "format": "byte"}),
        FieldType::Time | FieldType::MicroTime => json!({"type": "string", "format": "date-time"}),
        FieldType::Quantity => json!({"type": "string", "format": "quantity"}),
        FieldType::IntOrString => {
            json!({"type": "string", "format": "int-or-string", "x-kubernetes-int-or-string": true})
        }
        FieldType::Any => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        FieldType::Strings => json!({"type": "array", "items": {"type": "string"}}),
        FieldType::List(item) => json!({"type": "array", "items": value(item)}),
        FieldType::Map(item) => json!({"type": "object", "additionalProperties": value(item)}),
        FieldType::Message(name) => json!({"allOf": [{"$ref": format!("#/components/schemas/{name}")}]}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_hold_all_they_refer_to() {
        let schemas = Schemas::builtin();
        let components = schemas.components(["io.k8s.api.core.v1.Pod"]);
        let pod = &components["io.k8s.api.core.v1.Pod"];
        assert_eq!(pod["x-kubernetes-group-version-kind"], json!([{"group": "", "version": "v1", "kind": "Pod"}]));
        assert_eq!(pod["properties"]["kind"]["type"], "string");
        let spec = &components["io.k8s.api.core.v1.PodSpec"];
        assert_eq!(spec["required"], json!(["containers"]));
        let containers = &spec["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(spec["properties"]["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
        let text = Value::Object(components.clone()).to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(components.contains_key(name), "{name}");
        }
        assert!(components.len() > 50);
        assert!(components["io.k8s.api.core.v1.Volume"]["properties"]["emptyDir"].is_object());
    }

    #[test]
    fn a_described_type_reads_back_as_itself() {
        let mut schemas = Schemas::builtin();
        let described = describe(&schemas.get("io.k8s.api.core.v1.LimitRangeSpec").unwrap());
        schemas.insert_open_api("x.v1.Copy", "x", &described).unwrap();
        let copy = schemas.get("x.v1.Copy").unwrap();
        assert!(copy.field("limits").unwrap().required);
    }
}
