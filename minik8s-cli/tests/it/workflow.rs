//! `minik8s workflow` on a running cluster, and kubectl on its kinds.

use super::harness::{Kind, Up, have_kubectl, until};

const COUNT: &str = "apiVersion: minik8s.io/v1alpha1
kind: Workflow
metadata: {name: count}
spec:
  startAt: square
  input: {list: [1, 2, 3]}
  steps:
  - name: square
    map:
      itemsPath: $.list
      startAt: one
      steps: [{name: one, pass: {value: '${input * input}'}, end: true}]
    next: enough
  - name: enough
    choice:
      rules: [{when: 'input.size() > 2', next: done}]
      default: few
  - {name: few, fail: {error: TooFew, cause: there must be three}}
  - {name: done, succeed: {}}
---
apiVersion: minik8s.io/v1alpha1
kind: Workflow
metadata: {name: sleep}
spec: {startAt: a, steps: [{name: a, wait: {seconds: 3600}, end: true}]}
";

const OLD: &str = "kind: Workflow
apiVersion: v1
metadata: {name: workflow-example, namespace: default}
spec:
  entryParams: '{\"x\": 1, \"y\": 2}'
  entryNodeName: node1
  workflowNodes:
  - name: node1
    type: choice
    choiceData: {trueNextNodeName: node2, falseNextNodeName: node2, checkType: strGreaterThan, checkVarName: y, compareValue: 0}
  - {name: node2, type: func, funcData: {funcName: func1, funcNamespace: default}}
";

#[test]
fn runs_are_begun_followed_drawn_and_stopped() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    up.apply("workflows.yaml", COUNT);
    let said = up.minik8s(&["workflow", "run", "count", "--name", "good"]).ok();
    assert_eq!(said.split_whitespace().collect::<String>(), "[1,4,9]");
    let refused = up.minik8s(&["workflow", "run", "count", "--name", "bad", "-i", "{\"list\": [1]}"]).refused();
    assert!(refused.contains("the run bad is Failed: step few: TooFew: there must be three"), "{refused}");
    assert!(up.minik8s(&["workflow", "run", "nothing"]).refused().contains("not found"));
    assert!(up.minik8s(&["workflow", "run", "count", "-i", "{"]).refused().contains("not JSON"));
    let runs = up.minik8s(&["workflow", "get"]).ok();
    assert!(runs.contains("PHASE") && runs.contains("good") && runs.contains("Failed"), "{runs}");
    let one = up.minik8s(&["wf", "get", "good"]).ok();
    assert!(one.contains("Succeeded") && one.contains("square/one"), "{one}");
    let lines = up.minik8s(&["workflow", "logs", "good"]).ok();
    assert!(
        lines.contains("the run began") && lines.contains("square/2/one: done: 9") && lines.contains("the run is done"),
        "{lines}"
    );
    let picture = up.minik8s(&["workflow", "graph", "bad"]).ok();
    assert!(picture.contains("✗ few") && picture.contains("○ done") && picture.contains("size() > 2"), "{picture}");
    let file = up.files().join("count.svg");
    up.minik8s(&["workflow", "graph", "count", "--svg", file.to_str().unwrap()]).ok();
    assert!(std::fs::read_to_string(file).unwrap().starts_with("<svg"));
    up.minik8s(&["workflow", "run", "sleep", "--name", "long", "--no-wait"]).ok();
    up.minik8s(&["workflow", "cancel", "long"]).ok();
    until("the run is stopped", 60, || {
        up.minik8s(&["get", "wfr", "long", "-o", "jsonpath={.status.phase}"]).ok() == "Cancelled"
    });
    assert!(up.minik8s(&["workflow", "cancel", "long"]).refused().contains("the run long is over: it is Cancelled"));
    if have_kubectl() {
        let table = up.kubectl(&["get", "workflowruns"]).ok();
        assert!(
            table.lines().next().is_some_and(|head| head.contains("WORKFLOW") && head.contains("DURATION")),
            "{table}"
        );
        let described = up.kubectl(&["describe", "workflowrun", "bad"]).ok();
        assert!(described.contains("TooFew") && described.contains("RunFailed"), "{described}");
    }
}

#[test]
fn it_is_said_what_a_run_waits_for_that_does_not_go_on() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    let call = "apiVersion: minik8s.io/v1alpha1
kind: Workflow
metadata: {name: calls}
spec:
  startAt: ask
  steps: [{name: ask, task: {function: {name: nothing}}, timeoutSeconds: 20, end: true}]
";
    up.apply("calls.yaml", call);
    let ran = up.minik8s(&["workflow", "run", "calls"]);
    for part in ["waiting for ask", "there is no function default/nothing", "no node's gateway listens", "Timeout"] {
        assert!(ran.err.contains(part), "{part}: {ran:?}");
    }
}

#[test]
fn a_workflow_of_the_first_minik8s_applies_and_a_mismatch_of_types_names_step_and_reason() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    up.apply("old.yaml", OLD);
    let refused = up.minik8s(&["workflow", "run", "workflow-example"]).refused();
    assert!(refused.contains("step node1: TypeMismatch") && refused.contains("the number 2"), "{refused}");
    let wrong = OLD.replace("entryNodeName: node1", "entryNodeName: node9");
    assert!(up.minik8s_with(&["apply", "-f", "-"], &wrong).refused().contains("spec.entryNodeName"));
}
