//! Runs of the pure machine, with a fake world around it: its time, its dice and its functions.

use super::*;
use crate::workflow::{compile, spec::WorkflowSpec};
use serde_json::json;
use std::collections::BTreeSet;

/// The functions of the reference results, and some that misbehave.
pub(super) fn call(target: &Target, input: &Value, attempt: u32) -> Result<Value, Failure> {
    let Target::Function(function) = target else { return Err(Failure::new("NotFound", "no such thing")) };
    let number = |name: &str| input[name].as_i64().unwrap_or_default();
    let (x, y) = (number("x"), number("y"));
    match function.name.as_str() {
        "f1" => Ok(json!({"x": x - y, "y": y - x})),
        "f2" => Ok(json!({"x": x + y, "y": x - y})),
        "f3" => Ok(json!({"x": x * x, "y": y * y})),
        "double" => Ok(json!(input.as_i64().unwrap_or_default() * 2)),
        "third-time-lucky" if attempt < 3 => Err(Failure::new("TaskFailed", "not yet")),
        "third-time-lucky" => Ok(json!("lucky")),
        "broken" => Err(Failure::new("TaskFailed", "it is broken")),
        other => Err(Failure::new("NotFound", format!("no function {other}"))),
    }
}

/// What is left of a run that was carried to its end.
pub(super) struct Run {
    pub(super) state: RunState,
    pub(super) events: Vec<Event>,
    pub(super) calls: Vec<String>,
    /// The time at which each call was made.
    times: Vec<Millis>,
}

pub(super) fn workflow(spec: Value) -> Workflow {
    let spec: WorkflowSpec = serde_json::from_value(spec).unwrap();
    compile(&spec).unwrap_or_else(|e| panic!("{e:?}"))
}

/// Carries a run to its end: tasks answer at once, time jumps to what is due next.
pub(super) fn run(workflow: &Workflow, input: Value) -> Run {
    let about = json!({"name": "r"});
    let machine = Machine { workflow, timeout: None, uid: "u", about: &about };
    let (mut now, mut events, mut calls, mut times) = (1_000, Vec::new(), Vec::new(), Vec::new());
    let mut stimuli = vec![Stimulus::Start(input)];
    let mut state = RunState::default();
    for _ in 0..20_000 {
        let turn = machine.step(state, std::mem::take(&mut stimuli), now, &mut || 0.5);
        state = turn.state;
        events.extend(turn.events);
        for call in turn.calls {
            let attempt = call.key.rsplit('/').next().unwrap().parse().unwrap();
            calls.push(call.key.clone());
            times.push(now);
            if !matches!(&call.target, Target::Function(f) if f.name == "never") {
                stimuli.push(Stimulus::Done {
                    result: super::tests::call(&call.target, &call.input, attempt),
                    key: call.key,
                });
            }
        }
        if state.phase.is_over() {
            assert_eq!(RunState::of(&events), state, "the history says the same");
            return Run { state, events, calls, times };
        }
        if stimuli.is_empty() && !turn.more {
            now = machine.next_due(&state).expect("a run that waits for nobody").max(now);
            stimuli.push(Stimulus::Tick);
        }
    }
    panic!("the run does not end: {:?}", events.iter().rev().take(5).collect::<Vec<_>>());
}

pub(super) fn task(name: &str, function: &str, next: &str) -> Value {
    let mut step = json!({"name": name, "task": {"function": {"name": function}}});
    if next.is_empty() {
        step["end"] = json!(true);
    } else {
        step["next"] = json!(next);
    }
    step
}

fn steps(start: &str, steps: Value) -> Workflow {
    workflow(json!({"startAt": start, "steps": steps}))
}

fn output(workflow: &Workflow, input: Value) -> Value {
    let run = run(workflow, input);
    run.state.output.unwrap_or_else(|| panic!("{:?}", run.state.failure))
}

fn failure(workflow: &Workflow, input: Value) -> (String, Failure) {
    run(workflow, input).state.failure.expect("the run fails")
}

