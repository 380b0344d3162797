//! One key's versions: what it held, from which revision on.

use crate::api::Revision;
use bytes::Bytes;

/// What a key held from one revision on; no value means that it was deleted then.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) revision: Revision,
    pub(super) created: Revision,
    pub(super) value: Option<Bytes>,
}

/// A key's versions, oldest first. Nearly every key has one, so that one costs no allocation.
#[derive(Debug)]
pub(super) enum Slot {
    One(Version),
    Many(Vec<Version>),
}

impl Slot {
    pub(super) fn versions(&self) -> &[Version] {
        match self {
            Slot::One(version) => std::slice::from_ref(version),
            Slot::Many(versions) => versions,
        }
    }

    pub(super) fn live_at(&self, at: Revision) -> Option<&Version> {
        let version = self.versions().iter().rev().find(|v| v.revision <= at)?;
        version.value.is_some().then_some(version)
    }

    pub(super) fn push(&mut self, version: Version) {
        match self {
            Slot::Many(versions) => versions.push(version),
            Slot::One(first) => *self = Slot::Many(vec![first.clone(), version]),
        }
    }

    /// Forgets what no read at `floor` or later can see. False where nothing is left of the key.
    pub(super) fn prune(&mut self, floor: Revision) -> bool {
        let Slot::Many(versions) = self else { return true };
        let seen_first = versions.iter().rposition(|v| v.revision <= floor).unwrap_or(0);
        let dead = versions.get(seen_first).is_some_and(|v| v.revision <= floor && v.value.is_none());
        versions.drain(..seen_first + usize::from(dead));
        if let [only] = versions.as_slice() {
            *self = Slot::One(only.clone());
        }
        !self.versions().is_empty()
    }
}
