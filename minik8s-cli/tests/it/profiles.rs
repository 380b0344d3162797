//! Schedulers from a configuration file.

use super::harness::{Kind, Up, minik8s, until};

const PROFILES: &str = "apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: default-scheduler
- schedulerName: turns
  plugins: {score: {disabled: [{name: '*'}], enabled: [{name: RoundRobin}]}}
";

#[test]
fn profiles_of_the_scheduler_come_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("scheduler.yaml");
    std::fs::write(&file, PROFILES).unwrap();
    let path = file.display().to_string();
    let Some(up) = Up::start_with(Kind::Fake, &["--node-name", "node-1", "--scheduler-config", &path]) else { return };
    let pod = |name: &str, scheduler: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{schedulerName: {scheduler}, containers: [{{name: c, image: a}}]}}\n"
        )
    };
    for (name, scheduler) in [("stranger", "nobody"), ("one", "default-scheduler"), ("two", "turns")] {
        up.apply(&format!("{name}.yaml"), &pod(name, scheduler));
    }
    for name in ["one", "two"] {
        until("it runs", 60, || up.minik8s(&["get", "pod", name]).out.contains("Running"));
    }
    let stranger = up.minik8s(&["get", "pod", "stranger", "-o", "jsonpath={.status}"]).ok();
    assert!(stranger.contains("Pending") && !stranger.contains("conditions"), "nobody touches it: {stranger}");

    let data = dir.path().join("data").display().to_string();
    let refused = |text: &str| {
        std::fs::write(&file, text).unwrap();
        minik8s(&["up", "--data-dir", &data, "--scheduler-config", &path]).refused()
    };
    let told = refused(&PROFILES.replace("name: RoundRobin", "name: RoundRobbin"));
    for part in
        ["scheduler.yaml", "profiles[1].plugins.score.enabled", "\"RoundRobbin\"", "RoundRobin, TaintToleration"]
    {
        assert!(told.contains(part), "{part:?} is not in\n{told}");
    }
    let both = minik8s(&["up", "--scheduler-policy", "Random", "--scheduler-config", &path]).refused();
    assert!(both.contains("cannot be used with"), "{both}");
}
