//! The kinds `GpuJob` and `JobCluster`.

/// A struct that is data of an object: every field may be left out.
macro_rules! plain {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }
    };
}

mod check;
mod cluster_types;
mod gpu_job;
mod job_cluster;
mod types;

pub use cluster_types::*;
pub use gpu_job::GpuJobKind;
pub(crate) use gpu_job::MOST_TASKS;
pub use job_cluster::JobClusterKind;
pub use types::*;

use jiff::Timestamp;
use minik8s_core::api::human::age_since;
use minik8s_core::server::{Column, KindNames};
use serde_json::Value;

/// The types behind the kinds, in the format of the schema table.
pub(crate) const SCHEMA: &str = include_str!("schema.txt");

fn names(plural: &'static str, kind: &'static str, short: &[&'static str]) -> KindNames {
    KindNames {
        gvr: minik8s_core::api::Gvr::new(GROUP, VERSION, plural),
        kind: kind.into(),
        singular: kind.to_ascii_lowercase().into(),
        short_names: short.iter().map(|s| (*s).into()).collect(),
        categories: Vec::new(),
        namespaced: true,
    }
}

/// The text at a JSON pointer; empty where there is none.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

const fn column(name: &'static str, format: &'static str, cell: fn(&Value, Timestamp) -> Value) -> Column {
    Column { name, kind: "string", format, priority: 0, cell }
}

const fn wide(name: &'static str, cell: fn(&Value, Timestamp) -> Value) -> Column {
    Column { name, kind: "string", format: "", priority: 1, cell }
}

const NAME: Column = column("Name", "name", |o, _| text(o, "/metadata/name").into());
const AGE: Column =
    column("Age", "", |o, now| age_since(o.pointer("/metadata/creationTimestamp").and_then(Value::as_str), now).into());
