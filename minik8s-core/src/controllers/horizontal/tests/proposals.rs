//! How many replicas a metric asks for.

use super::super::replicas::{Goal, NoProposal, Proposal, Requests, Samples, Tolerance, of_pods, of_share, of_value};
use super::super::tally::{Patience, Sample, Tally, tally};
use super::{at, seconds};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

const TENTH: Tolerance = Tolerance { up: 0.1, down: 0.1 };
const PATIENCE: Patience = Patience {
    cpu_initialization: jiff::SignedDuration::from_secs(300),
    initial_readiness: jiff::SignedDuration::from_secs(30),
};

/// Pods in words: a number is what a ready pod uses, the others are states.
fn world(pods: &[&str]) -> (Vec<Pod>, Samples, Requests) {
    let (mut all, mut samples, mut requests) = (Vec::new(), Samples::new(), Requests::new());
    for (index, word) in pods.iter().enumerate() {
        let name = format!("p{index}");
        let (state, value) = word.split_once(' ').unwrap_or(("ready", word));
        let ready = |ready: bool, turned: i64| {
            json!([{"type": "Ready",
            "status": if ready { "True" } else { "False" }, "lastTransitionTime": at(turned).to_string()}])
        };
        let running = |start: i64, conditions: Value| {
            json!({"phase": "Running",
            "startTime": at(start).to_string(), "conditions": conditions})
        };
        // The present is 1000; a sample is of the last 60 seconds.
        let status = match state {
            "pending" => json!({"phase": "Pending"}),
            "failed" => json!({"phase": "Failed"}),
            // Started just now, and not ready yet.
            "starting" => running(900, ready(false, 900)),
            // Ready just now: the sample is of the time before.
            "fresh" => running(800, ready(true, 980)),
            // Was ready for long, and is not any more.
            "broken" => running(0, ready(false, 900)),
            // Never became ready.
            "never" => running(0, ready(false, 10)),
            _ => running(0, ready(true, 10)),
        };
        let mut metadata = json!({"name": name});
        if state == "leaving" {
            metadata["deletionTimestamp"] = at(999).to_string().into();
        }
        all.push(serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap());
        if let Ok(value) = value.parse() {
            samples.insert(name.clone(), Sample { value, at: at(1000), window: seconds(60) });
        }
        requests.insert(name, 1000);
    }
    (all, samples, requests)
}

fn tallied(pods: &[&str], cpu: bool) -> (Tally, Samples, Requests) {
    let (pods, samples, requests) = world(pods);
    (tally(&pods, &samples, cpu, PATIENCE, at(1000)), samples, requests)
}

/// Replicas and percent for a target in percent of requests of one core.
fn percent(pods: &[&str], current: i32, target: i32) -> Result<(i32, i32), NoProposal> {
    let (tally, samples, requests) = tallied(pods, true);
    let goal = Goal::Utilization(target, &requests);
    of_pods(current, &tally, &samples, goal, TENTH).map(|p| (p.replicas, p.utilization.unwrap()))
}

fn average(pods: &[&str], current: i32, target: i64) -> Result<i32, NoProposal> {
    let (tally, samples, _) = tallied(pods, false);
    of_pods(current, &tally, &samples, Goal::Average(target), TENTH).map(|p| p.replicas)
}

#[test]
fn the_formula() {
    // "if the current metric value is 200m, and the desired value is 100m, the number of replicas will be doubled,
    // since 200.0 / 100.0 == 2.0. If the current value is instead 50m, you'll halve the number of replicas"
    assert_eq!(average(&["200"], 1, 100), Ok(2));
    assert_eq!(average(&["50", "50"], 2, 100), Ok(1));
    // "desiredReplicas = ceil[currentReplicas * ( currentMetricValue / desiredMetricValue )]", as the walkthrough:
    // one replica at 250% of a target of 50% becomes five; at 305% seven.
    assert_eq!(percent(&["2500"], 1, 50), Ok((5, 250)));
    assert_eq!(percent(&["3050"], 1, 50), Ok((7, 305)));
    assert_eq!(percent(&["0", "0", "0", "0", "0", "0", "0"], 7, 50), Ok((0, 0)), "the least is kept elsewhere");
}

#[test]
fn the_tolerance() {
    // "skips any scaling action if the ratio is sufficiently close to 1.0 (within a globally-configurable tolerance,
    // 0.1 by default)"
    let cases = [("90", 3), ("110", 3), ("111", 4), ("89", 3), ("66", 2)];
    for (used, want) in cases {
        assert_eq!(average(&[used, used, used], 3, 100), Ok(want), "{used}");
    }
    let (tally, samples, _) = tallied(&["105", "105"], false);
    let up = |tolerance| of_pods(2, &tally, &samples, Goal::Average(100), tolerance).unwrap().replicas;
    assert_eq!(up(Tolerance { up: 0.0, down: 0.5 }), 3, "each direction its own");
    assert_eq!(up(Tolerance { up: 0.06, down: 0.0 }), 2);
}

