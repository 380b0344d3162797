//! Workflows on real functions: from nothing, and with the whole process killed wherever it is.

use super::functions::{F1, F2, F3, asleep, code};
use super::harness::{IMAGE, Kind, Up, until, until_or};
use serde_json::{Value, json};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const WORD: &str = "def main(p):\n    return {'x': 1, 'y': 2, 'w': 'm'}\n";

/// Says who was called when, and takes its time.
const COUNTS: &str = "import os, time
def main(p):
    os.write(1, f'CALL {p[\"run\"]} {p[\"step\"]} {time.time()}\\n'.encode())
    time.sleep(0.15)
    return {'n': p['n'] + 1}
";

fn started(functions: &[(&str, &str)], idle: &str) -> Option<Up> {
    let up = Up::start(Kind::Real)?;
    let base = up.python_base()?;
    up.minik8s(&["function", "base", "python", "-f", &base.display().to_string()]).ok();
    for (name, text) in functions {
        up.minik8s(&["function", "create", name, "-f", &code(&up, name, text), "--idle", idle]).ok();
    }
    Some(up)
}

pub(super) fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "minik8s.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

pub(super) fn apply(up: &Up, objects: &[Value]) {
    let text: Vec<String> = objects.iter().map(Value::to_string).collect();
    up.apply("objects.yaml", &text.join("\n---\n"));
}

fn run_of(workflow: &str, input: &Value) -> Value {
    object("WorkflowRun", workflow, &json!({"workflow": workflow, "input": input}))
}

pub(super) fn runs(up: &Up) -> BTreeMap<String, Value> {
    let listed = up.minik8s(&["get", "workflowruns", "-o", "json"]);
    let list: Value = serde_json::from_str(&listed.out).unwrap_or_default();
    let all = list["items"].as_array().into_iter().flatten();
    all.map(|run| (run["metadata"]["name"].as_str().unwrap_or_default().to_owned(), run["status"].clone())).collect()
}

pub(super) fn is_over(status: &Value) -> bool {
    ["Succeeded", "Failed", "Cancelled"].contains(&status["phase"].as_str().unwrap_or_default())
}

fn all_over(up: &Up, count: usize) -> BTreeMap<String, Value> {
    let mut last = BTreeMap::new();
    let over = || {
        last = runs(up);
        last.len() == count && last.values().all(is_over)
    };
    until("all runs are over", 180, over);
    last
}

fn func(name: &str, function: &str, next: &str) -> Value {
    json!({"name": name, "type": "func", "funcData": {"funcName": function, "nextNodeName": next}})
}

/// What a check says of the one side against the other.
type Holds = fn(Ordering) -> bool;

/// The twelve checks by their names in the first minik8s.
fn checks() -> Vec<(String, Holds)> {
    let of: [(&str, Holds); 6] = [
        ("Equal", |o| o.is_eq()),
        ("NotEqual", |o| o.is_ne()),
        ("GreaterThan", |o| o.is_gt()),
        ("LessThan", |o| o.is_lt()),
        ("GreaterAndEqualThan", |o| o.is_ge()),
        ("LessAndEqualThan", |o| o.is_le()),
    ];
    ["num", "str"].into_iter().flat_map(|t| of.map(|(name, holds)| (format!("{t}{name}"), holds))).collect()
}

/// `function`, then a check of `variable`, then f3 or f1.
fn branch(function: &str, check: &str, variable: &str, value: &Value) -> Value {
    let choice = json!({"trueNextNodeName": "yes", "falseNextNodeName": "no", "checkType": check, "checkVarName": variable, "compareValue": value});
    json!({"entryNodeName": "first", "workflowNodes": [func("first", function, "check"),
        {"name": "check", "type": "choice", "choiceData": choice}, func("yes", "f3", ""), func("no", "f1", "")]})
}

