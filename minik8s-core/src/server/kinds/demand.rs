//! `Demand`: what a node's gateway is asked for by requests that may be held.

use super::cells::{AGE, NAME, integer};
use super::util::{items, names, number};
use crate::api::Gvr;
use crate::server::{Column, Kind, KindNames};
use serde_json::Value;

pub(crate) struct DemandKind(KindNames);

impl DemandKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("minik8s.io", "v1alpha1", "demands"), "Demand", &[], false, false))
    }
}

static COLUMNS: [Column; 5] = [
    NAME,
    integer("Backends", |o, _| items(o, "/spec/backends").count().into()),
    integer("Waiting", |o, _| total(o, "/waiting").into()),
    integer("Active", |o, _| total(o, "/active").into()),
    AGE,
];

fn total(demand: &Value, field: &str) -> i64 {
    items(demand, "/spec/backends").filter_map(|backend| number(backend, field)).sum()
}

impl Kind for DemandKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.minik8s.v1alpha1.Demand"
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }
}
