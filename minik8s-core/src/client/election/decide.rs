//! Who may lead, decided from a Lease and from how long ago it was last seen to change. No clock but the caller's.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The Lease as a candidate knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    seen: Option<(Arc<Lease>, Instant)>,
    /// It was there and vanished; who held it may not know yet.
    gone: bool,
}

/// What a candidate does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Claim the Lease. Whether it still is as it was seen, the write's precondition says.
    Claim,
    /// Somebody leads, at least until then.
    Wait(Instant),
}

impl View {
    /// Takes note of the Lease as it is now. Time counts from when a version was first seen, never from what is written
    /// in it: the clocks of others may be wrong.
    pub(super) fn observe(&mut self, lease: Option<Arc<Lease>>, now: Instant) {
        let version = |lease: &Lease| (lease.metadata.uid.clone(), lease.metadata.resource_version.clone());
        match (&mut self.seen, lease) {
            (Some((known, _)), Some(lease)) if version(known) == version(&lease) => {}
            (_, Some(lease)) => *self = Self { seen: Some((lease, now)), gone: false },
            (Some((_, since)), None) if !self.gone => (*since, self.gone) = (now, true),
            (_, None) => {}
        }
    }

    /// The Lease that a claim is based on.
    pub(super) fn lease(&self) -> Option<&Lease> {
        self.seen.as_ref().filter(|_| !self.gone).map(|(lease, _)| &**lease)
    }

    /// What `me` may do.
    pub(super) fn decide(&self, me: &str, default: Duration, now: Instant) -> Step {
        let Some((lease, since)) = &self.seen else { return Step::Claim };
        let holder = holder(lease);
        // An answer that got lost may have made this candidate the holder without its knowing.
        if holder.is_empty() || holder == me {
            return Step::Claim;
        }
        let until = *since + duration(lease).unwrap_or(default);
        if now >= until { Step::Claim } else { Step::Wait(until) }
    }
}

/// Who holds a Lease; empty where nobody does.
pub(super) fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

fn duration(lease: &Lease) -> Option<Duration> {
    let seconds = lease.spec.as_ref()?.lease_duration_seconds?;
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

/// The Lease after `me` claimed or renewed it. An empty `me` gives it up.
pub(super) fn held_by(me: &str, duration: Duration, old: Option<&Lease>, now: MicroTime) -> Lease {
    let mut lease = old.cloned().unwrap_or_default();
    let before = lease.spec.take();
    let same = old.is_some_and(|old| holder(old) == me);
    let (acquired, transitions) = match before {
        Some(spec) if same => (spec.acquire_time, spec.lease_transitions),
        // Giving up is no transition: the next one to lead counts it.
        Some(spec) => (Some(now.clone()), Some(spec.lease_transitions.unwrap_or(0) + i32::from(!me.is_empty()))),
        None => (Some(now.clone()), Some(0)),
    };
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: Some(i32::try_from(duration.as_secs()).unwrap_or(i32::MAX).max(1)),
        acquire_time: acquired,
        renew_time: Some(now),
        lease_transitions: transitions,
        ..LeaseSpec::default()
    });
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Duration = Duration::from_secs(6);

    fn time(second: i64) -> MicroTime {
        MicroTime(jiff::Timestamp::from_second(second).unwrap())
    }

    fn lease(holder: &str, version: &str) -> Option<Arc<Lease>> {
        let mut lease = held_by(holder, DEFAULT, None, time(1));
        lease.metadata.resource_version = Some(version.to_owned());
        Some(Arc::new(lease))
    }

    #[test]
    fn a_lease_is_claimed_when_it_is_free_or_did_not_change_for_its_duration() {
        let start = Instant::now();
        let mut view = View::default();
        assert_eq!(view.decide("me", DEFAULT, start), Step::Claim);
        view.observe(lease("other", "1"), start);
        assert_eq!(view.decide("me", DEFAULT, start), Step::Wait(start + DEFAULT));
        assert_eq!(view.decide("me", DEFAULT, start + DEFAULT), Step::Claim);
        // The same version seen again tells nothing new; a renewal does.
        view.observe(lease("other", "1"), start + DEFAULT / 2);
        assert_eq!(view.decide("me", DEFAULT, start), Step::Wait(start + DEFAULT));
        view.observe(lease("other", "2"), start + DEFAULT / 2);
        assert_eq!(view.decide("me", DEFAULT, start + DEFAULT), Step::Wait(start + DEFAULT / 2 + DEFAULT));
        for (holder, version) in [("", "3"), ("me", "4")] {
            view.observe(lease(holder, version), start);
            assert_eq!(view.decide("me", DEFAULT, start), Step::Claim, "held by {holder:?}");
        }
    }

    #[test]
    fn a_lease_that_vanished_protects_its_holder_as_if_it_were_there() {
        let start = Instant::now();
        let mut view = View::default();
        view.observe(None, start);
        assert_eq!(view.decide("me", DEFAULT, start), Step::Claim);
        view.observe(lease("other", "1"), start);
        for later in [1, 2] {
            view.observe(None, start + Duration::from_secs(later));
            assert!(view.lease().is_none());
            let until = start + Duration::from_secs(1) + DEFAULT;
            assert_eq!(view.decide("me", DEFAULT, start), Step::Wait(until));
            assert_eq!(view.decide("me", DEFAULT, until), Step::Claim);
        }
    }

    #[test]
    fn the_duration_of_the_holder_counts_not_ones_own() {
        let start = Instant::now();
        let mut view = View::default();
        view.observe(Some(Arc::new(held_by("other", Duration::from_secs(15), None, time(1)))), start);
        assert_eq!(view.decide("me", DEFAULT, start), Step::Wait(start + Duration::from_secs(15)));
    }

    #[test]
    fn fields_tell_who_leads_since_when_and_how_often_that_changed() {
        let fields = |lease: &Lease| {
            let spec = lease.spec.clone().unwrap();
            let second = |time: Option<MicroTime>| time.unwrap().0.as_second();
            let times = (second(spec.acquire_time), second(spec.renew_time));
            (
                spec.holder_identity.unwrap(),
                times,
                spec.lease_transitions.unwrap(),
                spec.lease_duration_seconds.unwrap(),
            )
        };
        let first = held_by("a", DEFAULT, None, time(10));
        assert_eq!(fields(&first), ("a".to_owned(), (10, 10), 0, 6));
        let renewed = held_by("a", DEFAULT, Some(&first), time(20));
        assert_eq!(fields(&renewed), ("a".to_owned(), (10, 20), 0, 6));
        let released = held_by("", Duration::from_secs(1), Some(&renewed), time(25));
        assert_eq!(fields(&released), (String::new(), (25, 25), 0, 1));
        let taken = held_by("b", DEFAULT, Some(&released), time(30));
        assert_eq!(fields(&taken), ("b".to_owned(), (30, 30), 1, 6));
    }
}