fn branch(check: &str, value: Value) -> Workflow {
    let func = |name: &str, function: &str, next: &str| json!({"name": name, "type": "func", "funcData": {"funcName": function, "nextNodeName": next}});
    workflow(json!({"entryNodeName": "n1", "entryParams": "{\"x\": 1, \"y\": 2}", "workflowNodes": [
        func("n1", "f2", "n2"),
        {"name": "n2", "type": "choice", "choiceData": {"trueNextNodeName": "n3", "falseNextNodeName": "n4",
            "checkType": check, "checkVarName": "y", "compareValue": value}},
        func("n3", "f3", ""), func("n4", "f1", "")]}))
}

#[test]
fn the_reference_results_in_both_shapes() {
    let linear = steps("a", json!([task("a", "f2", "b"), task("b", "f3", "")]));
    assert_eq!(output(&linear, json!({"x": 1, "y": 2})), json!({"x": 9, "y": 1}));
    let long = steps(
        "a",
        json!([task("a", "f2", "c"), {"name": "c", "choice": {"rules": [{"when": "input.y > 0", "next": "b"}], "default": "d"}},
        task("b", "f3", ""), task("d", "f1", "")]),
    );
    for workflow in [long, branch("numGreaterThan", json!(0)), branch("numGreaterThan", json!("0"))] {
        assert_eq!(output(&workflow, json!({"x": 1, "y": 2})), json!({"x": 4, "y": -4}));
        assert_eq!(output(&workflow, json!({"x": 3, "y": 1})), json!({"x": 16, "y": 4}));
    }
    assert_eq!(
        branch("numGreaterThan", json!(0)).input,
        json!({"x": 1, "y": 2}),
        "the run's input where it brings none"
    );
}

#[test]
fn a_mismatch_of_types_ends_the_run_with_step_and_reason() {
    // f2 gives a number in y: a check of texts cannot look at it.
    for check in
        ["strEqual", "strNotEqual", "strGreaterThan", "strLessThan", "strGreaterAndEqualThan", "strLessAndEqualThan"]
    {
        let (step, failure) = failure(&branch(check, json!("0")), json!({"x": 1, "y": 2}));
        assert_eq!((step.as_str(), failure.error.as_str()), ("n2", "TypeMismatch"), "{check}");
        assert!(
            failure.cause.contains("the number -1") && failure.cause.contains("compares texts"),
            "{}",
            failure.cause
        );
    }
    let texts = |check: &str| {
        steps(
            "c",
            json!([{"name": "c", "choice": {"rules": [{"check": check, "variable": "s", "value": 1, "next": "e"}], "default": "e"}},
        {"name": "e", "succeed": {}}]),
        )
    };
    for check in ["NumberEqual", "NumberNotEqual", "NumberGreater", "NumberLess", "NumberAtLeast", "NumberAtMost"] {
        let (step, failure) = failure(&texts(check), json!({"s": "1"}));
        assert_eq!((step.as_str(), failure.error.as_str()), ("c", "TypeMismatch"), "{check}");
    }
    let (step, failure) = failure(&texts("NumberEqual"), json!({}));
    assert_eq!((step.as_str(), failure.error.as_str()), ("c", "PathNotFound"));
}

#[test]
fn paths_and_templates_shape_what_goes_in_and_out() {
    let workflow = steps(
        "a",
        json!([
        {"name": "a", "task": {"function": {"name": "f2"}}, "inputPath": "$.in", "resultPath": "$.out", "next": "b"},
        {"name": "b", "pass": {"value": {"sum": "${input.out.x + input.out.y}", "run": "${run.name}"}}, "resultPath": "$.more", "next": "c"},
        {"name": "c", "task": {"function": {"name": "f3"}}, "parameters": {"x": "${input.more.sum}", "y": 1}, "outputPath": "$.x", "end": true}]),
    );
    assert_eq!(output(&workflow, json!({"in": {"x": 1, "y": 2}})), json!(4));
    let (step, why) = failure(&workflow, json!({}));
    assert_eq!((step.as_str(), why.error.as_str()), ("a", "PathNotFound"));
    let inside = steps("a", json!([{"name": "a", "pass": {}, "resultPath": "$.in.x", "end": true}]));
    assert_eq!(failure(&inside, json!({"in": 1})).1.error, "TypeMismatch");
}

