//! The table of kinds. Readers take an immutable snapshot; adding a kind at run time swaps the whole table.

use super::Kind;
use crate::api::Gvr;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The resource of a kind that answers to every resource of its version which is no other kind's. Discovery has no word for
/// it.
pub const ANYTHING: &str = "*";

/// Every kind that is served, sorted by group, version and resource. Immutable.
#[derive(Clone, Default)]
pub struct KindTable {
    by_gvr: BTreeMap<Gvr, Arc<dyn Kind>>,
    by_name: BTreeMap<(String, String, String), Gvr>,
}

impl KindTable {
    /// A table of `kinds`; of two with the same resource, the later one stays.
    pub fn new(kinds: impl IntoIterator<Item = Arc<dyn Kind>>) -> Self {
        let mut table = Self::default();
        for kind in kinds {
            table.insert(kind);
        }
        table
    }

    fn insert(&mut self, kind: Arc<dyn Kind>) {
        let names = kind.names();
        let gvr = names.gvr.clone();
        self.by_name.insert((gvr.group.to_string(), gvr.version.to_string(), names.kind.to_string()), gvr.clone());
        self.by_gvr.insert(gvr, kind);
    }

    /// The kind of a resource.
    pub fn get(&self, gvr: &Gvr) -> Option<&Arc<dyn Kind>> {
        let any = || Gvr { resource: ANYTHING.into(), ..gvr.clone() };
        self.by_gvr.get(gvr).or_else(|| self.by_gvr.get(&any()))
    }

    /// The resource of a kind, by the names its objects carry.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<dyn Kind>> {
        let key = (group.to_owned(), version.to_owned(), kind.to_owned());
        self.by_name.get(&key).and_then(|gvr| self.by_gvr.get(gvr))
    }

    /// The kind whose objects carry this `apiVersion` and `kind`.
    pub fn by_api_version(&self, api_version: &str, kind: &str) -> Option<&Arc<dyn Kind>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.by_kind(group, version, kind)
    }

    /// All kinds, in order of group, version and resource.
    pub fn kinds(&self) -> impl Iterator<Item = &Arc<dyn Kind>> {
        self.by_gvr.values()
    }

    /// The kinds of one group and version.
    pub fn of_version<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Arc<dyn Kind>> {
        self.kinds().filter(move |k| k.names().gvr.group == group && k.names().gvr.version == version)
    }

    /// Every group and version that has kinds, in order.
    pub fn versions(&self) -> Vec<(String, String)> {
        let mut all: Vec<_> = self.by_gvr.keys().map(|g| (g.group.to_string(), g.version.to_string())).collect();
        all.dedup();
        all
    }

    /// True where some kind of this group and version is served.
    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.of_version(group, version).next().is_some()
    }
}

/// The table as it is now. Cheap to clone; clones share the table.
#[derive(Clone, Default)]
pub struct Registry {
    table: Arc<ArcSwap<KindTable>>,
}

impl Registry {
    /// The kinds that every server has.
    pub fn builtin() -> Self {
        Self::new(KindTable::new(super::kinds::builtin()))
    }

    /// A registry that starts with `table`.
    pub fn new(table: KindTable) -> Self {
        Self { table: Arc::new(ArcSwap::from_pointee(table)) }
    }

    /// The table as it is now; later changes do not show in it.
    pub fn snapshot(&self) -> Arc<KindTable> {
        self.table.load_full()
    }

    /// The kind of a resource.
    pub fn get(&self, gvr: &Gvr) -> Option<Arc<dyn Kind>> {
        self.table.load().get(gvr).cloned()
    }

    /// Adds a kind, or replaces the one of the same resource. A running server serves it where its objects are stored
    /// as those of a kind that was there at the start; storage of its own is made when the server is built.
    pub fn add(&self, kind: &Arc<dyn Kind>) {
        self.table.rcu(|old| {
            let mut next = KindTable::clone(old);
            next.insert(kind.clone());
            next
        });
    }

    /// Removes a kind.
    pub fn remove(&self, gvr: &Gvr) {
        self.table.rcu(|old| {
            let mut next = KindTable::clone(old);
            next.by_gvr.remove(gvr);
            next.by_name.retain(|_, g| g != gvr);
            next
        });
    }
}