#[test]
fn upstreams_replica_calculator_on_cpu() {
    type Case<'a> = (&'a str, &'a [&'a str], i32, i32, (i32, i32));
    let cases: [Case<'_>; 17] = [
        ("just at the target one that is missing changes nothing", &["500", "500", "missing"], 3, 50, (3, 50)),
        ("scale up", &["300", "500", "700"], 3, 30, (5, 50)),
        ("unready pods lessen it", &["starting 300", "500", "700"], 3, 30, (4, 60)),
        ("pods just ready lessen it", &["fresh 0", "500", "700"], 3, 30, (4, 60)),
        ("pending pods lessen it", &["pending", "500", "700"], 3, 30, (4, 60)),
        ("failed pods do not count", &["500", "700", "failed"], 2, 30, (4, 60)),
        ("nor do those that go", &["500", "700", "leaving 0"], 2, 30, (4, 60)),
        ("too many unready: nothing", &["fresh 100", "200", "starting 400"], 3, 15, (3, 20)),
        ("missing ones count as idle", &["missing", "500", "700"], 3, 30, (4, 60)),
        ("one that was ready still counts", &["broken 400", "500", "700"], 3, 30, (6, 53)),
        ("one that never was does not", &["never 400", "500", "700"], 3, 30, (4, 60)),
        ("scale down", &["100", "300", "500", "250", "250"], 5, 50, (3, 28)),
        ("unready ones do not shrink it", &["100", "300", "500", "starting 250", "starting 250"], 5, 50, (2, 30)),
        ("missing ones count as busy", &["100", "300", "500", "250", "missing"], 5, 50, (5, 28)),
        ("for targets above 100% as at the target", &["1000", "1000", "missing"], 3, 150, (3, 100)),
        ("missing on both sides: no turn", &["missing", "490", "missing"], 3, 50, (3, 49)),
        ("the tolerance", &["1010", "1030", "1020"], 3, 100, (3, 102)),
    ];
    for (what, pods, current, target, want) in cases {
        assert_eq!(percent(pods, current, target), Ok(want), "{what}");
    }
}

#[test]
fn numbers_that_are_too_large_do_not_turn_round() {
    let most = i64::MAX.to_string();
    assert_eq!(average(&[&most, &most], 2, 1), Ok(i32::MAX));
    let (tally, mut samples, mut requests) = tallied(&["1", "1", "missing"], false);
    requests.values_mut().for_each(|r| *r = i64::MAX);
    let mut of = |value| {
        samples.values_mut().for_each(|s| s.value = value);
        of_pods(3, &tally, &samples, Goal::Utilization(50, &requests), TENTH).map(|p| (p.replicas, p.utilization))
    };
    assert_eq!((of(i64::MAX), of(1)), (Ok((4, Some(100))), Ok((2, Some(0)))));
}

#[test]
fn where_nothing_is_known_nothing_is_proposed() {
    assert_eq!(percent(&[], 1, 50), Err(NoProposal::NoPods));
    assert_eq!(percent(&["starting 5", "pending"], 2, 50), Err(NoProposal::NoSamples));
    let (tally, samples, _) = tallied(&["5"], true);
    let none = Requests::new();
    let found = of_pods(1, &tally, &samples, Goal::Utilization(50, &none), TENTH);
    assert_eq!(found, Err(NoProposal::NoRequests));
}

#[test]
fn other_metrics_of_pods() {
    let cases: [(&str, &[&str], i32, i64, i32); 9] = [
        ("just at the target a missing one counts as idle", &["20000", "20000", "missing"], 3, 20000, 2),
        ("scale up", &["20000", "10000", "30000"], 3, 15000, 4),
        ("readiness does not matter to them", &["starting 50000", "10000", "30000"], 3, 15000, 6),
        ("pending pods count as idle", &["50000", "pending", "pending"], 3, 15000, 4),
        ("missing ones too", &["missing", "10000", "70000"], 3, 15000, 6),
        ("scale down", &["12000", "12000", "12000", "12000", "12000"], 5, 20000, 3),
        ("missing ones at the target hold it up", &["missing", "12000", "12000", "12000"], 4, 20000, 3),
        ("the tolerance", &["20000", "21000", "21000"], 3, 20000, 3),
        ("a turn is no reason", &["missing", "missing", "missing", "24000"], 4, 20000, 4),
    ];
    for (what, pods, current, target, want) in cases {
        assert_eq!(average(pods, current, target), Ok(want), "{what}");
    }
}

#[test]
fn numbers_there_is_one_of() {
    // current, ready, usage, target: upstream's tests of object and external metrics.
    let cases = [
        ((3, 3, 20_000, 15_000), 4),
        ((3, 2, 20_000, 15_000), 3),
        ((0, 0, 16_000, 15_000), 2),
        ((5, 5, 12_000, 20_000), 3),
        ((3, 3, 26_660, 26_000), 3),
    ];
    for ((current, ready, usage, target), want) in cases {
        let found = of_value(current, Some(ready), usage, target, TENTH);
        assert_eq!(found, Ok(Proposal { replicas: want, value: usage, utilization: None }));
    }
    // No pods: nothing is proposed, but where nothing is to change, or none should be there yet.
    let without = |current, usage| of_value(current, None, usage, 15_000, TENTH).map(|p| p.replicas);
    assert_eq!((without(3, 30_000), without(3, 15_000), without(0, 30_000)), (Err(NoProposal::NoPods), Ok(3), Ok(2)));
    // pods, usage, target for each.
    let cases = [
        ((2, 8_600, 3_000), (3, 4_300)),
        ((5, 6_000, 4_000), (2, 1_200)),
        ((4, 8_000, 2_000), (4, 2_000)),
        ((0, 30_000, 10_000), (3, 30_000)),
    ];
    for ((pods, usage, target), (replicas, value)) in cases {
        assert_eq!(of_share(pods, usage, target, TENTH), Proposal { replicas, value, utilization: None });
    }
}