#[test]
fn the_reference_results_and_all_twelve_checks_come_out_of_functions_that_slept() {
    let functions = [("f1", F1), ("f2", F2), ("f3", F3), ("word", WORD)];
    let Some(up) = started(&functions, "3") else { return };
    let point = |x: i64, y: i64| json!({"x": x, "y": y});
    let linear = json!({"entryNodeName": "a", "workflowNodes": [func("a", "f2", "b"), func("b", "f3", "")]});
    let mut objects = vec![
        object("Workflow", "linear", &linear),
        object("Workflow", "branch", &branch("f2", "numGreaterThan", "y", &json!(0))),
        run_of("linear", &point(1, 2)),
        run_of("branch", &point(1, 2)),
        object("WorkflowRun", "branch-2", &json!({"workflow": "branch", "input": point(3, 1)})),
    ];
    let mut want = BTreeMap::from([
        ("linear".to_owned(), point(9, 1)),
        ("branch".into(), point(4, -4)),
        ("branch-2".into(), point(16, 4)),
    ]);
    for (check, holds) in checks() {
        let is_number = check.starts_with("num");
        for side in 0..3_usize {
            let name = format!("{}-{side}", check.to_lowercase());
            // What is checked is -1, or "m".
            let (function, variable) = if is_number { ("f2", "y") } else { ("word", "w") };
            let value = if is_number { json!([-2, -1, 0][side]) } else { json!(["a", "m", "z"][side]) };
            let yes = holds(1_usize.cmp(&side));
            let output = match (is_number, yes) {
                (true, true) => point(9, 1),
                (true, false) => point(4, -4),
                (false, true) => point(1, 4),
                (false, false) => point(-1, 1),
            };
            objects.push(object("Workflow", &name, &branch(function, &check, variable, &value)));
            objects.push(run_of(&name, &point(1, 2)));
            want.insert(name, output);
        }
        // The other type.
        let name = format!("{}-mismatch", check.to_lowercase());
        let (function, variable, value) = if is_number { ("word", "w", json!(0)) } else { ("f2", "y", json!("a")) };
        objects.push(object("Workflow", &name, &branch(function, &check, variable, &value)));
        objects.push(run_of(&name, &point(1, 2)));
        want.insert(name, Value::Null);
    }
    functions.iter().for_each(|(name, _)| asleep(&up, name));
    apply(&up, &objects);
    for (name, status) in all_over(&up, want.len()) {
        let want = &want[&name];
        if want.is_null() {
            let failure = (&status["failure"]["step"], &status["failure"]["error"]);
            assert_eq!(failure, (&json!("check"), &json!("TypeMismatch")), "{name}: {status}");
        } else {
            assert_eq!(&status["output"], want, "{name}: {status}");
        }
    }
}

const STEPS: usize = 8;

/// Steps that follow each other, each of which says of which run it is.
fn chain() -> Value {
    let step = |index: usize| {
        let mut step = json!({"name": format!("s{index}"), "task": {"function": {"name": "counts"}},
            "parameters": {"run": "${run.name}", "step": index, "n": "${input.n}"}});
        let (field, value) =
            if index + 1 < STEPS { ("next", json!(format!("s{}", index + 1))) } else { ("end", json!(true)) };
        step[field] = value;
        step
    };
    json!({"startAt": "s0", "input": {"n": 0}, "steps": (0..STEPS).map(step).collect::<Vec<_>>()})
}

/// The steps of each run in the order in which the function was called.
fn calls(up: &Up) -> BTreeMap<String, Vec<usize>> {
    let log = up.minik8s(&["function", "logs", "counts"]).ok();
    let mut lines: Vec<(f64, String, usize)> = log
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.strip_prefix("CALL ")?.split(' ').collect();
            Some((words.get(2)?.parse().ok()?, words.first()?.to_string(), words.get(1)?.parse().ok()?))
        })
        .collect();
    lines.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut calls = BTreeMap::<String, Vec<usize>>::new();
    lines.into_iter().for_each(|(_, run, step)| calls.entry(run).or_default().push(step));
    calls
}

