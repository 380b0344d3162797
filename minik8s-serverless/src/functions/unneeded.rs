//! Which images of functions a node has that nobody names any more, and when each of them goes. Pure.
//!
//! Only images that were built of functions' files are meant: the registry gives them again, should that be too early.

use super::objects::is_built;
use minik8s_core::client::Backoff;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks at what is here where nothing was said: an image may have come with a pod after all was told.
const PERIOD: Duration = Duration::from_secs(600);
/// After an image that could not go.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(600));

/// What to do next.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Look at what images are here, and [tell](Unneeded::look).
    Look,
    /// Take this one off the node, and [tell](Unneeded::took).
    Take(String),
    /// Nothing before then.
    Wait(Instant),
}

/// Images that nobody names, and when they go.
pub(super) struct Unneeded {
    grace: Duration,
    /// When each goes, and how often it could not.
    going: BTreeMap<String, (Instant, u32)>,
    /// What was named the last time.
    named: BTreeSet<String>,
    look: Instant,
}

impl Unneeded {
    /// Images go when nobody has named them for `grace`.
    pub(super) fn new(grace: Duration, now: Instant) -> Self {
        Self { grace, going: BTreeMap::new(), named: BTreeSet::new(), look: now }
    }

    /// What to do, where these are the images that are named now.
    pub(super) fn next(&mut self, named: &BTreeSet<String>, now: Instant) -> Next {
        self.going.retain(|image, _| !named.contains(image));
        if self.named != *named {
            if self.named.iter().any(|image| !named.contains(image)) {
                self.look = now;
            }
            self.named = named.clone();
        }
        if self.look <= now {
            return Next::Look;
        }
        match self.going.iter().min_by_key(|(_, (at, _))| *at) {
            Some((image, (at, _))) if *at <= now => Next::Take(image.clone()),
            Some((_, (at, _))) => Next::Wait(self.look.min(*at)),
            None => Next::Wait(self.look),
        }
    }

    /// These images are here; `None` where that could not be told.
    pub(super) fn look(&mut self, here: Option<impl IntoIterator<Item = String>>, now: Instant) {
        let Some(here) = here else {
            self.look = now + AGAIN.base;
            return;
        };
        self.look = now + PERIOD;
        let unneeded = here.into_iter().filter(|image| is_built(image) && !self.named.contains(image));
        let when = |image: &String| self.going.get(image).copied().unwrap_or((now + self.grace, 0));
        self.going = unneeded.map(|image| (when(&image), image)).map(|(when, image)| (image, when)).collect();
    }

