//! What all conformance suites have in common: named cases, what they need, and a run that goes on after a failure and
//! names every case that failed. `MINIK8S_CASE=part-of-name` picks cases.

#![allow(clippy::panic, reason = "a test suite fails by panicking")]

use futures::FutureExt;
use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// One promise: its name, what the subject must be able to for it to make sense, and how it is checked. `R` is the
/// function that checks, `N` what a case may need.
#[derive(Clone, Copy, Debug)]
pub struct Case<R, N: 'static> {
    /// A sentence: what must hold.
    pub name: &'static str,
    /// What the subject must be able to.
    pub needs: &'static [N],
    pub(crate) run: R,
}

/// A list of cases: each a function of the module before it, which takes one argument and is asynchronous.
macro_rules! cases {
    ($($area:ident::$name:ident $(needs $($need:ident),+)?;)*) => {
        &[$($crate::testkit::suite::Case {
            name: stringify!($name),
            needs: &[$($(Needs::$need),+)?],
            run: |subject| Box::pin($area::$name(subject)),
        }),*]
    };
}
pub(crate) use cases;

/// How the cases of a suite have gone so far.
#[derive(Debug)]
#[must_use = "failures are told by `finish`"]
pub struct Tally {
    suite: &'static str,
    only: String,
    ran: usize,
    failed: Vec<String>,
}

impl Tally {
    /// Nothing has run yet.
    pub fn new(suite: &'static str) -> Self {
        let only = std::env::var("MINIK8S_CASE").unwrap_or_default();
        Self { suite, only, ran: 0, failed: Vec::new() }
    }

    /// True for the cases that were asked for.
    pub fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }

    /// Runs a case that blocks, if it was asked for.
    pub fn check(&mut self, name: &str, case: impl FnOnce()) {
        if self.wants(name) {
            let end = catch_unwind(AssertUnwindSafe(case)).map_err(|panic| message(&*panic));
            self.note(name, end);
        }
    }

    /// Runs a case, if it was asked for, and gives it up after `bound`.
    pub async fn check_within(&mut self, name: &str, bound: Duration, case: impl Future<Output = ()>) {
        if self.wants(name) {
            let end = match tokio::time::timeout(bound, AssertUnwindSafe(case).catch_unwind()).await {
                Ok(end) => end.map_err(|panic| message(&*panic)),
                Err(_) => Err(format!("took longer than {bound:?}")),
            };
            self.note(name, end);
        }
    }

    fn note(&mut self, name: &str, end: Result<(), String>) {
        self.ran += 1;
        self.failed.extend(end.err().map(|why| format!("{name}: {why}")));
    }

    /// # Panics
    /// Where cases failed, with the name of each.
    pub fn finish(self) {
        let Self { suite, ran, failed, .. } = self;
        assert!(failed.is_empty(), "{} of {ran} {suite} cases failed:\n{}", failed.len(), failed.join("\n"));
    }
}

/// Runs the cases of a suite one after the other, each no longer than `bound`.
///
/// # Panics
/// Where cases failed, with the name of each.
pub async fn run<R: Copy, N, F: Future<Output = ()>>(
    suite: &'static str,
    cases: &'static [Case<R, N>],
    bound: Duration,
    attempt: impl Fn(&'static Case<R, N>) -> F,
) {
    let mut tally = Tally::new(suite);
    for case in cases {
        tally.check_within(case.name, bound, attempt(case)).await;
    }
    tally.finish();
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("panicked").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failure_stops_nothing_and_every_one_is_named() {
        let mut tally = Tally { only: String::new(), ..Tally::new("odd") };
        let bound = Duration::from_secs(1);
        tally.check("a_fine_one", || {});
        tally.check("one_that_panics", || panic!("as the test wants it"));
        tally.check_within("one_that_hangs", bound, std::future::pending()).await;
        tally.check_within("another_fine_one", bound, async {}).await;
        let failed = catch_unwind(AssertUnwindSafe(|| tally.finish())).unwrap_err();
        assert_eq!(
            message(&*failed),
            "2 of 4 odd cases failed:\none_that_panics: as the test wants it\none_that_hangs: took longer than 1s"
        );
    }

    #[test]
    fn only_what_was_asked_for_runs() {
        let mut tally = Tally { only: "fine".to_owned(), ..Tally::new("odd") };
        tally.check("a_fine_one", || {});
        tally.check("one_that_panics", || panic!("must not run"));
        assert_eq!(tally.ran, 1);
        tally.finish();
    }
}
