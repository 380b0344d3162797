//! The cache of one stored resource: its objects, its recent changes, and who follows them.

use super::change::Change;
use super::fanout::{Fanout, Id, Queued};
use super::objects::Objects;
use super::page::{self, Page, PageRequest};
use super::ring::{Ring, Sequence};
use super::{Filter, Prepared, WatchSettings};
use crate::api::{ApiResult, Gvr, Object, Revision};
use crate::server::encode::{self, Fields};
use crate::server::{SelectableField, keys};
use crate::store::{Entry, Event, Key};
use parking_lot::RwLock;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::mpsc;

/// How a resource is stored.
pub(crate) struct StoredResource {
    pub(crate) gvr: Gvr,
    pub(crate) prefix: String,
    /// The selectable fields of every kind that reads it.
    pub(crate) fields: Vec<&'static SelectableField>,
    /// Those by which objects are found without a look at all of them.
    pub(crate) indexed: Vec<&'static str>,
}

impl StoredResource {
    pub(crate) fn new(gvr: Gvr) -> Self {
        Self { prefix: keys::prefix(&gvr), gvr, fields: Vec::new(), indexed: Vec::new() }
    }

    /// The selectable fields of an object in its stored form.
    pub(crate) fn fields_of(&self, stored: &Value) -> Fields {
        self.fields.iter().map(|f| (f.path, (f.value)(stored))).collect()
    }

    fn decode(&self, entry: &Entry, prepared: Option<Prepared>) -> ApiResult<Object> {
        if let Some(known) = prepared {
            let mut meta = known.meta;
            meta.resource_version = entry.revision.to_string();
            let json = encode::with_revision(&entry.value, entry.revision);
            return Ok(Object { gvr: self.gvr.clone(), meta, revision: entry.revision, json, fields: known.fields });
        }
        self.decode_stored(entry)
    }

    /// An object from a store entry.
    pub(crate) fn decode_stored(&self, entry: &Entry) -> ApiResult<Object> {
        let fields = if self.fields.is_empty() {
            Fields::default()
        } else {
            serde_json::from_slice(&entry.value).map_or_else(|_| Fields::default(), |v| self.fields_of(&v))
        };
        encode::object(&self.gvr, &entry.value, entry.revision, fields)
    }
}

struct State {
    objects: Objects,
    ring: Ring,
    fanout: Fanout,
}

/// The cache of one stored resource.
pub(crate) struct ResourceCache {
    pub(crate) resource: StoredResource,
    state: RwLock<State>,
}

/// Where a new watcher stands.
pub(crate) struct Opening {
    /// The present state, where it was asked for.
    pub(crate) initial: Vec<Arc<Object>>,
    /// The first change to look at.
    pub(crate) next: Sequence,
    /// The newest revision of the resource.
    pub(crate) revision: Revision,
}

impl ResourceCache {
    pub(crate) fn new(resource: StoredResource, settings: &WatchSettings) -> Self {
        let objects = Objects::new(&resource.indexed);
        let state = State { objects, ring: Ring::new(settings.history), fanout: Fanout::default() };
        Self { resource, state: RwLock::new(state) }
    }

