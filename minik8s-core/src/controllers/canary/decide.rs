//! What happens next to a canary. Pure: numbers in, a decision out.

use crate::routing::Tally;
use serde::{Deserialize, Serialize};

/// What somebody wants of a canary, and how far it is: the value of an annotation of the route, so that whoever leads the
/// controllers can go on with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Canary {
    /// The share that the canary is to get in the end, in percent.
    pub to: u32,
    /// How much more it gets at a time.
    pub step: u32,
    /// How long each share is watched, in seconds.
    pub interval_seconds: u64,
    /// More failures than this, in percent of its requests, and it is taken back.
    pub max_error_rate: Option<f64>,
    /// A slower answer than this for one request in a hundred, in milliseconds, and it is taken back.
    pub max_latency_ms: Option<u64>,
    /// So many requests say something about it.
    pub min_requests: u64,
    /// Its share at the moment.
    pub percent: u32,
    /// How it stands.
    pub phase: Phase,
    /// Why, in words.
    pub message: String,
    /// When the present share began, in seconds since 1970; 0 before the first.
    pub since: i64,
    /// What had been counted by then, by node.
    pub baseline: Vec<(String, Tally)>,
    /// What numbers of this canary carry, given at its beginning: those of one before it are none of its own.
    pub id: String,
    /// It is to be taken back, whatever is counted.
    pub stop: bool,
    /// The Deployments that it is about; `None` where backends come and go by other hands. Goes when all is put in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployments: Option<Pair>,
}

/// A Deployment, and the one that was made beside it with another template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pair {
    /// The Deployment that runs.
    pub stable: String,
    /// The Deployment beside it, and its Service.
    pub canary: String,
}

/// How a canary stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It gets more and more.
    #[default]
    Progressing,
    /// It gets everything, and its template goes to the Deployment that runs.
    Promoting,
    /// It has what it was to get.
    Completed,
    /// It was taken back.
    RolledBack,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing, for so many seconds at most.
    Wait(u64),
    /// This is written, with the share of the canary.
    Write(Canary),
}

impl Canary {
    /// It gets nothing any more.
    pub fn taken_back(&self, why: &str) -> Canary {
        let message = format!("taken back at {} %: {why}", self.percent);
        Canary { phase: Phase::RolledBack, percent: 0, message, ..self.clone() }
    }

    /// What was made for it has to go.
    pub(super) fn is_over(&self) -> bool {
        let over = self.phase == Phase::RolledBack || self.phase == Phase::Completed && self.percent >= 100;
        over && self.deployments.is_some()
    }

    /// Something is still to be done about it.
    pub fn goes_on(&self) -> bool {
        matches!(self.phase, Phase::Progressing | Phase::Promoting) || self.is_over()
    }
}

/// What happens next, given what nodes have counted of the canary.
pub fn next(canary: &Canary, counted: &[(String, Tally)], now: i64) -> Step {
    if canary.phase != Phase::Progressing {
        return Step::Wait(u64::MAX);
    }
    if canary.stop {
        return Step::Write(canary.taken_back("as somebody asked for"));
    }
    if canary.since == 0 {
        let percent = canary.percent.saturating_add(canary.step.max(1)).min(canary.to.max(1));
        return Step::Write(Canary { percent, ..begun(canary, counted, now) });
    }
    let seen = since(&canary.baseline, counted);
    // What is bad enough is not watched to the end.
    if let Some(why) = verdict(canary, &seen) {
        return Step::Write(canary.taken_back(&why));
    }
    let end = canary.since.saturating_add(i64::try_from(canary.interval_seconds).unwrap_or(i64::MAX));
    if now < end || seen.requests < canary.min_requests.max(1) {
        return Step::Wait(u64::try_from(end.saturating_sub(now)).unwrap_or(0).clamp(1, 5));
    }
    if canary.percent >= canary.to {
        let message = format!("has its {} % after {} requests at the last step", canary.to, seen.requests);
        let promoted = canary.deployments.is_some() && canary.percent >= 100;
        let phase = if promoted { Phase::Promoting } else { Phase::Completed };
        return Step::Write(Canary { phase, message, ..canary.clone() });
    }
    let percent = canary.percent.saturating_add(canary.step.max(1)).min(canary.to);
    Step::Write(Canary { percent, ..begun(canary, counted, now) })
}

/// A new share begins.
fn begun(canary: &Canary, counted: &[(String, Tally)], now: i64) -> Canary {
    Canary { since: now.max(1), baseline: counted.to_vec(), ..canary.clone() }
}

