//! How many instances: pure, after Knative's autoscaler. Two windows of what was asked, a long one that says how many
//! are needed and a short one that notices a rush; while there is one, the number only grows. The first instance does
//! not wait for any window.

use minik8s_core::api::BackendDemand;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Over which the usual number is worked out.
const STABLE: Duration = Duration::from_secs(60);
/// Over which a rush is noticed.
const PANIC: Duration = Duration::from_secs(6);
/// A rush asks for so many times what there is.
const RUSH: f64 = 2.0;

/// What the number keeps to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// At least.
    pub min: u32,
    /// At most.
    pub max: u32,
    /// How long nobody has called before there are none.
    pub idle: Duration,
    /// How long the last one then stays paused.
    pub paused: Duration,
    /// Calls at once for one instance.
    pub target: f64,
    /// Calls per second for one instance, where that counts.
    pub rate: Option<f64>,
}

/// What is asked at a moment, by all gateways together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Calls that wait.
    pub waiting: f64,
    /// Calls at work.
    pub active: f64,
    /// Calls at once, on the average since the last report.
    pub concurrency: f64,
    /// Calls per second since the last report.
    pub rate: f64,
}

impl Load {
    /// With what another gateway tells.
    pub fn add(&mut self, told: &BackendDemand) {
        self.waiting += told.waiting as f64;
        self.active += told.active as f64;
        self.concurrency += told.concurrency;
        self.rate += told.rate;
    }

    fn is_some(&self) -> bool {
        self.waiting > 0.0 || self.active > 0.0 || self.concurrency > 0.0 || self.rate > 0.0
    }

    /// Instances that this alone would need.
    fn instances(concurrency: f64, rate: f64, bounds: &Bounds) -> f64 {
        let by_rate = bounds.rate.map_or(0.0, |one| rate / one);
        (concurrency / bounds.target).max(by_rate).ceil()
    }
}

/// What was asked lately.
#[derive(Clone, Debug)]
pub struct History {
    /// Loads, and since when each held.
    samples: VecDeque<(Instant, Load)>,
    began: Instant,
    /// When there was load last.
    busy: Instant,
    /// For how long there was none before that.
    before: Duration,
    /// Since when there is a rush, and how many it asked for.
    rush: Option<(Instant, u32)>,
}

impl History {
    /// Nothing was asked before.
    pub fn new(now: Instant) -> Self {
        Self { samples: VecDeque::new(), began: now, busy: now, before: Duration::ZERO, rush: None }
    }

    /// Nothing was asked for so long already.
    pub fn idle(now: Instant, before: Duration) -> Self {
        Self { before, ..Self::new(now) }
    }

    /// For how long nothing was asked.
    fn quiet(&self, now: Instant) -> Duration {
        now.duration_since(self.busy).saturating_add(self.before)
    }

