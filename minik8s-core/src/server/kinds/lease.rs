//! `Lease`: a short promise to be alive.

use super::cells::{AGE, NAME, column};
use super::util::{names, number, text};
use crate::api::Gvr;
use crate::client::CANDIDATE_LABEL;
use crate::server::{Column, FieldErrors, Kind, KindNames};
use serde_json::Value;
use std::time::Duration;

pub(crate) struct LeaseKind(KindNames);

impl LeaseKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("coordination.k8s.io", "v1", "leases"), "Lease", &[], false, true))
    }
}

static COLUMNS: [Column; 3] = [NAME, column("Holder", |o, _| text(o, "/spec/holderIdentity").into()), AGE];

impl Kind for LeaseKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.coordination.v1.Lease"
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    /// That of a candidate is its word that it lives, and goes when the word does not count any more.
    fn ttl(&self, object: &Value) -> Option<Duration> {
        object.pointer("/metadata/labels")?.get(CANDIDATE_LABEL)?;
        let seconds = number(object, "/spec/leaseDurationSeconds").and_then(|n| u64::try_from(n).ok());
        seconds.filter(|n| *n > 0).map(Duration::from_secs)
    }

    fn validate(&self, new: &Value, _: Option<&Value>, errors: &mut FieldErrors) {
        if let Some(n) = number(new, "/spec/leaseDurationSeconds").filter(|n| *n <= 0) {
            errors.invalid("spec.leaseDurationSeconds", &n.into(), "must be greater than 0");
        }
        if let Some(n) = number(new, "/spec/leaseTransitions").filter(|n| *n < 0) {
            errors.invalid("spec.leaseTransitions", &n.into(), "must be greater than or equal to 0");
        }
    }
}