#[test]
fn retries_pause_longer_each_time_and_then_give_up() {
    let retried = |function: &str, attempts: u32| {
        let mut step = task("a", function, "");
        step["retry"] = json!([{"errors": ["TaskFailed"], "maxAttempts": attempts, "intervalSeconds": 2, "backoffRate": 3, "jitter": "None"}]);
        steps("a", json!([step]))
    };
    let lucky = run(&retried("third-time-lucky", 2), json!(null));
    assert_eq!(lucky.state.output, Some(json!("lucky")));
    assert_eq!(lucky.calls, ["u/a/1", "u/a/2", "u/a/3"]);
    assert_eq!(lucky.times, [1_000, 3_000, 9_000]);
    assert_eq!(run(&retried("third-time-lucky", 1), json!(null)).calls.len(), 2);
    assert_eq!(run(&retried("nothing", 5), json!(null)).calls.len(), 1, "NotFound is not among the errors");
}

#[test]
fn what_is_caught_goes_on_with_the_failure() {
    let mut step = task("a", "broken", "never");
    step["catch"] =
        json!([{"errors": ["Other"], "next": "never"}, {"errors": ["*"], "resultPath": "$.failure", "next": "mend"}]);
    let workflow =
        steps("a", json!([step, {"name": "never", "fail": {"error": "X"}}, {"name": "mend", "pass": {}, "end": true}]));
    let failure = json!({"error": "TaskFailed", "cause": "it is broken", "step": "a"});
    assert_eq!(output(&workflow, json!({"x": 1})), json!({"x": 1, "failure": failure}));
}

#[test]
fn timeouts_end_attempts_and_runs() {
    let mut step = task("a", "never", "");
    step["timeoutSeconds"] = json!(5);
    step["retry"] = json!([{"errors": ["Timeout"], "maxAttempts": 1, "intervalSeconds": 1, "jitter": "None"}]);
    let attempts = run(&steps("a", json!([step.clone()])), json!(null));
    assert_eq!(attempts.times, [1_000, 7_000]);
    assert_eq!(attempts.state.failure.unwrap().1.error, "Timeout");
    assert_eq!(attempts.state.finished, Some(12_000));
    let short = run(&workflow(json!({"startAt": "a", "timeoutSeconds": 3, "steps": [step]})), json!(null));
    assert_eq!((short.state.finished, short.calls.len()), (Some(4_000), 1));
}

#[test]
fn waits_end_when_they_should() {
    let wait = |wait: Value| steps("a", json!([{"name": "a", "wait": wait, "end": true}]));
    let table = [
        (json!({"seconds": 1.5}), 2_500),
        (json!({"until": "1970-01-01T00:00:10Z"}), 10_000),
        (json!({"until": "1970-01-01T00:00:00Z"}), 1_000),
        (json!({"secondsPath": "$.s"}), 4_000),
        (json!({"untilPath": "$.t"}), 20_000),
    ];
    let input = json!({"s": 3, "t": "1970-01-01T00:00:20Z"});
    for (spec, want) in table {
        let run = run(&wait(spec.clone()), input.clone());
        assert_eq!((run.state.finished, run.state.output.as_ref()), (Some(want), Some(&input)), "{spec}");
    }
    for spec in [json!({"secondsPath": "$.t"}), json!({"untilPath": "$.s"})] {
        assert_eq!(failure(&wait(spec), input.clone()).1.error, "TypeMismatch");
    }
}

#[test]
fn branches_and_items_come_out_in_order() {
    let inner = |function: &str| json!({"startAt": "x", "steps": [task("x", function, "")]});
    let both = steps(
        "p",
        json!([{"name": "p", "parallel": {"branches": [inner("f1"), inner("f2"), inner("f3")]}, "resultPath": "$.all", "end": true}]),
    );
    let out = output(&both, json!({"x": 1, "y": 2}));
    assert_eq!(out["all"], json!([{"x": -1, "y": 1}, {"x": 3, "y": -1}, {"x": 1, "y": 4}]));
    let mut map = json!({"startAt": "x", "steps": [task("x", "double", "")], "itemsPath": "$.l"});
    for most in [0, 1, 3, 100] {
        map["maxConcurrency"] = json!(most);
        let workflow = steps("m", json!([{"name": "m", "map": map, "end": true}]));
        let run = run(&workflow, json!({"l": [1, 2, 3, 4, 5]}));
        assert_eq!(run.state.output, Some(json!([2, 4, 6, 8, 10])));
        assert_eq!(run.calls[4], "u/m/4/x/1");
        assert_eq!(output(&workflow, json!({"l": []})), json!([]));
        assert_eq!(failure(&workflow, json!({"l": {}})).1.error, "TypeMismatch");
    }
}

