//! What a compiler of workflows must tell, by field.

use super::compile;
use super::spec::WorkflowSpec;
use serde_json::{Value, json};

fn fields(spec: Value) -> Vec<String> {
    let spec: WorkflowSpec = serde_json::from_value(spec).unwrap();
    compile(&spec).map_or_else(|e| e.0.into_iter().map(|c| c.field).collect(), |_| Vec::new())
}

fn message(spec: Value) -> String {
    let spec: WorkflowSpec = serde_json::from_value(spec).unwrap();
    compile(&spec).unwrap_err().into_error("minik8s.io", "Workflow", "w").message
}

fn steps(steps: Value) -> Value {
    json!({"startAt": "a", "steps": steps})
}

#[test]
fn what_is_wrong_is_told_by_field() {
    let end = |name: &str| json!({"name": name, "pass": {}, "end": true});
    let pass = |name: &str, next: &str| json!({"name": name, "pass": {}, "next": next});
    let choice = |rules: Value| json!({"name": "a", "choice": {"rules": rules, "default": "b"}});
    let table: Vec<(Value, &[&str])> = vec![
        (steps(json!([end("a")])), &[]),
        (json!({}), &["spec.steps"]),
        (json!({"steps": [end("a")]}), &["spec.startAt"]),
        (json!({"startAt": "b", "steps": [end("a")]}), &["spec.startAt"]),
        (steps(json!([pass("a", "x")])), &["spec.steps[0].next"]),
        (steps(json!([end("a"), end("a")])), &["spec.steps[1].name"]),
        (steps(json!([end("a"), end("b")])), &["spec.steps[1].name"]),
        (steps(json!([{"name": "a b/c", "pass": {}, "end": true}])), &["spec.steps[0].name", "spec.startAt"]),
        (steps(json!([pass("a", "b"), pass("b", "a")])), &["spec.steps[0].name", "spec.steps[1].name"]),
        (steps(json!([{"name": "a", "end": true}])), &["spec.steps[0]"]),
        (steps(json!([{"name": "a", "pass": {}, "wait": {"seconds": 1}, "end": true}])), &["spec.steps[0].pass"]),
        (steps(json!([{"name": "a", "pass": {}}])), &["spec.steps[0].next"]),
        (steps(json!([{"name": "a", "pass": {}, "next": "b", "end": true}, end("b")])), &["spec.steps[0].end"]),
        (steps(json!([{"name": "a", "fail": {"error": "E"}, "next": "b"}, end("b")])), &["spec.steps[0].next"]),
        (steps(json!([{"name": "a", "fail": {}}])), &["spec.steps[0].fail.error"]),
        (steps(json!([{"name": "a", "task": {}, "end": true}])), &["spec.steps[0].task"]),
        (
            steps(json!([{"name": "a", "task": {"function": {"name": "A_b"}}, "end": true}])),
            &["spec.steps[0].task.function.name"],
        ),
        (
            steps(
                json!([{"name": "a", "task": {"http": {"url": "ftp://x", "method": "FLY", "headers": {"a b": "c"}}}, "end": true}]),
            ),
            &["spec.steps[0].task.http.url", "spec.steps[0].task.http.method", "spec.steps[0].task.http.headers[a b]"],
        ),
        (steps(json!([{"name": "a", "task": {"job": {}}, "end": true}])), &["spec.steps[0].task.job.image"]),
        (
            steps(json!([{"name": "a", "task": {"gpuJob": {}}, "end": true}])),
            &["spec.steps[0].task.gpuJob.cluster", "spec.steps[0].task.gpuJob.run"],
        ),
        (
            steps(json!([choice(json!([{"when": "input.y >", "next": "b"}])), end("b")])),
            &["spec.steps[0].choice.rules[0].when"],
        ),
        (
            steps(json!([choice(json!([{"when": "y > 0", "next": "b"}])), end("b")])),
            &["spec.steps[0].choice.rules[0].when"],
        ),
        (
            steps(json!([choice(json!([{"when": "true", "next": "x"}])), end("b")])),
            &["spec.steps[0].choice.rules[0].next"],
        ),
        (
            steps(json!([
                choice(json!([{"check": "NumberBigger", "variable": "y", "value": 1, "next": "b"}])),
                end("b")
            ])),
            &["spec.steps[0].choice.rules[0].check"],
        ),
        (
            steps(json!([
                choice(json!([{"check": "NumberLess", "variable": "y", "value": "x", "next": "b"}])),
                end("b")
            ])),
            &["spec.steps[0].choice.rules[0].value"],
        ),
        (steps(json!([choice(json!([{"next": "b"}])), end("b")])), &["spec.steps[0].choice.rules[0]"]),
        (steps(json!([choice(json!([])), end("b")])), &["spec.steps[0].choice.rules"]),
        (steps(json!([{"name": "a", "wait": {}, "end": true}])), &["spec.steps[0].wait"]),
        (steps(json!([{"name": "a", "wait": {"seconds": -1}, "end": true}])), &["spec.steps[0].wait.seconds"]),
        (steps(json!([{"name": "a", "wait": {"until": "tomorrow"}, "end": true}])), &["spec.steps[0].wait.until"]),
        (
            steps(json!([{"name": "a", "pass": {"value": {"b": ["${input.}"]}}, "end": true}])),
            &["spec.steps[0].pass.value.b[0]"],
        ),
        (
            steps(
                json!([{"name": "a", "pass": {}, "inputPath": "x", "resultPath": "$.a[0]", "outputPath": "$.[", "end": true}]),
            ),
            &["spec.steps[0].inputPath", "spec.steps[0].resultPath", "spec.steps[0].outputPath"],
        ),
        (
            steps(
                json!([{"name": "a", "pass": {}, "retry": [{"errors": ["*"]}], "timeoutSeconds": 3, "heartbeatSeconds": 1, "end": true}]),
            ),
            &["spec.steps[0].retry", "spec.steps[0].timeoutSeconds", "spec.steps[0].heartbeatSeconds"],
        ),
        (
            steps(json!([{"name": "a", "task": {"function": {"name": "f"}}, "end": true,
            "retry": [{"errors": [], "maxAttempts": -1, "backoffRate": 0.5, "jitter": "Wild", "intervalSeconds": -1}],
            "catch": [{"errors": ["*"], "next": "x"}]}])),
            &[
                "spec.steps[0].retry[0].errors",
                "spec.steps[0].retry[0].backoffRate",
                "spec.steps[0].retry[0].jitter",
                "spec.steps[0].retry[0].maxAttempts",
                "spec.steps[0].retry[0].intervalSeconds",
                "spec.steps[0].catch[0].next",
            ],
        ),
        (
            steps(json!([{"name": "a", "parallel": {"branches": []}, "end": true}])),
            &["spec.steps[0].parallel.branches"],
        ),
        (
            steps(
                json!([{"name": "a", "parallel": {"branches": [{"startAt": "x", "steps": [pass("x", "a")]}]}, "end": true}]),
            ),
            &["spec.steps[0].parallel.branches[0].steps[0].next"],
        ),
        (
            steps(
                json!([{"name": "a", "map": {"startAt": "x", "steps": [pass("x", "x")], "itemsPath": "l", "maxConcurrency": -1}, "end": true}]),
            ),
            &["spec.steps[0].map.maxConcurrency", "spec.steps[0].map.itemsPath", "spec.steps[0].map.steps[0].name"],
        ),
        (
            json!({"startAt": "a", "steps": [end("a")], "timeoutSeconds": -1, "maxSteps": 0, "keepFinished": -1}),
            &["spec.timeoutSeconds", "spec.maxSteps", "spec.keepFinished"],
        ),
        (json!({"startAt": "a", "steps": [end("a")], "input": 1, "entryParams": "{}"}), &["spec.entryParams"]),
    ];
    for (spec, want) in table {
        assert_eq!(
            fields(spec.clone()),
            want,
            "{spec}: {}",
            if want.is_empty() { String::new() } else { message(spec.clone()) }
        );
    }
}

