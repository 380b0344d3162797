//! Decides what becomes of an event: a new object, a higher count of an old one, or nothing. Pure.

use super::{EventType, Note};
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;

/// Events of one object in a row before the limit bites.
const BURST: f64 = 25.0;
/// Then one in so many seconds.
const REFILL_SECONDS: f64 = 12.0;
/// How long a repeat is counted as one.
const WINDOW: SignedDuration = SignedDuration::from_mins(50);
/// How many different events are remembered.
const REMEMBERED: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    object: (String, String, String, String),
    kind: EventType,
    reason: String,
    message: String,
}

impl Key {
    fn of(note: &Note) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let about = &note.about;
        Self {
            uid: text(&about.uid),
            object: (text(&about.kind), text(&about.namespace), text(&about.name), text(&about.field_path)),
            kind: note.kind,
            reason: note.reason.clone(),
            message: note.message.clone(),
        }
    }
}

struct Known {
    name: String,
    count: i32,
    last: Timestamp,
}

struct Bucket {
    tokens: f64,
    at: Timestamp,
}

/// What is to be done with an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    First,
    Repeat { name: String, count: i32 },
    Drop,
}

#[derive(Default)]
pub(super) struct Correlator {
    known: HashMap<Key, Known>,
    buckets: HashMap<(String, String), Bucket>,
}

impl Correlator {
    pub(super) fn judge(&mut self, note: &Note) -> Verdict {
        if !self.admit(note) {
            return Verdict::Drop;
        }
        match self.known.get_mut(&Key::of(note)) {
            Some(known) if note.at.duration_since(known.last) < WINDOW => {
                known.count = known.count.saturating_add(1);
                known.last = note.at;
                Verdict::Repeat { name: known.name.clone(), count: known.count }
            }
            _ => Verdict::First,
        }
    }

    /// Remembers the object that was written for the first event.
    pub(super) fn created(&mut self, note: &Note, name: String) {
        if self.known.len() >= REMEMBERED {
            let newest = self.known.values().map(|k| k.last).max().unwrap_or(note.at);
            self.known.retain(|_, k| newest.duration_since(k.last) < SignedDuration::from_mins(10));
            if self.known.len() >= REMEMBERED {
                self.known.clear();
            }
        }
        self.known.insert(Key::of(note), Known { name, count: 1, last: note.at });
    }

    pub(super) fn forget(&mut self, note: &Note) {
        self.known.remove(&Key::of(note));
    }

    fn admit(&mut self, note: &Note) -> bool {
        if self.buckets.len() >= REMEMBERED {
            self.buckets.retain(|_, b| b.tokens < BURST && note.at.duration_since(b.at) < SignedDuration::from_mins(5));
        }
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let key = (text(&note.about.uid), format!("{}/{}", text(&note.about.namespace), text(&note.about.name)));
        let bucket = self.buckets.entry(key).or_insert(Bucket { tokens: BURST, at: note.at });
        let passed = note.at.duration_since(bucket.at).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + passed / REFILL_SECONDS).min(BURST);
        bucket.at = note.at;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ObjectReference;

    fn note(name: &str, message: &str, second: i64) -> Note {
        Note {
            about: ObjectReference { name: Some(name.into()), ..ObjectReference::default() },
            kind: EventType::Normal,
            reason: "Tested".into(),
            message: message.into(),
            at: Timestamp::from_second(second).unwrap(),
        }
    }

    #[test]
    fn repeats_count_until_the_window_closes() {
        let mut known = Correlator::default();
        assert_eq!(known.judge(&note("a", "x", 0)), Verdict::First);
        known.created(&note("a", "x", 0), "e1".into());
        assert_eq!(known.judge(&note("a", "x", 5)), Verdict::Repeat { name: "e1".into(), count: 2 });
        assert_eq!(known.judge(&note("a", "y", 6)), Verdict::First, "another message is another event");
        assert_eq!(known.judge(&note("b", "x", 6)), Verdict::First, "another object is another event");
        assert_eq!(known.judge(&note("a", "x", 7)), Verdict::Repeat { name: "e1".into(), count: 3 });
        assert_eq!(known.judge(&note("a", "x", 7 + 51 * 60)), Verdict::First);
    }

    #[test]
    fn one_noisy_object_is_limited_and_others_are_not() {
        let mut known = Correlator::default();
        let passed = (0..100).filter(|i| known.judge(&note("a", &i.to_string(), 0)) != Verdict::Drop).count();
        assert_eq!(passed, 25);
        assert_eq!(known.judge(&note("b", "x", 0)), Verdict::First);
        assert_eq!(known.judge(&note("a", "later", 11)), Verdict::Drop);
        assert_eq!(known.judge(&note("a", "later", 13)), Verdict::First);
    }
}