    /// One object.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.state.read().objects.get(key).cloned()
    }

    /// A page, and `None` where the history does not reach back to the revision asked for. `reached` is how far the
    /// caches have come.
    pub(crate) fn page(&self, request: &PageRequest<'_>, reached: impl FnOnce() -> Revision) -> Option<Page> {
        let state = self.state.read();
        let newest = reached().max(state.ring.newest().unwrap_or_default());
        let at = request.at.unwrap_or(newest);
        let changes = match request.at {
            Some(at) => state.ring.read(state.ring.after(at)?, usize::MAX)?,
            None => Vec::new(),
        };
        let mut page = page::read(&state.objects, &page::undo(changes.iter()), request);
        page.revision = at;
        Some(page)
    }

    /// The present state that a new watcher begins with.
    pub(crate) fn open_initial(&self, filter: &Filter, reached: impl FnOnce() -> Revision) -> Opening {
        let state = self.state.read();
        let revision = reached().max(state.ring.newest().unwrap_or_default());
        let request =
            PageRequest { filter, prefix: self.prefix_of(filter), after: None, limit: 0, passed: None, at: None };
        let initial = page::read(&state.objects, &BTreeMap::new(), &request).items;
        Opening { initial, next: state.ring.end(), revision }
    }

    /// The place after `revision`, and `None` where changes since then are forgotten.
    pub(crate) fn open_after(&self, revision: Revision) -> Option<Opening> {
        let state = self.state.read();
        let next = state.ring.after(revision)?;
        Some(Opening { initial: Vec::new(), next, revision })
    }

    /// What became of a key from its version of revision `base`, or, where it was absent (`None`), later than `since`; if
    /// that is known. Others may have followed on `base` before `since`: only its own revision bounds the search.
    pub(crate) fn successor(
        &self,
        key: &str,
        base: Option<Revision>,
        since: Revision,
    ) -> Option<(Revision, Option<Arc<Object>>)> {
        let state = self.state.read();
        let bound = base.unwrap_or(since);
        let mut later = state.ring.newest_first().take_while(|c| c.revision > bound);
        let found = later.find(|c| &*c.key == key && c.before.as_ref().map(|o| o.revision) == base)?;
        Some((found.revision, found.after.clone()))
    }

    /// Where the keys of a filter's objects stand.
    pub(crate) fn prefix_of(&self, filter: &Filter) -> String {
        filter.namespace().map_or_else(|| self.resource.prefix.clone(), |ns| format!("{}{ns}/", self.resource.prefix))
    }

    /// Changes from a position on, and `None` where it is forgotten.
    pub(crate) fn read(&self, from: Sequence, max: usize) -> Option<Vec<Arc<Change>>> {
        self.state.read().ring.read(from, max)
    }

    /// Joins the live watchers, if nothing has happened since `next`.
    pub(crate) fn join(
        &self,
        filter: &Arc<Filter>,
        next: Sequence,
        queue: usize,
    ) -> Option<(Id, mpsc::Receiver<Queued>)> {
        let mut state = self.state.write();
        (state.ring.end() == next).then(|| state.fanout.join(filter.clone(), queue))
    }

    /// Leaves the live watchers.
    pub(crate) fn leave(&self, id: Id) {
        self.state.write().fanout.leave(id);
    }

    /// Takes over one event of the store.
    pub(crate) fn apply(&self, event: &Event, prepared: Option<Prepared>) {
        match event {
            Event::Put(entry) => match self.resource.decode(entry, prepared) {
                Ok(object) => self.change(entry.key.clone(), entry.revision, Some(Arc::new(object))),
                Err(error) => tracing::error!(key = %entry.key, %error, "object in the store is skipped"),
            },
            Event::Delete(entry) => self.change(entry.key.clone(), entry.revision, None),
        }
    }

    fn change(&self, key: Key, revision: Revision, after: Option<Arc<Object>>) {
        let mut state = self.state.write();
        let before = match &after {
            Some(object) => state.objects.insert(key.clone(), object.clone()),
            None => state.objects.remove(&key),
        };
        if before.is_none() && after.is_none() {
            return;
        }
        let change = Arc::new(Change::new(key, revision, before, after));
        let sequence = state.ring.end();
        state.ring.push(change.clone());
        state.fanout.tell(&change, sequence);
    }

    /// Takes over the whole state at `revision`: at start, or after the store's watch was cut for good. Watchers get
    /// the differences, in the order of their revisions.
    pub(crate) fn replace(&self, entries: &[&Entry], revision: Revision, first: bool) {
        if first {
            return self.load(entries, revision);
        }
        let fresh: HashMap<&Key, &&Entry> = entries.iter().map(|e| (&e.key, e)).collect();
        let (mut changed, mut gone): (Vec<&&Entry>, Vec<Key>) = (Vec::new(), Vec::new());
        {
            let state = self.state.read();
            let known = |e: &Entry| state.objects.get(&e.key).is_some_and(|o| o.revision == e.revision);
            changed.extend(entries.iter().filter(|e| !known(e)));
            gone.extend(state.objects.keys().filter(|k| !fresh.contains_key(k)).cloned());
        }
        changed.sort_by_key(|e| e.revision);
        for entry in changed {
            self.apply(&Event::Put((**entry).clone()), None);
        }
        for key in gone {
            self.change(key, revision, None);
        }
        // Who watched goes on; who comes with a revision in between must list again.
        self.state.write().ring.skip_to(revision);
    }

    fn load(&self, entries: &[&Entry], revision: Revision) {
        let mut objects = Objects::new(&self.resource.indexed);
        for entry in entries {
            match self.resource.decode_stored(entry) {
                Ok(object) => drop(objects.insert(entry.key.clone(), Arc::new(object))),
                Err(error) => tracing::error!(key = %entry.key, %error, "object in the store is skipped"),
            }
        }
        let mut state = self.state.write();
        state.objects = objects;
        state.ring.restart(revision);
    }
}
