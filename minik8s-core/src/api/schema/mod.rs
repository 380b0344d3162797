//! The types behind the kinds: which fields an object may have, how they are encoded, and how they merge. One table for
//! all built-in groups ([`Schemas::builtin`]), parsed type by type on first use; extensions add their own.

mod describe;
mod open_api;
mod parse;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// The schema table; its format is described in `parse.rs`. `own.txt` has the groups that upstream has no protobuf for:
/// the Gateway API, whose home is a CRD, and kinds of our own.
static BUILTIN: LazyLock<parse::Table> =
    LazyLock::new(|| parse::Table::index(concat!(include_str!("builtin.txt"), include_str!("own.txt")).into()));

/// The type of a field, or of the items of a list or a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// Text.
    String,
    /// True or false.
    Bool,
    /// 32-bit integer.
    Int32,
    /// 64-bit integer.
    Int64,
    /// Floating point.
    Float,
    /// Base64 in JSON.
    Bytes,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// `5s`
    Duration,
    /// `250m`
    Quantity,
    /// A number, or text such as `25%`.
    IntOrString,
    /// Any JSON: embedded objects, managed fields.
    Any,
    /// A list of texts that protobuf wraps in a message of its own.
    Strings,
    /// Another type of the table.
    Message(Arc<str>),
    /// A list.
    List(Box<FieldType>),
    /// A map with text keys.
    Map(Box<FieldType>),
}

/// How server-side apply treats a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListKind {
    /// One manager owns it as a whole.
    #[default]
    Atomic,
    /// Scalars without order.
    Set,
    /// Objects told apart by these fields.
    Map(Vec<String>),
}

/// How a strategic merge patch treats a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Lists merge instead of being replaced.
    pub merge: bool,
    /// Fields that the patch's `$retainKeys` does not name are cleared.
    pub retain_keys: bool,
    /// The field that tells a list's items apart; empty for lists of scalars.
    pub merge_key: String,
}

/// One field of a type.
#[derive(Clone, Debug)]
pub struct Field {
    /// Name in JSON.
    pub name: String,
    /// Number in protobuf; 0 where protobuf has it elsewhere (or nowhere).
    pub tag: u32,
    /// Its type.
    pub ty: FieldType,
    /// Absent and empty mean different things.
    pub pointer: bool,
    /// Must be there.
    pub required: bool,
    /// Strategic merge patches.
    pub patch: PatchStrategy,
    /// Server-side apply, where the field is a list.
    pub list: ListKind,
    /// Server-side apply: one manager owns the map or object as a whole.
    pub atomic: bool,
    /// The default as JSON text, where the schema knows one; empty otherwise.
    pub default: String,
}

impl Field {
    /// A field of any type that protobuf does not have and no rule applies to.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            tag: 0,
            ty: FieldType::Any,
            pointer: true,
            required: false,
            patch: PatchStrategy::default(),
            list: ListKind::Atomic,
            atomic: false,
            default: String::new(),
        }
    }
}

/// One type: an object with fields.
#[derive(Clone, Debug)]
pub struct TypeSchema {
    /// Its name, such as `io.k8s.api.core.v1.Pod`.
    pub name: Arc<str>,
    /// Group of the package it comes from, empty for the core group.
    pub group: String,
    /// Has `apiVersion` and `kind`.
    pub root: bool,
    /// Server-side apply: one manager owns the whole of it.
    pub atomic: bool,
    /// Its fields in JSON, in the table's order; those of inlined types included.
    pub fields: Vec<Field>,
    /// Types whose fields are part of this one in JSON, and stand under this number in protobuf.
    pub inlined: Vec<(u32, Arc<str>)>,
    /// Fields it does not know are kept and not checked.
    pub open: bool,
}

impl TypeSchema {
    /// A type without fields.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            group: String::new(),
            root: false,
            atomic: false,
            fields: Vec::new(),
            inlined: Vec::new(),
            open: false,
        }
    }

    /// The field of this JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name == name)
    }

    /// The field of this protobuf number.
    pub fn field_by_tag(&self, tag: u32) -> Option<&Field> {
        self.fields.iter().find(|f| f.tag == tag)
    }

    /// `Pod` of `io.k8s.api.core.v1.Pod`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// `v1` of `io.k8s.api.core.v1.Pod`.
    pub fn version(&self) -> &str {
        self.name.rsplit('.').nth(1).unwrap_or_default()
    }
}

/// A set of types: the built-in ones and those an extension adds. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Schemas {
    own: Arc<HashMap<String, Arc<TypeSchema>>>,
}

/// Why a type cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The table's text breaks its format.
    #[error("schema table, line {line}: {why}")]
    Table {
        /// One-based.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// The schema is not one the server can work with.
    #[error("schema of {name}: {why}")]
    OpenApi {
        /// The type.
        name: String,
        /// What is wrong.
        why: String,
    },
}

impl Schemas {
    /// The types of all built-in groups.
    pub fn builtin() -> Self {
        Self::default()
    }

    /// The type of this name.
    pub fn get(&self, name: &str) -> Option<Arc<TypeSchema>> {
        self.own.get(name).cloned().or_else(|| BUILTIN.get(name))
    }