    /// What is asked now.
    pub fn note(&mut self, now: Instant, load: Load) {
        if load.is_some() {
            (self.busy, self.before) = (now, Duration::ZERO);
        }
        if self.samples.back().is_none_or(|(_, last)| *last != load) {
            if self.samples.is_empty() {
                self.began = now;
            }
            self.samples.push_back((now, load));
        }
        // The one that held when the window began stays.
        while self.samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= STABLE) {
            self.samples.pop_front();
        }
    }

    /// True where nothing was asked within the windows.
    pub fn is_quiet(&self, now: Instant) -> bool {
        let (concurrency, rate) = self.average(now, STABLE);
        concurrency <= 0.0 && rate <= 0.0 && self.samples.back().is_none_or(|(_, load)| !load.is_some())
    }

    /// Calls at once and calls per second over the last `window`, or since the first was noted.
    fn average(&self, now: Instant, window: Duration) -> (f64, f64) {
        let from = (now - window.min(now.duration_since(self.began))).max(self.began);
        let all = now.duration_since(from).as_secs_f64();
        let Some((_, last)) = self.samples.back() else { return (0.0, 0.0) };
        if all <= 0.001 {
            return (last.concurrency.max(last.waiting + last.active), last.rate);
        }
        let ends = self.samples.iter().skip(1).map(|(at, _)| *at).chain([now]);
        let (mut concurrency, mut rate) = (0.0, 0.0);
        for ((at, load), end) in self.samples.iter().zip(ends) {
            let held = end.saturating_duration_since((*at).max(from)).as_secs_f64();
            concurrency += load.concurrency * held;
            rate += load.rate * held;
        }
        (concurrency / all, rate / all)
    }

    /// How much longer the last instance is kept, paused, where nobody asks for any; `None` where it is not.
    pub fn rest(&self, now: Instant, bounds: &Bounds) -> Option<Duration> {
        let left = (bounds.idle + bounds.paused).checked_sub(self.quiet(now))?;
        let calls = self.samples.back().is_some_and(|(_, load)| load.is_some());
        (bounds.min == 0 && !bounds.paused.is_zero() && !left.is_zero() && !calls).then_some(left)
    }

    /// How many instances there should be, where there are `current` now.
    pub fn decide(&mut self, now: Instant, bounds: &Bounds, current: u32) -> u32 {
        let last = self.samples.back().map(|(_, load)| *load).unwrap_or_default();
        let at_once = Load::instances(last.waiting + last.active, 0.0, bounds);
        let of = |window| {
            let (concurrency, rate) = self.average(now, window);
            Load::instances(concurrency, rate, bounds)
        };
        let (stable, mut panic) = (of(STABLE), of(PANIC));
        if last.waiting > 0.0 {
            // What waits now is no guess: it needs no window.
            panic = panic.max(at_once);
        }
        let stable = stable as u32;
        let rush = panic as u32;
        if f64::from(rush) >= RUSH * f64::from(current.max(1)) || (current == 0 && rush > 0) {
            let most = self.rush.map_or(rush, |(_, before)| before.max(rush));
            self.rush = Some((now, most));
        }
        let rushed = self.rush.filter(|(since, _)| now.duration_since(*since) < STABLE).map(|(_, most)| most);
        if rushed.is_none() {
            self.rush = None;
        }
        let mut wanted = stable.max(rushed.map_or(0, |most| most.max(rush)));
        if wanted == 0 && (last.is_some() || (current > 0 && self.quiet(now) < bounds.idle)) {
            wanted = 1;
        }
        // Nobody has called for as long as it takes: whatever the windows remember.
        if self.quiet(now) >= bounds.idle && !last.is_some() {
            (wanted, self.rush) = (0, None);
        }
        wanted.clamp(bounds.min, bounds.max.max(bounds.min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds =
        Bounds { min: 0, max: 10, idle: Duration::from_secs(30), paused: Duration::ZERO, target: 7.0, rate: None };

    fn load(waiting: f64, active: f64) -> Load {
        Load { waiting, active, concurrency: waiting + active, rate: waiting + active }
    }

    /// Runs a second-by-second course, as `(seconds, load)`, and says how many instances there were after each.
    fn course(bounds: &Bounds, course: &[(u64, Load)]) -> Vec<u32> {
        let start = Instant::now();
        let (mut history, mut current, mut second) = (History::new(start), 0, 0);
        let mut seen = Vec::new();
        for (seconds, load) in course {
            for _ in 0..*seconds {
                let now = start + Duration::from_secs(second);
                history.note(now, *load);
                current = history.decide(now, bounds, current);
                second += 1;
            }
            seen.push(current);
        }
        seen
    }

    #[test]
    fn numbers_follow_what_is_asked() {
        let none = Load::default();
        type Case<'a> = (&'a str, Bounds, &'a [(u64, Load)], &'a [u32]);
        let table: [Case<'_>; 8] = [
            ("one call wakes one", BOUNDS, &[(1, load(1.0, 0.0))], &[1]),
            ("twenty at once wake three", BOUNDS, &[(1, load(20.0, 0.0)), (10, load(0.0, 20.0))], &[3, 3]),
            ("a rush never shrinks", BOUNDS, &[(5, load(0.0, 40.0)), (20, load(0.0, 3.0))], &[6, 6]),
            ("but ends", BOUNDS, &[(5, load(0.0, 40.0)), (125, load(0.0, 3.0))], &[6, 1]),
            ("idle for long enough", BOUNDS, &[(3, load(0.0, 1.0)), (29, none), (2, none)], &[1, 1, 0]),
            ("never fewer than min", Bounds { min: 2, ..BOUNDS }, &[(1, none), (100, none)], &[2, 2]),
            ("never more than max", BOUNDS, &[(1, load(1000.0, 0.0))], &[10]),
            ("never up without a call", BOUNDS, &[(100, none)], &[0]),
        ];
        for (what, bounds, steps, want) in table {
            assert_eq!(course(&bounds, steps), want, "{what}");
        }
    }

    #[test]
    fn calls_that_are_short_count_by_rate() {
        let bounds = Bounds { rate: Some(10.0), ..BOUNDS };
        let short = Load { concurrency: 0.5, rate: 45.0, ..Load::default() };
        assert_eq!(course(&bounds, &[(70, short)]), [5]);
        assert_eq!(course(&BOUNDS, &[(70, short)]), [1]);
    }

    #[test]
    fn the_last_one_rests_until_the_second_window_is_over() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let bounds = Bounds { paused: 100 * second, ..BOUNDS };
        let mut history = History::new(start);
        history.note(start, load(0.0, 1.0));
        assert_eq!(history.rest(start, &bounds), None, "it is called");
        history.note(start + second, Load::default());
        let rest = |seconds: u32, bounds: &Bounds| history.rest(start + seconds * second, bounds);
        assert_eq!(rest(31, &bounds), Some(99 * second));
        assert_eq!((rest(130, &bounds), rest(131, &bounds)), (None, None));
        assert_eq!((rest(31, &BOUNDS), rest(31, &Bounds { min: 1, ..bounds })), (None, None));
        history.note(start + 40 * second, load(1.0, 0.0));
        assert_eq!(history.rest(start + 40 * second, &bounds), None);
    }

    #[test]
    fn what_was_idle_before_the_first_look_stays_as_it_is_until_it_is_called() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let bounds = Bounds { paused: 100 * second, ..BOUNDS };
        let table = [
            ("not known to be idle", History::new(now), load(0.0, 0.0), (1, None)),
            ("idle for some of the time", History::idle(now, bounds.idle - second), load(0.0, 0.0), (1, None)),
            ("idle", History::idle(now, bounds.idle), load(0.0, 0.0), (0, Some(bounds.paused))),
            ("idle, and a call waits", History::idle(now, bounds.idle), load(1.0, 0.0), (1, None)),
        ];
        for (what, mut history, load, want) in table {
            history.note(now, load);
            let wanted = history.decide(now, &bounds, 1);
            let rest = history.rest(now, &bounds).filter(|_| wanted == 0);
            assert_eq!((wanted, rest), want, "{what}");
        }
        let mut called = History::idle(now, bounds.idle);
        called.note(now, load(0.0, 1.0));
        called.note(now + second, Load::default());
        assert_eq!(called.decide(now + 2 * second, &bounds, 1), 1, "the call begins the wait anew");
    }

    #[test]
    fn who_has_been_quiet_needs_no_look() {
        let now = Instant::now();
        let mut history = History::new(now);
        assert!(history.is_quiet(now));
        history.note(now, load(1.0, 0.0));
        assert!(!history.is_quiet(now));
        history.note(now + Duration::from_secs(1), Load::default());
        assert!(!history.is_quiet(now + Duration::from_secs(2)));
        assert!(history.is_quiet(now + Duration::from_secs(62)));
    }
}