/// What was counted after the baseline. A gateway that was started again counts from nothing.
fn since(baseline: &[(String, Tally)], counted: &[(String, Tally)]) -> Tally {
    let mut sum = Tally::default();
    for (node, now) in counted {
        let before = baseline.iter().find(|(name, _)| name == node).map(|(_, tally)| tally);
        sum.add(&before.filter(|before| before.requests <= now.requests).map_or_else(|| now.clone(), |b| now.less(b)));
    }
    sum
}

/// Why it has to be taken back.
fn verdict(canary: &Canary, seen: &Tally) -> Option<String> {
    if seen.requests < canary.min_requests.max(1) {
        return None;
    }
    #[allow(clippy::cast_precision_loss, reason = "a share of counted requests")]
    let rate = seen.errors as f64 / seen.requests as f64 * 100.0;
    if let Some(most) = canary.max_error_rate.filter(|most| rate > *most) {
        return Some(format!("{rate:.2} % of {} requests failed, more than {most} %", seen.requests));
    }
    let slow = seen.slower_than_99_percent()?;
    let most = canary.max_latency_ms.filter(|most| slow > *most)?;
    Some(format!("one request in a hundred took more than {slow} ms, more than {most} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(requests: u64, errors: u64, millis: u64) -> Tally {
        let mut tally = Tally { requests, errors, ..Tally::default() };
        tally.times[Tally::place(millis)] = requests;
        tally
    }

    fn canary() -> Canary {
        let limits = (Some(1.0), Some(100));
        let (max_error_rate, max_latency_ms) = limits;
        Canary {
            to: 50,
            step: 20,
            interval_seconds: 10,
            max_error_rate,
            max_latency_ms,
            min_requests: 10,
            ..Canary::default()
        }
    }

    fn counted(tally: Tally) -> Vec<(String, Tally)> {
        vec![("n1".to_owned(), tally)]
    }

    fn written(step: Step) -> Canary {
        match step {
            Step::Write(canary) => canary,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_grows_step_by_step_and_not_beyond_what_was_asked() {
        let mut now = 1000;
        let mut seen = 0;
        let mut canary = written(next(&canary(), &[], now));
        let mut shares = vec![canary.percent];
        while canary.phase == Phase::Progressing {
            let fine = |seen: u64| counted(tally(seen, 0, 5));
            assert!(matches!(next(&canary, &fine(seen), now + 9), Step::Wait(_)), "too early");
            assert!(matches!(next(&canary, &fine(seen), now + 10), Step::Wait(_)), "nobody asked for it");
            (now, seen) = (now + 10, seen + 100);
            canary = written(next(&canary, &fine(seen), now));
            shares.push(canary.percent);
        }
        assert_eq!((shares, canary.phase), (vec![20, 40, 50, 50], Phase::Completed));
    }

    #[test]
    fn failures_and_slowness_take_it_back_at_once() {
        let canary = written(next(&canary(), &counted(tally(1000, 900, 5000)), 1000));
        let at = |more: Tally| {
            let mut all = tally(1000, 900, 5000);
            all.add(&more);
            next(&canary, &counted(all), 1001)
        };
        assert!(matches!(at(tally(100, 1, 5)), Step::Wait(_)), "what was before does not count");
        assert!(matches!(at(tally(9, 9, 5)), Step::Wait(_)), "too few to tell");
        let back = written(at(tally(100, 2, 5)));
        assert_eq!((back.phase, back.percent), (Phase::RolledBack, 0));
        assert!(back.message.contains("2.00 % of 100 requests failed"), "{}", back.message);
        let back = written(at(tally(100, 0, 400)));
        assert!(back.message.contains("one request in a hundred"), "{}", back.message);
        assert_eq!(next(&back, &[], 5000), Step::Wait(u64::MAX));
    }

    #[test]
    fn what_is_stopped_is_taken_back_and_what_goes_on_begins_where_it_was() {
        let stopped = written(next(&Canary { stop: true, percent: 20, since: 5, ..canary() }, &[], 6));
        assert_eq!((stopped.phase, stopped.percent), (Phase::RolledBack, 0));
        let further = written(next(&Canary { percent: 20, to: 100, ..canary() }, &[], 6));
        assert_eq!(further.percent, 40);
        let pair = Some(Pair::default());
        let all = Canary { percent: 100, to: 100, since: 5, deployments: pair, ..canary() };
        assert_eq!(written(next(&all, &counted(tally(50, 0, 5)), 50)).phase, Phase::Promoting);
    }

    #[test]
    fn a_gateway_that_starts_again_counts_from_nothing() {
        let canary = written(next(&canary(), &counted(tally(1000, 0, 5)), 1000));
        let back = written(next(&canary, &counted(tally(100, 50, 5)), 1001));
        assert_eq!(back.phase, Phase::RolledBack);
    }
}
