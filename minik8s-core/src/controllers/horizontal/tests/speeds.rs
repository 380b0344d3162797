//! How fast it may go.

use super::super::behavior::{Direction, Pace, ScaleEvent, lower, upper};
use super::super::spec::{Behavior, Policy, PolicyKind, Select, Spec};
use super::super::stabilize::{Recommendation, remember, stabilize};
use super::{at, moment, seconds};
use PolicyKind::{Percent, Pods};
use serde_json::json;

fn rules(select: Select, policies: &[(PolicyKind, i32, u32)]) -> Direction {
    let policy = |(kind, value, period_seconds): &(PolicyKind, i32, u32)| Policy {
        kind: *kind,
        value: *value,
        period_seconds: *period_seconds,
    };
    Direction { window: seconds(0), select, policies: policies.iter().map(policy).collect() }
}

fn event(seconds: i64, change: i32) -> ScaleEvent {
    ScaleEvent { at: at(seconds), change }
}

/// The numbers a target passes through, one step in a period, where as much is allowed as can be.
fn descend(from: i32, rules: &Direction, steps: usize) -> Vec<i32> {
    let (mut now, mut events, mut passed) = (from, Vec::new(), Vec::new());
    for step in 0..steps {
        let time = i64::try_from(step).unwrap() * 60;
        let next = lower(now, &events, rules, at(time));
        events.push(event(time, next - now));
        passed.push(next);
        now = next;
    }
    passed
}

#[test]
fn the_documented_example_of_two_policies() {
    // "scaleDown: policies: Pods 4 in 60 seconds, Percent 10 in 60 seconds. […] suppose there are 80 replicas and the
    // target has to be scaled down to 10 replicas […] during the first step 8 replicas will be reduced. In the next
    // iteration when the number of replicas is 72, 10% of the pods is 7.2 but the number is rounded up to 8. […] When the
    // number of replicas falls below 40 the first policy (Pods) is applied and 4 replicas will be reduced at a time."
    let both = rules(Select::Max, &[(Pods, 4, 60), (Percent, 10, 60)]);
    let passed = descend(80, &both, 12);
    assert_eq!(passed, [72, 64, 57, 51, 45, 40, 36, 32, 28, 24, 20, 16]);
    // "selectPolicy: Min": "the smallest change".
    let smaller = rules(Select::Min, &[(Percent, 10, 60), (Pods, 5, 60)]);
    assert_eq!(descend(80, &smaller, 3), [75, 70, 65]);
    // "selectPolicy: Disabled": "the scaling in the given direction is turned off".
    assert_eq!(descend(80, &rules(Select::Disabled, &[(Pods, 4, 60)]), 2), [80, 80]);
}

#[test]
fn ten_percent_a_minute() {
    // Five replicas: ten percent are half a one, which is one.
    let slow = rules(Select::Max, &[(Percent, 10, 60)]);
    assert_eq!(descend(5, &slow, 4), [4, 3, 2, 1]);
    // Within the minute nothing more.
    let events = [event(0, -1)];
    let allowed: Vec<i32> = [1, 30, 59, 60, 61].map(|s| lower(4, &events, &slow, at(s))).into();
    assert_eq!(allowed, [4, 4, 4, 3, 3]);
    // The change counts from where the period began: ten of a hundred, in however many steps.
    let events = [event(10, -4), event(30, -3)];
    assert_eq!(lower(93, &events, &slow, at(50)), 90);
    let ahead = [events[0], events[1], event(3600, -50)];
    assert_eq!(lower(93, &ahead, &slow, at(50)), 90, "what is of the future does not count");
    assert_eq!(lower(93, &events, &slow, at(75)), 86, "from 96 after the first four are old");
}