    /// The type of the objects that say `apiVersion` and `kind` so.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<Arc<TypeSchema>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let fits = |s: &Arc<TypeSchema>| s.root && s.group == group && s.version() == version && s.short_name() == kind;
        self.own.values().find(|s| fits(s)).cloned().or_else(|| BUILTIN.by_kind(group, version, kind))
    }

    /// Adds a type, or replaces one of the same name.
    pub fn insert(&mut self, schema: TypeSchema) {
        Arc::make_mut(&mut self.own).insert(schema.name.to_string(), Arc::new(schema));
    }

    /// Adds all types of a table written in the format of the built-in one, which may refer to built-in types by their
    /// full names:
    ///
    /// ```text
    /// % demo/v1 io.example.demo.v1 demo.example.io
    /// = Widget @
    ///  metadata 1 io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta
    ///  spec 2 WidgetSpec
    /// = WidgetSpec
    ///  size 1 !i
    /// ```
    ///
    /// # Errors
    /// [`SchemaError::Table`] with the line.
    pub fn insert_table(&mut self, text: &str) -> Result<(), SchemaError> {
        parse::check(text)?;
        let table = parse::Table::index(text.to_owned().into());
        let added: Vec<_> = table.names().filter_map(|name| table.get(name)).collect();
        let own = Arc::make_mut(&mut self.own);
        own.extend(added.into_iter().map(|schema| (schema.name.to_string(), schema)));
        Ok(())
    }

    /// Adds a type, and the types nested in it, from an OpenAPI v3 schema (what `schemars` makes of a struct, or a
    /// `CustomResourceDefinition` carries). It becomes a root kind: `apiVersion`, `kind` and `metadata` are added.
    ///
    /// # Errors
    /// [`SchemaError::OpenApi`] where it is not an object's schema.
    pub fn insert_open_api(&mut self, name: &str, group: &str, schema: &serde_json::Value) -> Result<(), SchemaError> {
        for schema in open_api::types(name, group, schema)? {
            self.insert(schema);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtin_types_carry_fields_tags_and_merge_rules() {
        let schemas = Schemas::builtin();
        let pod = schemas.get("io.k8s.api.core.v1.PodSpec").unwrap();
        let containers = pod.field("containers").unwrap();
        assert_eq!((containers.tag, containers.required), (2, true));
        assert_eq!(containers.patch.merge_key, "name");
        assert_eq!(containers.list, ListKind::Map(vec!["name".into()]));
        let container = FieldType::Message("io.k8s.api.core.v1.Container".into());
        assert_eq!(containers.ty, FieldType::List(Box::new(container)));
        assert!(pod.field("replicas").is_none());
        let volumes = pod.field("volumes").unwrap();
        assert!(volumes.patch.merge && volumes.patch.retain_keys);
        let deployment = schemas.get("io.k8s.api.apps.v1.Deployment").unwrap();
        assert!(deployment.root && deployment.group == "apps" && deployment.version() == "v1");
        let meta = FieldType::Message("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta".into());
        assert_eq!(deployment.field("metadata").unwrap().ty, meta);
    }

    #[test]
    fn inlined_types_are_flat_in_json_and_nested_in_protobuf() {
        let volume = Schemas::builtin().get("io.k8s.api.core.v1.Volume").unwrap();
        assert_eq!(volume.field("emptyDir").unwrap().tag, 0);
        assert_eq!(volume.inlined, [(2, Arc::from("io.k8s.api.core.v1.VolumeSource"))]);
        assert_eq!(volume.field_by_tag(1).unwrap().name, "name");
        assert!(volume.field_by_tag(2).is_none());
    }

    #[test]
    fn every_referenced_type_exists() {
        fn message(ty: &FieldType) -> Option<&str> {
            match ty {
                FieldType::Message(name) => Some(name),
                FieldType::List(item) | FieldType::Map(item) => message(item),
                _ => None,
            }
        }
        let schemas = Schemas::builtin();
        let mut count = 0;
        for name in BUILTIN.names() {
            for field in &schemas.get(name).unwrap().fields {
                count += 1;
                let target = message(&field.ty);
                assert!(target.is_none_or(|t| schemas.get(t).is_some()), "{name}.{}: {target:?}", field.name);
            }
        }
        assert!(count > 2000, "{count}");
    }

    #[test]
    fn extensions_add_types_by_table() {
        let mut schemas = Schemas::builtin();
        let text = "% demo/v1 io.example.demo.v1 demo.example.io\n= Widget @\n \
                    metadata 1 io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta\n spec 2 WidgetSpec\n\
                    = WidgetSpec\n size 1 !i\n";
        schemas.insert_table(text).unwrap();
        let widget = schemas.get("io.example.demo.v1.Widget").unwrap();
        assert_eq!(widget.field("spec").unwrap().ty, FieldType::Message("io.example.demo.v1.WidgetSpec".into()));
        assert!(schemas.get("io.k8s.api.core.v1.Pod").is_some());
        let found = |version: &str, kind: &str| schemas.by_kind(version, kind).map(|s| s.name.to_string());
        assert_eq!(found("demo.example.io/v1", "Widget").as_deref(), Some("io.example.demo.v1.Widget"));
        assert_eq!(found("apps/v1", "Deployment").as_deref(), Some("io.k8s.api.apps.v1.Deployment"));
        assert_eq!(found("v1", "Deployment"), None);
        assert_eq!(found("v1", "Container"), None);
        for (bad, line) in
            [("= A\n", 1), ("% a b c\n x 1 s\n", 2), ("% a b c\n= A\n x one s\n", 3), ("% a b c\n= A\n x 1\n", 3)]
        {
            let error = schemas.insert_table(bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("schema table, line {line}:")), "{error}");
        }
    }
}