#[test]
fn no_more_items_at_once_than_allowed() {
    let map = json!({"startAt": "x", "steps": [task("x", "double", "")], "maxConcurrency": 3});
    let workflow = steps("m", json!([{"name": "m", "map": map, "end": true}]));
    let run = run(&workflow, json!((0..20).collect::<Vec<_>>()));
    let (mut now, mut most) = (0_i32, 0);
    for event in &run.events {
        now += match event.what {
            Happened::ChildStarted { .. } => 1,
            Happened::ChildEnded { .. } => -1,
            _ => 0,
        };
        most = most.max(now);
    }
    assert_eq!((now, most), (0, 3));
}

#[test]
fn a_failure_inside_ends_what_it_is_part_of_unless_that_is_tried_again_or_caught() {
    let inner = json!([{"startAt": "x", "steps": [task("x", "never", "")]}, {"startAt": "y", "steps": [task("y", "broken", "")]}]);
    let mut step = json!({"name": "p", "parallel": {"branches": inner}, "end": true});
    let (place, why) = failure(&steps("p", json!([step])), json!(null));
    assert_eq!((place.as_str(), why.error.as_str()), ("p[1]/y (p/1/y)", "TaskFailed"));
    step["retry"] = json!([{"errors": ["*"], "maxAttempts": 1}]);
    step["catch"] = json!([{"errors": ["*"], "next": "mend"}]);
    let caught = run(
        &steps("p", json!([step, {"name": "mend", "pass": {"value": "${input.error}"}, "end": true}])),
        json!(null),
    );
    assert_eq!(caught.state.output, Some(json!("TaskFailed")));
    assert_eq!(
        caught.calls,
        ["u/p/0/x/1", "u/p/1/y/1", "u/p@2/0/x/1", "u/p@2/1/y/1"],
        "another attempt has other keys"
    );
    assert!(caught.state.frames.is_empty());
}

#[test]
fn loops_go_round_under_new_keys_and_not_for_ever() {
    let workflow = workflow(json!({"startAt": "a", "maxSteps": 50, "steps": [
        {"name": "a", "task": {"function": {"name": "f2"}}, "resultPath": "none", "next": "n"},
        {"name": "n", "pass": {"value": {"n": "${input.n + 1}"}}, "next": "c"},
        {"name": "c", "choice": {"rules": [{"when": "input.n >= 3", "next": "e"}], "default": "a"}},
        {"name": "e", "succeed": {}}]}));
    let three = run(&workflow, json!({"n": 0}));
    assert_eq!(three.state.output, Some(json!({"n": 3})));
    assert_eq!(three.calls, ["u/a/1", "u/a#2/1", "u/a#3/1"]);
    assert_eq!(failure(&workflow, json!({"n": -1000})).1.error, "TooManySteps");
}

#[test]
fn a_long_way_without_waiting_is_cut_into_turns() {
    let map = json!({"startAt": "x", "steps": [{"name": "x", "pass": {}, "end": true}]});
    let workflow = steps("m", json!([{"name": "m", "map": map, "end": true}]));
    let about = json!({});
    let machine = Machine { workflow: &workflow, timeout: None, uid: "u", about: &about };
    let items: Vec<i32> = (0..1000).collect();
    let first = machine.step(RunState::default(), [Stimulus::Start(json!(items))], 0, &mut || 0.0);
    assert!(first.more && first.state.entered < 200);
    assert_eq!(output(&workflow, json!(items)), json!(items));
}

