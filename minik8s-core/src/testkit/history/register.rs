//! One object as a register: which answers a call may get in a state, and which state follows. Pure.

use super::{Call, Content, Op, Outcome, Seen, When};
use crate::api::Revision;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is known of the object at one point of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// The greatest revision known so far: what comes is greater.
    floor: Revision,
    object: Option<Present>,
}

/// The object while it exists. A write without an answer leaves open which revision it got; the next answer tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Present {
    revision: Option<Revision>,
    uid: Option<Arc<str>>,
    content: Option<Arc<Content>>,
}

impl State {
    /// No answer after this shows a lower revision.
    pub(super) fn floor(&self) -> Revision {
        self.floor
    }

    /// The state after a call that ended so, or `None` where it cannot have ended so here.
    pub(super) fn after(&self, call: &Call) -> Option<Self> {
        match (&call.op, &self.object) {
            (Op::Create(content), None) => self.written(None, content.as_ref(), &call.outcome),
            (Op::Create(_), Some(_)) => (call.outcome == Outcome::Exists).then(|| self.clone()),
            // Whose deletion it was cannot be told where the store lost the answer: all who asked for it may be told.
            (Op::Delete(_), None) if call.outcome == Outcome::Gone(self.floor) => Some(self.clone()),
            (_, None) => (call.outcome == Outcome::Missing).then(|| self.clone()),
            (Op::Get, Some(present)) => match &call.outcome {
                Outcome::Is(seen) => self.pinned(present, seen),
                _ => None,
            },
            (Op::Update(content, when), Some(present)) => {
                self.changed(present, when, &call.outcome, |_| content.clone())
            }
            (Op::Patch(merge, when), Some(present)) => {
                self.changed(present, when, &call.outcome, |base| Some(merged(base?, merge.as_ref()?)))
            }
            (Op::Delete(when), Some(present)) => self.deleted(present, when, &call.outcome),
        }
    }

    /// The same object, of which the answer shows more.
    fn pinned(&self, present: &Present, seen: &Seen) -> Option<Self> {
        let fits = match present.revision {
            Some(revision) => revision == seen.revision,
            None => seen.revision > self.floor,
        };
        let object = Present {
            revision: Some(seen.revision),
            uid: agree(present.uid.as_ref(), seen.uid.as_deref().map(Arc::from))?,
            content: agree(present.content.as_ref(), seen.content.clone().map(Arc::new))?,
        };
        fits.then(|| Self { floor: self.floor.max(seen.revision), object: Some(object) })
    }

    /// Whether the object can be as the call wants it, and what is known of it then.
    fn meets(&self, present: &Present, when: &When) -> Option<Present> {
        let revision = match (present.revision, when.revision) {
            (Some(is), Some(wanted)) if is != wanted => return None,
            (None, Some(wanted)) if wanted <= self.floor => return None,
            (is, wanted) => is.or(wanted),
        };
        let uid = agree(present.uid.as_ref(), when.uid.as_deref().map(Arc::from))?;
        Some(Present { revision, uid, content: present.content.clone() })
    }

    fn changed(
        &self,
        present: &Present,
        when: &When,
        outcome: &Outcome,
        change: impl Fn(Option<&Content>) -> Option<Content>,
    ) -> Option<Self> {
        if *outcome == Outcome::Conflict {
            return self.conflicted(present, when);
        }
        let base = self.meets(present, when)?;
        let content = change(base.content.as_deref());
        // Nothing was different: then nothing was written.
        if let (Outcome::Is(seen), true) = (outcome, content.is_none() || content.as_ref() == base.content.as_deref())
            && base.revision.is_none_or(|revision| revision == seen.revision)
        {
            return self.pinned(&base, seen);
        }
        let floor = self.floor.max(base.revision.unwrap_or_default());
        Self { floor, object: None }.written(base.uid, content.as_ref(), outcome)
    }

    /// A refusal is right unless all that was asked for is known to hold. Without a wish it says that others were faster.
    fn conflicted(&self, present: &Present, when: &When) -> Option<Self> {
        let held = when.revision.is_some_and(|wanted| present.revision == Some(wanted))
            && (when.uid.is_none() || when.uid.as_deref() == present.uid.as_deref());
        let only_uid = when.revision.is_none() && when.uid.is_some() && when.uid.as_deref() == present.uid.as_deref();
        (!held && !only_uid).then(|| self.clone())
    }

    fn written(&self, uid: Option<Arc<str>>, content: Option<&Content>, outcome: &Outcome) -> Option<Self> {
        let content = content.cloned().map(Arc::new);
        let (revision, uid, content) = match outcome {
            Outcome::Is(seen) if seen.revision > self.floor => {
                let uid = agree(uid.as_ref(), seen.uid.as_deref().map(Arc::from))?;
                (Some(seen.revision), uid, agree(content.as_ref(), seen.content.clone().map(Arc::new))?)
            }
            Outcome::Unknown => (None, uid, content),
            _ => return None,
        };
        let floor = self.floor.max(revision.unwrap_or_default());
        Some(Self { floor, object: Some(Present { revision, uid, content }) })
    }

    fn deleted(&self, present: &Present, when: &When, outcome: &Outcome) -> Option<Self> {
        let floor = self.floor.max(self.meets(present, when).and_then(|base| base.revision).unwrap_or_default());
        match outcome {
            Outcome::Conflict => self.conflicted(present, when),
            _ if self.meets(present, when).is_none() => None,
            Outcome::Gone(revision) if *revision > floor => Some(Self { floor: *revision, object: None }),
            Outcome::Unknown => Some(Self { floor, object: None }),
            _ => None,
        }
    }
}

/// What both say, where neither contradicts the other.
fn agree<T: PartialEq + ?Sized>(known: Option<&Arc<T>>, said: Option<Arc<T>>) -> Option<Option<Arc<T>>> {
    match (known, said) {
        (Some(known), Some(said)) if *known != said => None,
        (known, said) => Some(known.cloned().or(said)),
    }
}

fn merged(base: &Content, merge: &BTreeMap<String, Option<String>>) -> Content {
    let mut content = base.clone();
    for (key, value) in merge {
        match value {
            Some(value) => drop(content.insert(key.clone(), value.clone())),
            None => drop(content.remove(key)),
        }
    }
    content
}
