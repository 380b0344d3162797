//! The examples of the guide, run as they stand there.

use crate::world::{World, reference};
use minik8s_core::api::{Gvr, Target};
use minik8s_core::client::{Payload, WriteOptions};
use serde_json::Value;

const GUIDE: &str = include_str!("../../../docs/workflows.md");

/// Blocks of a language, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    let start = format!("```{language}\n");
    GUIDE.split(start.as_str()).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guides_examples_do_what_it_says() {
    let world = World::new(reference()).await;
    let manifests: Vec<&str> = blocks("yaml").into_iter().flat_map(|block| block.split("\n---\n")).collect();
    assert!(manifests.len() >= 8);
    for manifest in manifests {
        let resource = if manifest.contains("kind: Trigger") { "triggers" } else { "workflows" };
        let mut target = Target::all(Gvr::new("minik8s.io", "v1alpha1", resource));
        target.namespace = Some("default".to_owned());
        let body = Payload::Yaml(manifest.as_bytes().to_vec().into());
        let strict =
            WriteOptions { field_validation: minik8s_core::client::FieldValidation::Strict, ..WriteOptions::default() };
        let made = world.client().transport().create(&target, body, &strict).await;
        made.unwrap_or_else(|e| panic!("{e}\n{manifest}"));
    }
    let runs = blocks("json");
    assert!(runs.len() >= 4);
    for (index, run) in runs.into_iter().enumerate() {
        let run: Value = serde_json::from_str(run).unwrap();
        let (name, workflow) = (format!("run-{index}"), run["workflow"].as_str().unwrap());
        let body =
            serde_json::json!({"metadata": {"name": name}, "spec": {"workflow": workflow, "input": run.get("input")}});
        let body = serde_json::from_value(body).unwrap();
        world.client().api::<minik8s_serverless::workflow::WorkflowRun>("default").create(&body).await.unwrap();
        let status = world.ended(&name).await;
        assert_eq!(status.output.as_ref(), Some(&run["output"]), "{workflow}: {}", status.message);
    }
    world.stop().await;
}
