//! Who gets calls, and which revisions have how many instances: pure.
//!
//! Calls move to the newest revision once it has been ready, all at once or by percent; the one before it keeps its
//! instances until nobody asks for it any more, and then goes. A revision that never was ready gets one instance to try.

use super::api::FunctionTraffic;

/// A revision as it is now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: i64,
    /// It has an image.
    pub built: bool,
    /// It cannot be built or started, and trying again would not help.
    pub failed: bool,
    /// An instance of it was ready once.
    pub proven: bool,
    /// It has a set.
    pub has_set: bool,
    /// Instances, ending ones included.
    pub instances: u32,
    /// As many as calls ask for, by the autoscaler.
    pub asked: u32,
    /// Where they ask for none, one is kept and paused.
    pub rests: bool,
    /// Calls wait for it or are at work in it.
    pub busy: bool,
    /// It has not got calls for long enough that no gateway knows better.
    pub left: bool,
}

/// What to make of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Who gets calls.
    pub traffic: Vec<FunctionTraffic>,
    /// How many instances each revision has; one that is not named has no set any more.
    pub instances: Vec<(String, u32)>,
    /// Revisions whose instances are paused.
    pub paused: Vec<String>,
    /// Nobody but who gets calls has instances.
    pub settled: bool,
}

/// `serving` is who gets calls now, as the route says.
pub fn plan(seen: &[Seen], current: &str, canary: Option<i32>, serving: &[FunctionTraffic]) -> Plan {
    let traffic = traffic(seen, current, canary, serving);
    let gets = |name: &str| traffic.iter().any(|t| t.revision == name && t.percent > 0);
    let (mut instances, mut paused) = (Vec::new(), Vec::new());
    for revision in seen {
        let name = &revision.name;
        let rests = revision.rests && revision.asked == 0 && revision.instances > 0 && gets(name);
        let is_trial = name == current && !revision.proven && !revision.failed;
        let count = match () {
            () if !revision.built || revision.failed => None,
            () if is_trial => Some(revision.asked.max(1)),
            () if rests => {
                paused.push(name.clone());
                Some(1)
            }
            () if gets(name) => Some(revision.asked),
            // Whoever waits for it still, at a gateway that has not heard, gets an answer.
            () if revision.has_set && !revision.left => Some(revision.asked.max(u32::from(revision.instances > 0))),
            () if revision.has_set && revision.busy => Some(revision.asked.max(1)),
            () => None,
        };
        instances.extend(count.map(|count| (name.clone(), count)));
    }
    let settled = seen.iter().all(|r| gets(&r.name) || (r.instances == 0 && !r.has_set))
        && gets(current)
        && seen.iter().any(|r| r.name == current && r.proven);
    Plan { traffic, instances, paused, settled }
}