#[test]
fn a_loop_with_a_way_out_is_fine_one_without_is_not() {
    let again = json!([{"name": "a", "pass": {}, "next": "b"},
        {"name": "b", "choice": {"rules": [{"when": "input.n > 3", "next": "c"}], "default": "a"}}, {"name": "c", "succeed": {}}]);
    assert_eq!(fields(steps(again)), Vec::<String>::new());
    let stuck = json!([{"name": "a", "choice": {"rules": [{"when": "input.n > 3", "next": "b"}], "default": "d"}},
        {"name": "b", "pass": {}, "next": "c"}, {"name": "c", "pass": {}, "next": "b"}, {"name": "d", "succeed": {}}]);
    assert_eq!(fields(steps(stuck.clone())), ["spec.steps[1].name", "spec.steps[2].name"]);
    assert!(message(steps(stuck)).contains("no way out"));
}

#[test]
fn steps_within_steps_have_a_limit() {
    let mut inner = json!({"startAt": "a", "steps": [{"name": "a", "succeed": {}}]});
    for _ in 0..12 {
        inner = steps(json!([{"name": "a", "parallel": {"branches": [inner]}, "end": true}]));
    }
    let told = message(inner);
    assert!(told.contains("deep"), "{told}");
    let many: Vec<_> = (0..600).map(|i| json!({"name": format!("s{i}"), "succeed": {}})).collect();
    assert!(message(json!({"startAt": "s0", "steps": many})).contains("at most 500"));
}