#[test]
fn late_and_foreign_results_change_nothing() {
    let workflow = steps("a", json!([task("a", "f1", "b"), task("b", "f1", "")]));
    let about = json!({});
    let machine = Machine { workflow: &workflow, timeout: None, uid: "u", about: &about };
    let turn = machine.step(RunState::default(), [Stimulus::Start(json!({}))], 0, &mut || 0.0);
    for key in ["u/a/2", "u/b/1", "v/a/1", "u/a", "u", "", "u/a/x", "u/a/0/b/1", "u//1"] {
        let done = Stimulus::Done { key: key.into(), result: Ok(json!(1)) };
        let next = machine.step(turn.state.clone(), [done], 1, &mut || 0.0);
        assert_eq!((next.events.len(), &next.state), (0, &turn.state), "{key:?}");
    }
    let cancelled = machine.step(turn.state.clone(), [Stimulus::Cancel], 1, &mut || 0.0);
    assert_eq!((cancelled.state.phase, machine.outstanding(&cancelled.state).len()), (Phase::Cancelled, 0));
    let after = machine.step(
        cancelled.state.clone(),
        [Stimulus::Done { key: "u/a/1".into(), result: Ok(json!(1)) }, Stimulus::Start(json!(1))],
        2,
        &mut || 0.0,
    );
    assert_eq!((after.events.len(), after.state), (0, cancelled.state));
}

mod crashes {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::TestCaseError;

    /// The program of a branch: a chain of steps, of which some hold others.
    fn program(depth: u32) -> BoxedStrategy<Value> {
        let leaf = prop_oneof![
            4 => prop::sample::select(vec!["f1", "f2", "f3", "double", "broken", "third-time-lucky"]).prop_map(|f| json!({"task": {"function": {"name": f}}})),
            1 => (0..5_u8).prop_map(|s| json!({"wait": {"seconds": s}})),
            1 => Just(json!({"pass": {"value": {"x": 3, "y": "${1 + 1}"}}})),
        ];
        let step = if depth == 0 {
            leaf.boxed()
        } else {
            prop_oneof![
                3 => leaf,
                1 => prop::collection::vec(program(depth - 1), 1..4).prop_map(|b| json!({"parallel": {"branches": b}})),
                1 => (program(depth - 1), 0..3_u8).prop_map(|(p, n)| json!({"map": {"startAt": p["startAt"], "steps": p["steps"], "itemsPath": "$.items", "maxConcurrency": n},
                        "parameters": {"items": [1, 2, 3, 4]}})),
            ]
            .boxed()
        };
        let guarded = (step, any::<bool>(), any::<bool>());
        prop::collection::vec(guarded, 1..4)
            .prop_map(|parts| {
                let (mut steps, count) = (Vec::new(), parts.len());
                for (index, (mut step, retried, caught)) in parts.into_iter().enumerate() {
                    let can_fail = ["task", "parallel", "map"].iter().any(|kind| step.get(kind).is_some());
                    step["name"] = json!(format!("s{index}"));
                    if retried && can_fail {
                        step["retry"] = json!([{"errors": ["TaskFailed"], "maxAttempts": 2, "intervalSeconds": 1}]);
                    }
                    if caught && can_fail {
                        step["catch"] = json!([{"errors": ["*"], "next": "mend"}]);
                    }
                    if index + 1 < count {
                        step["next"] = json!(format!("s{}", index + 1))
                    } else {
                        step["end"] = json!(true)
                    }
                    steps.push(step);
                }
                if steps.iter().any(|s| s.get("catch").is_some()) {
                    steps.push(json!({"name": "mend", "pass": {"value": {"x": 1, "y": 1}}, "end": true}));
                }
                json!({"startAt": "s0", "steps": steps})
            })
            .boxed()
    }