    /// An image was taken off the node, or not; `dice` of 0 to 1 spreads when that is tried again.
    pub(super) fn took(&mut self, image: &str, gone: bool, now: Instant, dice: f64) {
        match self.going.get_mut(image) {
            Some((at, failures)) if !gone => {
                *failures += 1;
                *at = now + AGAIN.jittered(*failures, dice);
            }
            _ => drop(self.going.remove(image)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);
    const SECOND: Duration = Duration::from_secs(1);

    fn image(digest: u32) -> String {
        format!("minik8s.internal/functions/default/f@sha256:{digest}")
    }

    fn set(all: &[u32]) -> BTreeSet<String> {
        all.iter().map(|digest| image(*digest)).collect()
    }

    /// One that has looked at these, where others are named.
    fn looked(here: &[u32], named: &[u32], now: Instant) -> Unneeded {
        let mut unneeded = Unneeded::new(GRACE, now);
        assert_eq!(unneeded.next(&set(named), now), Next::Look, "at the start");
        unneeded.look(Some(set(here)), now);
        unneeded
    }

    #[test]
    fn only_what_was_built_here_and_nobody_names_goes() {
        let now = Instant::now();
        let table = [
            ("minik8s.internal/functions/default/f@sha256:1", true),
            ("minik8s.internal/functions/default/f@sha256:2", false),
            ("minik8s.internal/functions/default/f:latest", false),
            ("minik8s.internal/python:3@sha256:1", false),
            ("minik8s.internal.example.com/functions/default/f@sha256:1", false),
            ("docker.io/minik8s.internal/functions/default/f@sha256:1", false),
            ("docker.io/library/busybox@sha256:1", false),
            ("docker.io/library/busybox:1", false),
        ];
        for (name, goes) in table {
            let mut unneeded = Unneeded::new(GRACE, now);
            let named = set(&[2]);
            assert_eq!(unneeded.next(&named, now), Next::Look);
            unneeded.look(Some([name.to_owned()]), now);
            let want = if goes { Next::Take(name.to_owned()) } else { Next::Wait(now + PERIOD) };
            assert_eq!(unneeded.next(&named, now + GRACE), want, "{name}");
        }
    }

    #[test]
    fn what_is_unneeded_waits_for_its_grace_and_what_is_named_again_stays() {
        let now = Instant::now();
        let mut unneeded = looked(&[1, 2, 3], &[1], now);
        assert_eq!(unneeded.next(&set(&[1]), now), Next::Wait(now + GRACE));
        assert_eq!(unneeded.next(&set(&[1, 2]), now + GRACE - SECOND), Next::Wait(now + GRACE));
        assert_eq!(unneeded.next(&set(&[1, 2]), now + GRACE), Next::Take(image(3)));
        unneeded.took(&image(3), true, now + GRACE, 0.0);
        assert_eq!(unneeded.next(&set(&[1, 2]), now + GRACE), Next::Wait(now + PERIOD));
    }

    #[test]
    fn a_name_less_is_a_look_and_what_was_seen_before_keeps_its_time() {
        let now = Instant::now();
        let mut unneeded = looked(&[1, 2], &[1], now);
        let later = now + 10 * SECOND;
        assert_eq!(unneeded.next(&set(&[]), later), Next::Look);
        unneeded.look(Some(set(&[1, 2])), later);
        assert_eq!(unneeded.next(&set(&[]), now + GRACE), Next::Take(image(2)));
        unneeded.took(&image(2), true, now + GRACE, 0.0);
        assert_eq!(unneeded.next(&set(&[]), now + GRACE), Next::Wait(later + GRACE));
        assert_eq!(unneeded.next(&set(&[]), later + GRACE), Next::Take(image(1)));
        // One more is no reason to look; that it came and went is.
        assert_eq!(unneeded.next(&set(&[5]), later), Next::Wait(later + GRACE));
        assert_eq!(unneeded.next(&set(&[]), later), Next::Look);
    }

    #[test]
    fn what_is_in_use_is_tried_later_and_later_and_what_comes_untold_is_found() {
        let now = Instant::now();
        let mut unneeded = looked(&[1], &[], now);
        let mut at = now + GRACE;
        let mut pauses = Vec::new();
        while at < now + PERIOD {
            assert_eq!(unneeded.next(&set(&[]), at), Next::Take(image(1)));
            unneeded.took(&image(1), false, at, 1.0);
            let Next::Wait(next) = unneeded.next(&set(&[]), at) else { panic!("it has just been tried") };
            pauses.push((next - at).as_secs());
            at = next;
        }
        assert_eq!(pauses[..4], [5, 10, 20, 40]);
        assert_eq!(unneeded.next(&set(&[]), now + PERIOD), Next::Look);
        unneeded.look(Some(set(&[1, 4])), now + PERIOD);
        assert!(unneeded.going.contains_key(&image(4)));
        // Nobody told what is here: soon again.
        assert_eq!(unneeded.next(&set(&[]), now + 2 * PERIOD), Next::Look);
        unneeded.look(None::<Vec<String>>, now + 2 * PERIOD);
        assert!(unneeded.look <= now + 2 * PERIOD + AGAIN.base && unneeded.going.len() == 2);
    }
}
