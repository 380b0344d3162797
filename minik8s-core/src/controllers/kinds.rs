//! The kinds of the cluster, for controllers that are about all of them.

use crate::api::Gvr;
use crate::server::{KindNames, Registry};

/// One kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindRef {
    /// Its resource.
    pub gvr: Gvr,
    /// Its name, such as `Pod`.
    pub kind: String,
    /// Objects live in namespaces.
    pub namespaced: bool,
}

impl KindRef {
    /// True for events: many, short-lived, owned by nobody.
    pub fn is_event(&self) -> bool {
        self.gvr.resource == "events"
    }
}

impl From<&KindNames> for KindRef {
    fn from(names: &KindNames) -> Self {
        Self { gvr: names.gvr.clone(), kind: names.kind.to_string(), namespaced: names.namespaced }
    }
}

/// Where the list of kinds comes from. Kinds may come and go while the cluster runs.
pub trait KindDirectory: Send + Sync + 'static {
    /// The kinds now, each storage once: a kind that is another's alias, or is not stored, is left out.
    fn kinds(&self) -> Vec<KindRef>;
}

impl KindDirectory for Vec<KindRef> {
    fn kinds(&self) -> Vec<KindRef> {
        self.clone()
    }
}

impl KindDirectory for Registry {
    fn kinds(&self) -> Vec<KindRef> {
        let table = self.snapshot();
        table
            .kinds()
            .filter(|kind| kind.stored_as().is_none() && kind.computed().is_none())
            .map(|kind| kind.names().into())
            .collect()
    }
}