#[test]
fn a_process_that_is_killed_anywhere_repeats_no_completed_step() {
    const KILLS: usize = 10;
    let Some(mut up) = started(&[("counts", COUNTS)], "600") else { return };
    let mut dice = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_millis() as u64);
    eprintln!("the dice begin with {dice}");
    apply(&up, &[object("Workflow", "chain", &chain())]);
    let (mut begun, mut seen) = (0, 0);
    for kill in 0..KILLS {
        // Something is under way, and has gone on since the last time.
        until_or(
            120,
            || {
                let all = runs(&up);
                if all.values().filter(|status| !is_over(status)).count() < 2 {
                    let run = json!({"workflow": "chain"});
                    apply(&up, &[object("WorkflowRun", &format!("r{begun}"), &run)]);
                    begun += 1;
                    return false;
                }
                let events = all.values().filter_map(|status| status["history"]["events"].as_u64()).sum::<u64>();
                std::mem::replace(&mut seen, events) < events
            },
            || format!("runs go on after kill {kill}: {:?}", runs(&up)),
        );
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (moment, pause) = (Instant::now(), Duration::from_millis((dice >> 33) % 400));
        until("any moment", 60, || moment.elapsed() >= pause);
        up.kill();
        up.run();
    }
    let over = all_over(&up, begun);
    // What a function says comes to its log a moment later.
    let last = |made: &Vec<usize>| made.last() == Some(&(STEPS - 1));
    until("all have logged their last step", 60, || {
        calls(&up).values().filter(|made| last(made)).count() == over.len()
    });
    let calls = calls(&up);
    for (name, status) in over {
        assert_eq!(
            (&status["phase"], &status["output"]),
            (&json!("Succeeded"), &json!({"n": STEPS})),
            "{name}: {status}"
        );
        let made = &calls[&name];
        // A step that was under way when the process died is asked for again. One whose result was written is not: once
        // the next step was called, none before it is.
        assert!(made.windows(2).all(|two| two[0] == two[1] || two[0] + 1 == two[1]), "{name}: {made:?}");
        assert_eq!((made.first(), made.last()), (Some(&0), Some(&(STEPS - 1))), "{name}: {made:?}");
        assert!(made.len() <= STEPS + KILLS, "{name}: {made:?}");
        eprintln!("{name}: {} calls for {STEPS} steps", made.len());
    }
}

#[test]
fn a_container_of_a_step_runs_once_and_its_word_is_the_output() {
    let Some(mut up) = Up::start(Kind::Real) else { return };
    // It ends when it is told to, so that the process can be killed while it runs.
    let script =
        "until [ -e /tmp/now ]; do sleep 0.1; done; echo \"{\\\"was\\\": $WORKFLOW_INPUT}\" > /dev/termination-log";
    let job = json!({"startAt": "work", "input": {"n": 7}, "steps": [
        {"name": "work", "task": {"job": {"image": IMAGE, "command": ["sh", "-c", script]}}, "next": "bad"},
        {"name": "bad", "task": {"job": {"image": IMAGE, "command": ["sh", "-c", "echo no room > /dev/termination-log; exit 3"]}},
            "resultPath": "$.bad", "catch": [{"errors": ["TaskFailed"], "resultPath": "$.failure", "next": "done"}], "next": "done"},
        {"name": "done", "succeed": {}}]});
    apply(&up, &[object("Workflow", "job", &job), run_of("job", &json!({"n": 7}))]);
    let pods = |path: &str| up_get(&up, path);
    until("its container runs", 90, || pods("{.items[*].status.phase}") == "Running");
    let (name, uid) = (pods("{.items[0].metadata.name}"), pods("{.items[0].metadata.uid}"));
    up.kill();
    up.run();
    up.minik8s(&["exec", &name, "--", "touch", "/tmp/now"]).ok();
    let status = all_over(&up, 1).remove("job").unwrap_or_default();
    assert_eq!(status["phase"], "Succeeded", "{status}");
    assert_eq!(status["output"]["was"], json!({"n": 7}), "{status}");
    let failure = &status["output"]["failure"];
    assert_eq!((&failure["error"], &failure["step"]), (&json!("TaskFailed"), &json!("bad")), "{status}");
    assert!(
        failure["cause"].as_str().is_some_and(|cause| cause.contains("ended with 3") && cause.contains("no room")),
        "{status}"
    );
    let all = up_get(&up, "{.items[*].metadata.uid}");
    assert!(all.contains(&uid) && all.split(' ').count() == 2, "one pod for each step: {all}");
    // Pods go with their run.
    up.minik8s(&["delete", "workflowrun", "job"]).ok();
    until("its pods are gone", 60, || up_get(&up, "{.items[*].metadata.name}").is_empty());
}

