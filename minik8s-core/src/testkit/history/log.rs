//! What the store says has happened, and whether answers agree with it.

use super::{Call, ListSeen, Op, Outcome, Recorder, Seen, Violation, WatchSeen};
use crate::api::{Revision, WatchEventType};
use crate::store::{Event, Store, StoreError, WatchBatch, WatchStart};
use futures::StreamExt;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

/// Every version of every key, from a watch of the store that began before anything was written.
#[derive(Clone, Debug, Default)]
pub struct StoreLog {
    /// Of each key the revisions at which it changed; `None` where it went, else the object's uid.
    keys: BTreeMap<String, BTreeMap<Revision, Option<String>>>,
    events: BTreeMap<Revision, Vec<(String, WatchEventType)>>,
    revision: Revision,
}

impl StoreLog {
    /// Reads a store's history from its first revision to `until`.
    ///
    /// # Errors
    /// Where the store does not keep its history that far back, or fails.
    pub async fn read(store: &dyn Store, until: Revision) -> Result<Self, StoreError> {
        let mut log = Self::default();
        let mut batches = store.watch("", WatchStart::After(0)).await?;
        while log.revision < until {
            match batches.next().await {
                Some(batch) => log.add(&batch?),
                None => break,
            }
        }
        Ok(log)
    }

    /// Adds one commit.
    pub fn add(&mut self, batch: &WatchBatch) {
        self.revision = self.revision.max(batch.revision);
        for event in batch.events.iter() {
            let (entry, key) = (event.entry(), event.entry().key.to_string());
            let (uid, kind) = match event {
                Event::Delete(_) => (None, WatchEventType::Deleted),
                Event::Put(entry) if entry.created == entry.revision => (Some(uid(entry)), WatchEventType::Added),
                Event::Put(entry) => (Some(uid(entry)), WatchEventType::Modified),
            };
            self.events.entry(entry.revision).or_default().push((key.clone(), kind));
            self.keys.entry(key).or_default().insert(entry.revision, uid);
        }
    }

    /// The newest revision it knows.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Holds all that a recorder noted against what has happened: no answer shows what was not there then, no write that
    /// was acknowledged is missing, lists are whole, watches tell every change once and in order.
    ///
    /// # Errors
    /// The first answer that is not so.
    pub fn explains(&self, recorder: &Recorder) -> Result<(), Violation> {
        recorder.calls().iter().try_for_each(|call| self.call(call))?;
        recorder.lists().iter().try_for_each(|list| self.list(list))?;
        recorder.watches().iter().try_for_each(|watch| self.watch(watch))
    }

    fn call(&self, call: &Call) -> Result<(), Violation> {
        let (from, to) = call.during.unwrap_or((0, self.revision));
        let nothing = BTreeMap::new();
        let versions = self.keys.get(&*call.object).unwrap_or(&nothing);
        let fits = match &call.outcome {
            Outcome::Is(seen) => was_shown(versions, call, seen, (from, to)),
            Outcome::Gone(revision) => (from < *revision && *revision <= to) && versions.get(revision) == Some(&None),
            Outcome::Missing => states(versions, from, to).any(|state| state.is_none()),
            Outcome::Exists => states(versions, from, to).any(|state| state.is_some()),
            Outcome::Conflict | Outcome::Refused | Outcome::Unknown => true,
        } && was_as_wanted(versions, call);
        if fits {
            return Ok(());
        }
        let around: Vec<String> = versions.iter().map(|(revision, uid)| format!("  {revision}: {uid:?}")).collect();
        let why = format!("the store, then at {from} to {to}, does not explain {call}; its versions:");
        Err(Violation { around: around.join("\n"), ..Violation::new(&*call.object, why) })
    }

    /// What stood below a prefix at a revision.
    fn at(&self, prefix: &str, revision: Revision) -> Vec<(String, Revision)> {
        let below = self.keys.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let live = below.filter_map(|(key, versions)| {
            let (at, uid) = versions.range(..=revision).next_back()?;
            uid.as_ref().map(|_| (key.clone(), *at))
        });
        live.collect()
    }

