//! Pages of a list, of the present or of the recent past. Pure: maps and changes in, objects out.

use super::Filter;
use super::change::Change;
use crate::api::{Object, Revision};
use crate::store::Key;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Which objects to read.
pub(crate) struct PageRequest<'a> {
    pub(crate) filter: &'a Filter,
    /// Keys that start with this: the resource, or one namespace of it.
    pub(crate) prefix: String,
    /// Only keys after this one.
    pub(crate) after: Option<&'a str>,
    /// At most so many; 0 means all.
    pub(crate) limit: usize,
    /// The state at this revision instead of the newest.
    pub(crate) at: Option<Revision>,
}

/// Objects in key order.
#[derive(Default)]
pub(crate) struct Page {
    pub(crate) items: Vec<Arc<Object>>,
    /// Key of the last object, where more follow.
    pub(crate) next: Option<Key>,
    /// How many keys follow, matching or not.
    pub(crate) remaining: u64,
    pub(crate) revision: Revision,
}

/// What stood under the keys that changed: the state before the first of `changes`.
pub(crate) fn undo<'a>(changes: impl Iterator<Item = &'a Arc<Change>>) -> BTreeMap<Key, Option<Arc<Object>>> {
    let mut past = BTreeMap::new();
    for change in changes {
        past.entry(change.key.clone()).or_insert_with(|| change.before.clone());
    }
    past
}

/// Reads a page of `now`, seen through `past` (keys whose value was another one).
pub(crate) fn read(
    now: &BTreeMap<Key, Arc<Object>>,
    past: &BTreeMap<Key, Option<Arc<Object>>>,
    request: &PageRequest<'_>,
) -> Page {
    let from = match request.after {
        Some(after) if after >= request.prefix.as_str() => Bound::Excluded(after),
        _ => Bound::Included(request.prefix.as_str()),
    };
    let bounds = (from, Bound::Unbounded);
    let inside = |key: &Key| key.starts_with(request.prefix.as_str());
    let present = now.range::<str, _>(bounds).filter(|(k, _)| !past.contains_key(*k));
    let changed = past.range::<str, _>(bounds).filter_map(|(k, o)| o.as_ref().map(|o| (k, o)));
    let merged = Merged { left: present.peekable(), right: changed.peekable() };
    collect(merged.take_while(|(k, _)| inside(k)), request)
}

fn collect<'a>(entries: impl Iterator<Item = (&'a Key, &'a Arc<Object>)>, request: &PageRequest<'_>) -> Page {
    let mut page = Page::default();
    let mut last = None;
    let mut entries = entries.peekable();
    while let Some((key, object)) = entries.next_if(|_| request.limit == 0 || page.items.len() < request.limit) {
        if request.filter.matches(object) {
            page.items.push(object.clone());
            last = Some(key);
        }
    }
    if request.filter.is_whole() {
        page.remaining = entries.count() as u64;
        page.next = last.filter(|_| page.remaining > 0).cloned();
    } else if entries.any(|(_, object)| request.filter.matches(object)) {
        page.next = last.cloned();
    }
    page
}

/// Two sorted sequences with distinct keys, as one.
struct Merged<L: Iterator, R: Iterator> {
    left: std::iter::Peekable<L>,
    right: std::iter::Peekable<R>,
}

impl<'a, L, R> Iterator for Merged<L, R>
where
    L: Iterator<Item = (&'a Key, &'a Arc<Object>)>,
    R: Iterator<Item = (&'a Key, &'a Arc<Object>)>,
{
    type Item = (&'a Key, &'a Arc<Object>);

    fn next(&mut self) -> Option<Self::Item> {
        match (self.left.peek(), self.right.peek()) {
            (Some((l, _)), Some((r, _))) if r < l => self.right.next(),
            (None, _) => self.right.next(),
            _ => self.left.next(),
        }
    }
}
