//! What metrics, past and limits lead to together, and the words for it.

use super::super::behavior::{Pace, ScaleEvent};
use super::super::decide::Said;
use super::super::decide::{Decision, Failure, Situation, Voice, by_metrics, without_metrics};
use super::super::stabilize::Recommendation;
use super::super::status::{Shown, status};
use super::{at, moment, seconds};
use serde_json::json;

fn voice(name: &str, replicas: i32) -> Result<Voice, Failure> {
    Ok(Voice { name: name.to_owned(), reading: "2/1".to_owned(), replicas })
}

fn failed() -> Result<Voice, Failure> {
    Err(Failure { reason: "FailedGetPodsMetric", message: "gone".to_owned() })
}

fn decide(current: i32, voices: &[Result<Voice, Failure>]) -> Decision {
    decide_after(current, voices, &[], &[])
}

fn decide_after(
    current: i32,
    voices: &[Result<Voice, Failure>],
    recent: &[Recommendation],
    events: &[ScaleEvent],
) -> Decision {
    let pace = Pace::new(None, seconds(300));
    by_metrics(
        &Situation { current, min: 2, max: 10, pace: &pace, recent, events, now: at(0), moment: moment(0) },
        voices,
    )
}

fn reasons(decision: &Decision) -> Vec<(&str, bool, &str)> {
    decision.conditions.iter().map(|c| (c.kind, c.status, c.reason)).collect()
}

#[test]
fn a_target_outside_of_its_limits_needs_no_metrics() {
    let desired = |current| without_metrics(current, 2, 5).map(|d| (d.desired, d.reason));
    assert_eq!(desired(3), None);
    assert_eq!(desired(7), Some((Some(5), "Current number of replicas above Spec.MaxReplicas".to_owned())));
    assert_eq!(desired(1), Some((Some(2), "Current number of replicas below Spec.MinReplicas".to_owned())));
    let off = without_metrics(0, 2, 5).unwrap();
    assert_eq!((off.desired, reasons(&off)), (Some(0), vec![("ScalingActive", false, "ScalingDisabled")]));
}

#[test]
fn the_highest_of_several_metrics_counts() {
    let up = decide(3, &[voice("cpu", 4), voice("memory", 6), voice("rps", 6)]);
    assert_eq!((up.desired, up.recommended, up.reason.as_str()), (Some(6), Some(6), "memory above target"));
    let wanted = [
        ("ScalingActive", true, "ValidMetricFound"),
        ("AbleToScale", true, "ReadyForNewScale"),
        ("ScalingLimited", false, "DesiredWithinRange"),
    ];
    assert_eq!(reasons(&up), wanted);
    assert_eq!(
        up.conditions[0].message,
        "the HPA was able to successfully calculate a replica count from memory: cpu 2/1 proposes 4, memory 2/1 \
         proposes 6, rps 2/1 proposes 6; from 3 to 6"
    );
    let down = decide(5, &[voice("cpu", 2), voice("memory", 3)]);
    assert_eq!((down.desired, down.reason.as_str()), (Some(3), "All metrics below target"));
}

#[test]
fn limits_and_the_past_say_what_they_did() {
    let recent = [Recommendation { at: moment(-100), replicas: 6 }];
    let came = [ScaleEvent { at: at(-5), change: 2 }];
    type Case<'a> = (i32, i32, &'a [ScaleEvent], i32, &'a str, &'a str, &'a str);
    let cases: [Case<'_>; 5] = [
        // current, proposed, lately, what becomes of it, AbleToScale, ScalingLimited, trail
        (3, 40, &[], 7, "ReadyForNewScale", "ScaleUpLimit", "7 after ScaleUpLimit; from 3 to 7"),
        // Two of the four that may come in 15 seconds came already.
        (3, 40, &came, 5, "ReadyForNewScale", "ScaleUpLimit", "5 after ScaleUpLimit; from 3 to 5"),
        (9, 12, &[], 10, "ReadyForNewScale", "TooManyReplicas", "10 after TooManyReplicas; from 9 to 10"),
        (8, 3, &[], 6, "ScaleDownStabilized", "DesiredWithinRange", "6 after ScaleDownStabilized; from 8 to 6"),
        (6, 3, &[], 6, "ScaleDownStabilized", "DesiredWithinRange", "6 after ScaleDownStabilized; stays at 6"),
    ];
    for (current, proposed, events, want, able, limited, trail) in cases {
        let decision = decide_after(current, &[voice("cpu", proposed)], &recent, events);
        assert_eq!(decision.desired, Some(want));
        assert_eq!((decision.conditions[1].reason, decision.conditions[2].reason), (able, limited));
        assert!(decision.conditions[0].message.ends_with(trail), "{}", decision.conditions[0].message);
    }
    let low = decide(3, &[voice("cpu", 0)]);
    assert_eq!((low.desired, low.conditions[2].reason), (Some(2), "TooFewReplicas"));
}

#[test]
fn a_metric_that_fails_lets_others_grow_and_not_shrink() {
    let grow = decide(3, &[failed(), voice("cpu", 5)]);
    assert_eq!(grow.desired, Some(5));
    assert_eq!(grow.error.as_deref(), Some("invalid metrics (1 invalid out of 2), first error is: gone"));
    let shrink = decide(3, &[voice("cpu", 2), failed()]);
    assert_eq!((shrink.desired, shrink.recommended), (None, None));
    assert_eq!(reasons(&shrink), [("ScalingActive", false, "FailedGetPodsMetric")]);
    assert!(shrink.conditions[0].message.contains("cpu 2/1 proposes 2, FailedGetPodsMetric proposes nothing"));
    let none = decide(3, &[failed()]);
    assert_eq!(none.conditions[0].message, "the HPA was unable to compute the replica count: gone");
}

#[test]
fn conditions_keep_the_time_at_which_they_turned() {
    let said = |status| Said::new("AbleToScale", status, "R", "m");
    let shown =
        |status, scaled| Shown { current: 2, desired: Some(3), said: vec![said(status)], scaled, ..Shown::default() };
    let first = status(&json!({}), 1, shown(true, true), at(0));
    assert_eq!((&first["desiredReplicas"], &first["lastScaleTime"]), (&json!(3), &json!("1970-01-12T13:46:40Z")));
    let same = status(&first, 1, shown(true, false), at(60));
    assert_eq!(same, first, "nothing new, nothing to write");
    let turned = status(&first, 2, shown(false, false), at(60));
    assert_eq!(turned["conditions"][0]["lastTransitionTime"], "1970-01-12T13:47:40Z");
    let unknown = Shown { current: 2, ..Shown::default() };
    assert_eq!(status(&first, 2, unknown, at(90))["desiredReplicas"], 3, "what is not known stays");
}