    /// When the process dies, in a round of a run.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Crash {
        No,
        /// With the results it had and had not committed yet.
        BeforeCommit,
        /// What was committed was not done, or nobody heard of it.
        AfterCommit,
    }

    fn answer(call: Call) -> Stimulus {
        let attempt = call.key.rsplit('/').next().and_then(|a| a.parse().ok()).unwrap_or(1);
        Stimulus::Done { result: super::call(&call.target, &call.input, attempt), key: call.key }
    }

    /// Runs to the end, and dies in these rounds. What was committed is all that the next process knows. Answers with how
    /// many rounds it took.
    fn run_with(workflow: &Workflow, crashes: &[Crash]) -> Result<(RunState, usize), TestCaseError> {
        let about = json!({"name": "r"});
        let machine = Machine { workflow, timeout: None, uid: "u", about: &about };
        let start = || Stimulus::Start(json!({"x": 1, "y": 2}));
        let (mut committed, mut now, mut completed): (Vec<Event>, Millis, BTreeSet<String>) = Default::default();
        let mut stimuli = vec![start()];
        for round in 0..5_000 {
            let crash = crashes.get(round).copied().unwrap_or(Crash::No);
            let keys: Vec<String> = stimuli
                .iter()
                .filter_map(|s| if let Stimulus::Done { key, .. } = s { Some(key.clone()) } else { None })
                .collect();
            let mut calls = Vec::new();
            if crash != Crash::BeforeCommit {
                let turn = machine.step(RunState::of(&committed), std::mem::take(&mut stimuli), now, &mut || 0.5);
                committed.extend(turn.events);
                prop_assert_eq!(&RunState::of(&committed), &turn.state);
                calls = turn.calls;
            }
            let state = RunState::of(&committed);
            if state.phase.is_over() {
                return Ok((state, round));
            }
            let open: Vec<Call> = machine.outstanding(&state);
            completed.extend(keys.into_iter().filter(|key| open.iter().all(|call| call.key != *key)));
            if crash != Crash::No {
                calls = open;
                stimuli = if committed.is_empty() { vec![start()] } else { Vec::new() };
            }
            for call in calls {
                prop_assert!(!completed.contains(&call.key), "{} was completed, and is asked for again", call.key);
                stimuli.push(answer(call));
            }
            if stimuli.is_empty() {
                now = machine.next_due(&state).unwrap_or(now).max(now);
                stimuli.push(Stimulus::Tick);
            }
        }
        Err(TestCaseError::fail("the run does not end"))
    }

    const KINDS: [Crash; 2] = [Crash::BeforeCommit, Crash::AfterCommit];

    #[test]
    fn a_crash_at_every_single_point_changes_nothing() {
        let inner = json!({"startAt": "x", "steps": [task("x", "third-time-lucky", "y"), task("y", "double", "")]});
        let mut inner = inner;
        inner["steps"][0]["retry"] = json!([{"errors": ["*"], "maxAttempts": 5}]);
        inner["steps"][1]["parameters"] = json!(21);
        let mut failing = task("f", "broken", "w");
        failing["catch"] = json!([{"errors": ["*"], "resultPath": "none", "next": "m"}]);
        let workflow = steps(
            "a",
            json!([task("a", "f2", "p"),
            {"name": "p", "parallel": {"branches": [inner, inner]}, "resultPath": "$.p", "next": "f"},
            failing, {"name": "w", "wait": {"seconds": 1}, "next": "m"},
            {"name": "m", "map": {"startAt": "x", "steps": inner["steps"], "maxConcurrency": 2, "itemsPath": "$.p"}, "resultPath": "$.m", "next": "w2"},
            {"name": "w2", "wait": {"seconds": 5}, "end": true}]),
        );
        let (calm, rounds) = run_with(&workflow, &[]).unwrap();
        assert_eq!(calm.output, Some(json!({"x": 3, "y": -1, "p": [42, 42], "m": [42, 42]})));
        assert!(rounds > 10);
        for at in 0..=rounds {
            for kind in KINDS {
                let mut crashes = vec![Crash::No; at];
                crashes.push(kind);
                let (state, _) =
                    run_with(&workflow, &crashes).unwrap_or_else(|e| panic!("{kind:?} in round {at}: {e}"));
                assert_eq!((state.phase, &state.output), (calm.phase, &calm.output), "{kind:?} in round {at}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

        #[test]
        fn any_program_comes_to_the_same_end_however_often_it_crashes(
            spec in program(2),
            crashes in prop::collection::vec(prop::sample::select(vec![Crash::No, Crash::BeforeCommit, Crash::AfterCommit]), 0..60),
        ) {
            let workflow = workflow(spec);
            let (calm, _) = run_with(&workflow, &[])?;
            let (wild, _) = run_with(&workflow, &crashes)?;
            prop_assert_eq!((calm.phase, &calm.output), (wild.phase, &wild.output));
        }
    }
}