fn traffic(seen: &[Seen], current: &str, canary: Option<i32>, serving: &[FunctionTraffic]) -> Vec<FunctionTraffic> {
    let of = |name: &str, percent| FunctionTraffic { revision: name.to_owned(), percent };
    let find = |name: &str| seen.iter().find(|r| r.name == name);
    let Some(newest) = find(current) else { return serving.to_vec() };
    // Who got calls first of all stands first: a canary under way, which is behind it, is never what to go back to.
    let works = |r: &&Seen| r.built && !r.failed;
    let stands = serving.iter().filter_map(|t| find(&t.revision)).filter(works).collect::<Vec<_>>();
    if newest.proven && stands.first().is_some_and(|first| first.name == current) {
        return vec![of(current, 100)];
    }
    let before = stands.into_iter().find(|r| r.name != current);
    match (newest.proven, before) {
        (true, Some(before)) if canary.is_some_and(|percent| percent < 100) => {
            let percent = canary.unwrap_or(0);
            vec![of(&before.name, 100 - percent), of(current, percent)]
        }
        (true, _) => vec![of(current, 100)],
        (false, Some(before)) => vec![of(&before.name, 100)],
        // The first one gets calls at once: they wait for it. One that cannot work gets none.
        (false, None) if newest.failed => Vec::new(),
        (false, None) => vec![of(current, 100)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: &str, number: i64, proven: bool, asked: u32) -> Seen {
        let (built, has_set, instances) = (true, true, asked);
        Seen { name: name.into(), number, built, proven, has_set, instances, asked, ..Seen::default() }
    }

    fn shares(plan: &Plan) -> Vec<(&str, i32)> {
        plan.traffic.iter().map(|t| (t.revision.as_str(), t.percent)).collect()
    }

    fn counts(plan: &Plan) -> Vec<(&str, u32)> {
        plan.instances.iter().map(|(name, count)| (name.as_str(), *count)).collect()
    }

    fn all(name: &str) -> Vec<FunctionTraffic> {
        vec![FunctionTraffic { revision: name.into(), percent: 100 }]
    }

    #[test]
    fn the_first_revision_is_tried_and_calls_wait_for_it() {
        let plan = plan(&[Seen { has_set: false, ..seen("a", 1, false, 0) }], "a", None, &[]);
        assert_eq!((shares(&plan), counts(&plan), plan.settled), (vec![("a", 100)], vec![("a", 1)], false));
        let unbuilt = Seen { built: false, ..seen("a", 1, false, 0) };
        let plan = super::plan(&[unbuilt], "a", None, &[]);
        assert_eq!((shares(&plan), counts(&plan)), (vec![("a", 100)], vec![]));
        let proven = super::plan(&[seen("a", 1, true, 0)], "a", None, &all("a"));
        assert_eq!((counts(&proven), proven.settled), (vec![("a", 0)], true));
    }

    #[test]
    fn calls_move_when_the_new_one_is_ready_and_the_old_one_goes_when_nobody_asks() {
        let old = seen("a", 1, true, 2);
        let tried = plan(&[old.clone(), seen("b", 2, false, 0)], "b", None, &all("a"));
        assert_eq!((shares(&tried), counts(&tried)), (vec![("a", 100)], vec![("a", 2), ("b", 1)]));
        let new = seen("b", 2, true, 1);
        let moved = plan(&[old.clone(), new.clone()], "b", None, &all("a"));
        assert_eq!((shares(&moved), counts(&moved)), (vec![("b", 100)], vec![("a", 2), ("b", 1)]));
        let busy = Seen { left: true, busy: true, asked: 0, ..old.clone() };
        let busy = plan(&[busy, new.clone()], "b", None, &all("b"));
        assert_eq!((counts(&busy), busy.settled), (vec![("a", 1), ("b", 1)], false));
        let quiet = Seen { left: true, asked: 0, ..old };
        let quiet = plan(&[quiet, new.clone()], "b", None, &all("b"));
        assert_eq!((counts(&quiet), quiet.settled), (vec![("b", 1)], false));
        let gone = Seen { has_set: false, left: true, ..seen("a", 1, true, 0) };
        assert!(plan(&[gone, new], "b", None, &all("b")).settled);
    }

    #[test]
    fn a_canary_gets_its_share_until_it_gets_all() {
        let both = [seen("a", 1, true, 1), seen("b", 2, true, 1)];
        let part = plan(&both, "b", Some(20), &all("a"));
        assert_eq!((shares(&part), part.settled), (vec![("a", 80), ("b", 20)], true));
        assert_eq!(shares(&plan(&both, "b", Some(50), &part.traffic)), [("a", 50), ("b", 50)]);
        assert_eq!(shares(&plan(&both, "b", Some(100), &part.traffic)), [("b", 100)]);
        assert_eq!(shares(&plan(&both, "b", None, &part.traffic)), [("b", 100)]);
        // Back to the old one.
        assert_eq!(shares(&plan(&both, "a", None, &part.traffic)), [("a", 100)]);
    }

    #[test]
    fn what_is_changed_during_a_canary_never_sends_calls_to_it() {
        let canary = [("a", 80), ("b", 20)].map(|(name, percent)| FunctionTraffic { revision: name.into(), percent });
        let three = |proven| [seen("a", 1, true, 1), seen("b", 2, true, 1), seen("c", 3, proven, 1)];
        // A fix that is not ready yet, with and without a share of its own.
        assert_eq!(shares(&plan(&three(false), "c", None, &canary)), [("a", 100)]);
        assert_eq!(shares(&plan(&three(false), "c", Some(20), &canary)), [("a", 100)]);
        assert_eq!(shares(&plan(&three(true), "c", Some(30), &canary)), [("a", 70), ("c", 30)]);
        assert_eq!(shares(&plan(&three(true), "c", None, &canary)), [("c", 100)]);
        // Back to what was before, while the share still stands in the function.
        let back = [seen("b", 2, true, 1), seen("a", 3, true, 1)];
        assert_eq!(shares(&plan(&back, "a", Some(20), &canary)), [("a", 100)]);
        assert_eq!(shares(&plan(&back, "a", Some(20), &all("a"))), [("a", 100)]);
    }

    #[test]
    fn the_last_instance_rests_while_nobody_asks() {
        let resting = Seen { instances: 3, rests: true, ..seen("a", 1, true, 0) };
        let rest = plan(std::slice::from_ref(&resting), "a", None, &all("a"));
        assert_eq!((counts(&rest), &rest.paused[..]), (vec![("a", 1)], &["a".to_owned()][..]));
        for awake in [
            Seen { asked: 2, ..resting.clone() },
            Seen { instances: 0, ..resting.clone() },
            Seen { rests: false, ..resting.clone() },
            Seen { proven: false, ..resting.clone() },
        ] {
            assert!(plan(std::slice::from_ref(&awake), "a", None, &all("a")).paused.is_empty(), "{awake:?}");
        }
        // One that gets no calls any more has nothing to rest for.
        let new = seen("b", 2, true, 1);
        assert!(plan(&[resting, new], "b", None, &all("a")).paused.is_empty());
    }

    #[test]
    fn one_that_cannot_start_gets_nothing_and_takes_nothing_away() {
        let broken = Seen { failed: true, ..seen("b", 2, false, 0) };
        let plan = plan(&[seen("a", 1, true, 1), broken.clone()], "b", None, &all("a"));
        assert_eq!((shares(&plan), counts(&plan), plan.settled), (vec![("a", 100)], vec![("a", 1)], false));
        let alone = super::plan(&[broken], "b", None, &[]);
        assert_eq!((shares(&alone), counts(&alone)), (vec![], vec![]));
    }
}
