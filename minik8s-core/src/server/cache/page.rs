//! Pages of a list, of the present or of the recent past. Pure: maps and changes in, objects out.

use super::Filter;
use super::change::Change;
use super::objects::Objects;
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
    /// How many keys the pages before this one went past; `None` where that is not known.
    pub(crate) passed: Option<u64>,
    /// The state at this revision instead of the newest.
    pub(crate) at: Option<Revision>,
}

/// Objects in key order.
#[derive(Default)]
pub(crate) struct Page {
    pub(crate) items: Vec<Arc<Object>>,
    /// Key of the last object, where more follow.
    pub(crate) next: Option<Key>,
    /// How many keys follow, where the filter means all of them and it is known.
    pub(crate) remaining: Option<u64>,
    /// How many keys this page and those before it went past, where that is known.
    pub(crate) passed: Option<u64>,
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
pub(crate) fn read(now: &Objects, past: &BTreeMap<Key, Option<Arc<Object>>>, request: &PageRequest<'_>) -> Page {
    let from = match request.after {
        Some(after) if after >= request.prefix.as_str() => Bound::Excluded(after),
        _ => Bound::Included(request.prefix.as_str()),
    };
    let inside = |key: &Key| key.starts_with(request.prefix.as_str());
    let present = now.range(from, request.filter).filter(|(k, _)| !past.contains_key(*k));
    let changed = past.range::<str, _>((from, Bound::Unbounded)).filter_map(|(k, o)| o.as_ref().map(|o| (k, o)));
    let merged = Merged { left: present.peekable(), right: changed.peekable() };
    let mut page = collect(merged.take_while(|(k, _)| inside(k)), request);
    if request.filter.is_whole() {
        page.passed = request.passed.map(|passed| passed.saturating_add(page.items.len() as u64));
        page.remaining = page.passed.map(|passed| total(now, past, request).saturating_sub(passed));
    }
    page
}

/// How many keys there were under the prefix. Known without a look at each of them.
fn total(now: &Objects, past: &BTreeMap<Key, Option<Arc<Object>>>, request: &PageRequest<'_>) -> u64 {
    let changed = past.iter().filter(|(key, _)| key.starts_with(request.prefix.as_str()));
    changed.fold(now.count(request.filter) as u64, |total, (key, before)| {
        total + u64::from(before.is_some()) - u64::from(now.get(key).is_some())
    })
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
    if entries.any(|(_, object)| request.filter.matches(object)) {
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
