//! Conditions that keep the time of their last change.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// A condition to be: its type, whether it holds, why, and a sentence.
pub struct Wanted {
    /// Its type.
    pub kind: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in one word.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
}

impl Wanted {
    /// One that holds.
    pub fn yes(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: true, reason, message: message.into() }
    }

    /// One that does not.
    pub fn no(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: false, reason, message: message.into() }
    }
}

/// The conditions, of which those that say the same as before keep their time.
pub fn settle(before: &[Condition], wanted: Vec<Wanted>, generation: i64, now: Timestamp) -> Vec<Condition> {
    let made = wanted.into_iter().map(|wanted| {
        let status = if wanted.holds { "True" } else { "False" };
        let same = before.iter().find(|c| c.type_ == wanted.kind && c.status == status);
        let time = same.map_or_else(|| Time(whole_seconds(now)), |c| c.last_transition_time.clone());
        Condition {
            type_: wanted.kind.to_owned(),
            status: status.to_owned(),
            reason: wanted.reason.to_owned(),
            message: wanted.message,
            observed_generation: Some(generation),
            last_transition_time: time,
        }
    });
    made.collect()
}

/// As the API keeps times.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