#[test]
fn a_job_of_a_step_runs_on_its_cluster_and_its_end_is_the_output() {
    let Some(up) = Up::start_with(Kind::Fake, &["--node-name", "node-1", "--local-jobs"]) else { return };
    let job = |name: &str, more: Value| {
        let mut spec = json!({"cluster": "here", "env": [{"name": "OWN", "value": "own"}]});
        more.as_object().into_iter().flatten().for_each(|(field, value)| spec[field] = value.clone());
        let caught = json!([{"errors": ["*"], "resultPath": format!("$.{name}"), "next": if name == "bad" { "wrong" } else { "done" }}]);
        let next = match name {
            "good" => "bad",
            "bad" => "wrong",
            _ => "done",
        };
        json!({"name": name, "task": {"gpuJob": spec}, "resultPath": format!("$.{name}"), "catch": caught, "next": next})
    };
    let checks = r#"test "$WORKFLOW_INPUT" = '{"n":7}' -a "$OWN" = own && echo hello > out.txt"#;
    let steps = json!([
        job("good", json!({"run": checks, "results": ["out.txt"]})),
        job("bad", json!({"run": "exit 3"})),
        job("wrong", json!({"run": "true", "memory": "none"})),
        {"name": "done", "succeed": {}}]);
    let cluster = object("JobCluster", "here", &json!({"local": {"slots": 2}, "pollSeconds": 1}));
    apply(
        &up,
        &[
            cluster,
            object("Workflow", "jobs", &json!({"startAt": "good", "steps": steps})),
            run_of("jobs", &json!({"n": 7})),
        ],
    );
    let status = all_over(&up, 1).remove("jobs").unwrap_or_default();
    let output = &status["output"];
    assert_eq!((&output["good"]["end"], &output["good"]["exitCode"]), (&json!("Completed"), &json!(0)), "{status}");
    let files = output["good"]["files"].as_array().into_iter().flatten();
    assert!(files.clone().any(|file| file["name"] == "results/out.txt" && file["bytes"] == 6), "{status}");
    let name = output["good"]["job"].as_str().unwrap_or_default();
    let fetched = up.files().join("fetched");
    up.minik8s(&["job", "results", name, "-o", &fetched.display().to_string()]).ok();
    assert_eq!(std::fs::read_to_string(fetched.join("out.txt")).unwrap_or_default(), "hello\n");
    assert_eq!(output["bad"]["error"], "TaskFailed", "{status}");
    assert!(output["bad"]["cause"].as_str().is_some_and(|cause| cause.contains("with 3 (Error)")), "{status}");
    assert_eq!(output["wrong"]["error"], "Refused", "what can never be made is not tried again: {status}");
    up.minik8s(&["delete", "workflowrun", "jobs"]).ok();
    until("its jobs are gone", 120, || up.minik8s(&["get", "gpujobs", "-o", "name"]).out.trim().is_empty());
}

fn up_get(up: &Up, path: &str) -> String {
    up.minik8s(&["get", "pods", "-o", &format!("jsonpath={path}")]).out
}