#[test]
fn the_short_shape_is_told_in_its_own_words() {
    let func = |name: &str, next: &str| json!({"name": name, "type": "func", "funcData": {"funcName": "f", "nextNodeName": next}});
    let choice = |check: &str, value: Value| {
        json!({"name": "a", "type": "choice", "choiceData": {"trueNextNodeName": "b",
        "falseNextNodeName": "x", "checkType": check, "checkVarName": "y", "compareValue": value}})
    };
    let nodes = |nodes: Value| json!({"entryNodeName": "a", "workflowNodes": nodes});
    let table: Vec<(Value, &[&str])> = vec![
        (nodes(json!([func("a", "b"), func("b", "")])), &[]),
        (nodes(json!([func("a", "x")])), &["spec.workflowNodes[0].funcData.nextNodeName"]),
        (
            nodes(json!([choice("numEqual", json!(0)), func("b", "")])),
            &["spec.workflowNodes[0].choiceData.falseNextNodeName"],
        ),
        (
            nodes(json!([choice("numBig", json!(0)), func("b", ""), func("x", "")])),
            &["spec.workflowNodes[0].choiceData.checkType"],
        ),
        (
            nodes(json!([choice("numEqual", json!("q")), func("b", ""), func("x", "")])),
            &["spec.workflowNodes[0].choiceData.compareValue"],
        ),
        (nodes(json!([{"name": "a", "type": "loop"}])), &["spec.workflowNodes[0].type"]),
        (nodes(json!([{"name": "a", "type": "func"}])), &["spec.workflowNodes[0].funcData"]),
        (json!({"entryNodeName": "z", "workflowNodes": [func("a", "")]}), &["spec.entryNodeName"]),
        (json!({"entryNodeName": "a", "workflowNodes": [func("a", "")], "entryParams": "{x"}), &["spec.entryParams"]),
    ];
    for (spec, want) in table {
        assert_eq!(fields(spec.clone()), want, "{spec}");
    }
    let mixed = json!({"entryNodeName": "a", "workflowNodes": [func("a", "")], "startAt": "a", "steps": [{"name": "a", "succeed": {}}]});
    assert_eq!(fields(mixed), ["spec.workflowNodes"]);
}

mod hostile {
    use super::*;
    use proptest::prelude::*;

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[$.a-z\\[\\]{}()'*?@!<>=0-9 ]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,3}", inner, 0..4).prop_map(|m| json!(m)),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_expression_path_or_template_makes_the_compiler_panic(text in "[$.a-z\\[\\]{}()'\"*?@!<>=0-9|&+, -]{0,60}", value in json(), check in "[a-zA-Z]{0,12}") {
            let spec = json!({"startAt": "a", "steps": [
                {"name": "a", "choice": {"rules": [{"when": text, "next": "b"}, {"check": check, "variable": text, "value": value, "next": text}], "default": "b"}},
                {"name": "b", "pass": {"value": value}, "parameters": value, "inputPath": text, "outputPath": text, "resultPath": text, "end": true}]});
            let spec: WorkflowSpec = serde_json::from_value(spec).unwrap();
            let _ = compile(&spec);
        }
    }
}