    fn list(&self, list: &ListSeen) -> Result<(), Violation> {
        let is = self.at(&list.prefix, list.revision);
        let what = || format!("list of {} by {}", list.prefix, list.client);
        if let Some((from, _)) = list.during.filter(|(from, _)| list.fresh && list.revision < *from) {
            return Err(Violation::new(what(), format!("it is of {}, asked for at {from}", list.revision)));
        }
        let (goes_on, more) = list.page;
        let fits = if list.selective {
            list.items.iter().all(|item| is.contains(item))
        } else {
            let first = list.items.first().and_then(|item| is.iter().position(|other| other == item));
            let begin = first.unwrap_or(if list.items.is_empty() && goes_on { is.len() } else { 0 });
            let end = begin + list.items.len();
            (begin == 0 || goes_on) && (end == is.len() || more) && is.get(begin..end) == Some(&list.items)
        };
        if fits {
            return Ok(());
        }
        let why = format!("at {} it shows {:?}, the store had {is:?}", list.revision, list.items);
        Err(Violation::new(what(), why))
    }

    fn watch(&self, watch: &WatchSeen) -> Result<(), Violation> {
        let what = || format!("watch of {} by {} after {:?}", watch.prefix, watch.client, watch.after);
        let Some(after) = watch.after else { return Ok(()) };
        if watch.selective {
            let mut last = after;
            for (revision, key, kind) in &watch.events {
                if *revision <= last || !self.keys.get(key).is_some_and(|versions| versions.contains_key(revision)) {
                    return Err(Violation::new(what(), format!("{kind:?} {key} at {revision} follows {last}")));
                }
                last = *revision;
            }
            return Ok(());
        }
        let later = self.events.range((Excluded(after), Unbounded));
        let below = later.flat_map(|(revision, events)| {
            let here = events.iter().filter(|(key, _)| key.starts_with(&watch.prefix));
            here.map(|(key, kind)| (*revision, key.clone(), *kind))
        });
        let mut told = watch.events.iter();
        for event in below {
            match told.next() {
                Some(seen) if *seen == event => {}
                None if event.0 > watch.reached => break,
                other => return Err(Violation::new(what(), format!("it tells {other:?} where {event:?} happened"))),
            }
        }
        match told.next() {
            None => Ok(()),
            Some(event) => Err(Violation::new(what(), format!("it tells {event:?}, which did not happen"))),
        }
    }
}

fn uid(entry: &crate::store::Entry) -> String {
    let value: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
    value.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Every state of a key from one revision to another.
fn states(
    versions: &BTreeMap<Revision, Option<String>>,
    from: Revision,
    to: Revision,
) -> impl Iterator<Item = Option<&String>> {
    let first = versions.range(..=from).next_back().and_then(|(_, uid)| uid.as_ref());
    let later = versions.range((Excluded(from), std::ops::Bound::Included(to.max(from)))).map(|(_, uid)| uid.as_ref());
    std::iter::once(first).chain(later)
}

/// Whether a change that was done met an object that was as the call wanted it.
fn was_as_wanted(versions: &BTreeMap<Revision, Option<String>>, call: &Call) -> bool {
    let (Op::Update(_, when) | Op::Patch(_, when) | Op::Delete(when)) = &call.op else { return true };
    let revision = match &call.outcome {
        Outcome::Is(seen) => seen.revision,
        Outcome::Gone(revision) => *revision,
        _ => return true,
    };
    // Nothing was different: then nothing was written.
    if when.revision == Some(revision) {
        return true;
    }
    let Some((before, uid)) = versions.range(..revision).next_back() else { return when.revision.is_none() };
    let same_uid = when.uid.is_none() || uid.is_none() || when.uid == *uid;
    same_uid && when.revision.is_none_or(|wanted| wanted == *before)
}

/// Whether the version that an answer shows stood at some time of the call, or was written by it.
fn was_shown(
    versions: &BTreeMap<Revision, Option<String>>,
    call: &Call,
    seen: &Seen,
    (from, to): (Revision, Revision),
) -> bool {
    let Some(uid) = versions.get(&seen.revision) else { return false };
    let same = uid.is_none() || seen.uid.is_none() || *uid == seen.uid;
    // A change may be the last that an object waited for: then it shows the version with which it went.
    let stood = uid.is_some() || (call.op != Op::Get && seen.revision > from);
    let next = versions.range((Excluded(seen.revision), Unbounded)).next();
    same && stood && seen.revision <= to && next.is_none_or(|(revision, _)| *revision > from)
}
