//! `HorizontalPodAutoscaler`: stored as `autoscaling/v2`, and shown as `autoscaling/v1` too, which holds what it has no
//! fields for in annotations.

mod columns;
mod convert;
mod defaults;
mod validate;

use super::util::names;
use crate::api::{Gvr, Schemas};
use crate::server::{Column, FieldErrors, Kind, KindNames};
use serde_json::{Value, json};

const V2: &str = "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler";

/// Where autoscalers are found in this version.
fn gvr(version: &'static str) -> Gvr {
    Gvr::new("autoscaling", version, "horizontalpodautoscalers")
}

fn named(version: &'static str) -> KindNames {
    names(gvr(version), "HorizontalPodAutoscaler", &["hpa"], true, true)
}

/// `autoscaling/v2`
pub(crate) struct AutoscalerKind(KindNames);

impl AutoscalerKind {
    pub(crate) fn new() -> Self {
        Self(named("v2"))
    }
}

impl Kind for AutoscalerKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        V2
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        &columns::COLUMNS
    }

    fn default(&self, object: &mut Value) {
        defaults::fill(object);
    }

    fn validate(&self, new: &Value, _: Option<&Value>, errors: &mut FieldErrors) {
        validate::check(new, errors);
    }
}

/// `autoscaling/v1`
pub(crate) struct AutoscalerV1Kind(KindNames);

impl AutoscalerV1Kind {
    pub(crate) fn new() -> Self {
        Self(named("v1"))
    }
}

impl Kind for AutoscalerV1Kind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        &columns::V1_COLUMNS
    }

    /// What v2 fills in, in the words of v1.
    fn default(&self, object: &mut Value) {
        // What cannot be taken over stays, to be refused.
        if convert::notes(object).any(|(name, note)| convert::complaint(name, note).is_some()) {
            return;
        }
        convert::to_v2(object);
        defaults::fill(object);
        convert::to_v1(object);
    }

    fn validate(&self, new: &Value, _: Option<&Value>, errors: &mut FieldErrors) {
        check_notes(new, errors);
        if errors.is_empty() {
            let mut new = new.clone();
            convert::to_v2(&mut new);
            validate::check(&new, errors);
            if let Err(why) = Schemas::builtin().check(V2, new) {
                errors.invalid_shown("spec", "as autoscaling/v2", &why);
            }
        }
    }

    fn stored_as(&self) -> Option<Gvr> {
        Some(gvr("v2"))
    }

    fn to_storage(&self, object: &mut Value) {
        convert::to_v2(object);
    }

    fn from_storage(&self, object: &mut Value) {
        convert::to_v1(object);
    }
}

/// Annotations pass by the schema of v1: what they become must be an object of v2.
fn check_notes(object: &Value, errors: &mut FieldErrors) {
    for (name, note) in convert::notes(object) {
        let refused = convert::complaint(name, note).or_else(|| {
            let mut only = object.clone();
            only["metadata"]["annotations"] = json!({});
            only["metadata"]["annotations"][name] = note.clone();
            convert::to_v2(&mut only);
            Schemas::builtin().check(V2, only).err()
        });
        if let Some(why) = refused {
            errors.invalid(format!("metadata.annotations[{name}]"), note, &why);
        }
    }
}

#[cfg(test)]
mod tests;
