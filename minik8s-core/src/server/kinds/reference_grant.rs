//! `ReferenceGrant`: leave for objects of other namespaces to refer to some of this one.

use super::cells::{AGE, NAME};
use super::util::{items, names, text};
use crate::api::Gvr;
use crate::server::{Column, FieldErrors, Kind, KindNames};
use serde_json::Value;

pub(crate) struct ReferenceGrantKind(KindNames);

impl ReferenceGrantKind {
    pub(crate) fn new() -> Self {
        let gvr = Gvr::new("gateway.networking.k8s.io", "v1beta1", "referencegrants");
        Self(names(gvr, "ReferenceGrant", &["refgrant"], false, true))
    }
}

static COLUMNS: [Column; 2] = [NAME, AGE];

impl Kind for ReferenceGrantKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.networking.gateway.v1beta1.ReferenceGrant"
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn desired<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        object.get("spec")
    }

    fn validate(&self, new: &Value, _: Option<&Value>, errors: &mut FieldErrors) {
        for (list, needed) in [("from", &["kind", "namespace"][..]), ("to", &["kind"])] {
            let pointer = format!("/spec/{list}");
            if items(new, &pointer).next().is_none() {
                errors.required(format!("spec.{list}"), "");
            }
            for (index, item) in items(new, &pointer).enumerate() {
                for field in needed.iter().filter(|field| text(item, &format!("/{field}")).is_empty()) {
                    errors.required(format!("spec.{list}[{index}].{field}"), "");
                }
            }
        }
    }
}
