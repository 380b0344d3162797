//! Tables: what `kubectl get` shows, rendered from a kind's columns.

use super::kind::Column;
use crate::api::human::age_since;
use crate::api::{ApiResult, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// How much of the object comes with a row (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl Include {
    /// Reads the query parameter.
    pub(crate) fn parse(text: Option<&str>) -> Self {
        match text {
            Some("None") => Include::None,
            Some("Object") => Include::Object,
            _ => Include::Metadata,
        }
    }
}

/// Columns of answers that are no objects of the kind itself (`scale`).
pub(crate) const PLAIN_COLUMNS: &[Column] = &[
    Column { name: "Name", kind: "string", format: "name", priority: 0, cell: |o, _| o["metadata"]["name"].clone() },
    Column {
        name: "Age",
        kind: "string",
        format: "",
        priority: 0,
        cell: |o, now| age_since(o["metadata"]["creationTimestamp"].as_str(), now).into(),
    },
];

/// Renders tables of one kind.
#[derive(Clone, Copy)]
pub(crate) struct Printer {
    /// What to show.
    pub(crate) columns: &'static [Column],
    /// `meta.k8s.io/v1`
    pub(crate) version: &'static str,
    /// How much of the object comes with a row.
    pub(crate) include: Include,
    /// The present time, for ages.
    pub(crate) now: Timestamp,
}

impl Printer {
    /// A table of these objects; `meta` is the list's metadata as JSON. Column definitions may be left out, as all
    /// events of a watch but the first do.
    ///
    /// # Errors
    /// `InternalError` where an object is no JSON.
    pub(crate) fn table<'a>(
        &self,
        meta: &[u8],
        objects: impl Iterator<Item = &'a Object>,
        with_columns: bool,
    ) -> ApiResult<Vec<u8>> {
        let mut out = format!(r#"{{"kind":"Table","apiVersion":"{}","metadata":"#, self.version).into_bytes();
        out.extend_from_slice(meta);
        out.extend_from_slice(b",\"columnDefinitions\":");
        write_json(&mut out, &if with_columns { self.definitions() } else { Value::Null });
        out.extend_from_slice(b",\"rows\":[");
        for (index, object) in objects.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.row(&mut out, object)?;
        }
        out.extend_from_slice(b"]}");
        Ok(out)
    }

    fn definitions(&self) -> Value {
        let describe = |c: &Column| json!({"name": c.name, "type": c.kind, "format": c.format, "description": "", "priority": c.priority});
        self.columns.iter().map(describe).collect()
    }

    fn row(&self, out: &mut Vec<u8>, object: &Object) -> ApiResult<()> {
        let value = object.value()?;
        let cells: Vec<Value> = self.columns.iter().map(|c| (c.cell)(&value, self.now)).collect();
        out.extend_from_slice(b"{\"cells\":");
        write_json(out, &cells);
        out.extend_from_slice(b",\"object\":");
        match self.include {
            Include::None => out.extend_from_slice(b"null"),
            Include::Metadata => write_metadata(out, self.version, &value),
            Include::Object => out.extend_from_slice(&object.json),
        }
        out.push(b'}');
        Ok(())
    }
}

/// Writes an object's metadata as `PartialObjectMetadata`.
pub(crate) fn write_metadata(out: &mut Vec<u8>, version: &str, object: &Value) {
    let head = format!(r#"{{"kind":"PartialObjectMetadata","apiVersion":"{version}","metadata":"#);
    out.extend_from_slice(head.as_bytes());
    write_json(out, &object["metadata"]);
    out.push(b'}');
}

/// Writing generic JSON into memory cannot fail.
fn write_json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    let _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Gvr;
    use bytes::Bytes;

    #[test]
    fn a_table_holds_cells_and_metadata() {
        let json = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"5","creationTimestamp":"2026-01-01T00:00:00Z"},"data":{}}"#;
        let object = Object::from_json(Gvr::new("", "v1", "configmaps"), Bytes::from_static(json.as_bytes())).unwrap();
        let now = "2026-01-01T00:00:05Z".parse().unwrap();
        let mut printer =
            Printer { columns: PLAIN_COLUMNS, version: "meta.k8s.io/v1", include: Include::Metadata, now };
        let read = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
        let table = read(printer.table(b"{}", [&object].into_iter(), true).unwrap());
        assert_eq!(table["rows"][0]["cells"], json!(["a", "5s"]));
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(table["rows"][0]["object"]["metadata"]["resourceVersion"], "5");
        assert_eq!(table["columnDefinitions"][0]["format"], "name");
        printer.include = Include::Object;
        let table = read(printer.table(b"{}", [&object].into_iter(), false).unwrap());
        assert_eq!(table["columnDefinitions"], Value::Null);
        assert_eq!(table["rows"][0]["object"]["data"], json!({}));
    }
}