#[test]
fn upstreams_limits_of_growth() {
    let policy = |kind, value| rules(Select::Max, &[(kind, value, 60)]);
    let cases = [
        // current, changes of the period, rules, most
        (1, 0, policy(Percent, 100), 2),
        (1, 0, policy(Percent, 1), 2),
        (10, 0, policy(Percent, 10), 11),
        (10, 0, policy(Percent, 11), 12),
        (10, 5, policy(Percent, 100), 10),
        (15, 5, policy(Pods, 8), 18),
        (10, -5, policy(Percent, 100), 30),
        (5, 0, rules(Select::Max, &[(Pods, 4, 60), (Percent, 100, 60)]), 10),
        (2, 0, rules(Select::Max, &[(Pods, 4, 60), (Percent, 100, 60)]), 6),
        (5, 0, rules(Select::Min, &[(Pods, 4, 60), (Percent, 100, 60)]), 9),
        (5, 0, rules(Select::Disabled, &[(Pods, 4, 60)]), 5),
        (20, 15, policy(Pods, 4), 20),
    ];
    for (current, changed, rules, want) in cases {
        assert_eq!(upper(current, &[event(-10, changed)], &rules, at(0)), want, "{current} {changed} {rules:?}");
    }
}

#[test]
fn what_is_not_said_is_as_documented() {
    // "scaleDown: stabilizationWindowSeconds: 300, Percent 100 in 15; scaleUp: 0, Percent 100 in 15, Pods 4 in 15, Max"
    let pace = Pace::new(None, seconds(300));
    assert_eq!((pace.up.window, pace.down.window, pace.memory()), (seconds(0), seconds(300), seconds(15)));
    assert_eq!((upper(3, &[], &pace.up, at(0)), upper(10, &[], &pace.up, at(0))), (7, 20));
    assert_eq!(lower(10, &[], &pace.down, at(0)), 0);
    let spec: Spec = serde_json::from_value(json!({"maxReplicas": 5, "behavior": {
        "scaleDown": {"stabilizationWindowSeconds": 5, "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}]},
        "scaleUp": {"selectPolicy": "Disabled", "tolerance": "50m"}}}))
    .unwrap();
    let behavior: &Behavior = spec.behavior.as_ref().unwrap();
    let pace = Pace::new(Some(behavior), seconds(300));
    assert_eq!((pace.down.window, lower(20, &[], &pace.down, at(0))), (seconds(5), 18));
    assert_eq!(upper(20, &[], &pace.up, at(0)), 20);
}

#[test]
fn recent_recommendations_hold_back() {
    let pace = |up, down| {
        let mut pace = Pace::new(None, seconds(down));
        pace.up.window = seconds(up);
        pace
    };
    let recent = |list: &[(i64, i32)]| -> Vec<Recommendation> {
        list.iter().map(|(s, replicas)| Recommendation { at: moment(*s), replicas: *replicas }).collect()
    };
    type Case<'a> = (i32, i32, &'a [(i64, i32)], (i64, i64), i32);
    let cases: [Case<'_>; 8] = [
        // current, desired, recommended lately, windows, what counts
        (5, 2, &[], (0, 300), 2),
        (5, 2, &[(-299, 5)], (0, 300), 5),
        (5, 2, &[(-301, 5)], (0, 300), 2),
        (5, 2, &[(-200, 4), (-100, 3)], (0, 300), 4),
        (5, 9, &[(-10, 5)], (0, 300), 9),
        (5, 9, &[(-10, 6)], (60, 300), 6),
        (5, 9, &[(-10, 3)], (60, 300), 5),
        (5, 2, &[(-10, 9)], (60, 300), 5),
    ];
    for (current, desired, list, (up, down), want) in cases {
        let found = stabilize(current, desired, &recent(list), &pace(up, down), moment(0));
        assert_eq!(found, want, "{current} {desired} {list:?} {up} {down}");
    }
    let mut all = recent(&[(-400, 1), (-200, 2)]);
    remember(&mut all, Recommendation { at: moment(0), replicas: 3 }, &pace(0, 300));
    assert_eq!(all, recent(&[(-200, 2), (0, 3)]));
}
