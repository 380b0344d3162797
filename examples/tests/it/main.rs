//! Every example runs, and says what it should.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

use minik8s_core::testkit::need::{self, Need};
use std::process::Command;

fn run(program: &str) -> String {
    let output = Command::new(program).output().expect("the example starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} failed:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn embed_runs_a_deployment_on_two_nodes() {
    let text = run(env!("CARGO_BIN_EXE_embed"));
    assert!(text.contains("web: 3 of 3 available"), "{text}");
    assert!(text.contains("runs on node-1") && text.contains("runs on node-2"), "{text}");
}

#[test]
fn a_scheduler_plugin_places_pods() {
    let text = run(env!("CARGO_BIN_EXE_scheduler_plugin"));
    assert_eq!(text.matches("sits in the reading-room").count(), 3, "{text}");
}

#[test]
fn a_custom_store_sees_every_write() {
    let text = run(env!("CARGO_BIN_EXE_custom_store"));
    let maps = text.lines().find(|l| l.starts_with("configmaps:")).unwrap_or_default();
    let count: usize = maps.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or_default();
    assert!(count >= 5, "{text}");
}

#[test]
fn a_workflow_calls_functions_of_the_program_and_is_drawn() {
    let text = run(env!("CARGO_BIN_EXE_workflow"));
    assert!(text.contains("Succeeded: [\"a letter\",\"5 in a box\"]"), "{text}");
    assert!(text.contains("✓ wrap") && text.contains("price > 20"), "{text}");
}

#[test]
fn the_cuda_example_computes_what_it_should_and_compiles_for_several_generations() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/check-cuda.sh");
    let found = Command::new(script).arg("--find").output().expect("the script starts").status.success();
    if !found && !need::met(&[Need::Program("nvcc")]) {
        return;
    }
    let output = Command::new(script).output().expect("the script starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for (what, times) in [("add 33x33 on", 1), ("multiply 33x33 on", 1), ("verified", 8), ("matrix.cu for sm_", 4)] {
        let found = text.matches(what).count();
        assert!(found >= times, "{what} stands there {found} times: {text}");
    }
    assert!(!text.contains("WRONG"), "{text}");
}
