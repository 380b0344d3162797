//! Workflows on an embedded cluster.

use crate::world::{BOUND, World, reference, task};
use minik8s_core::api::Gvr;
use minik8s_core::client::{DeleteOptions, ListOptions, PatchType};
use minik8s_core::clock::ManualClock;
use minik8s_core::controllers::gc::GarbageCollector;
use minik8s_core::controllers::{Controller, KindRef};
use minik8s_core::testkit::faults::FaultyTransport;
use minik8s_core::testkit::wait;
use minik8s_serverless::workflow::machine::{Machine, RunState};
use minik8s_serverless::workflow::{
    CallLimits, Failure, FakeInvoker, Workflow, WorkflowRecord, WorkflowRun, events, program_of,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn branch() -> Value {
    let func = |name: &str, function: &str, next: &str| json!({"name": name, "type": "func", "funcData": {"funcName": function, "nextNodeName": next}});
    json!({"entryNodeName": "n1", "entryParams": "{\"x\": 1, \"y\": 2}", "workflowNodes": [
        func("n1", "f2", "n2"),
        {"name": "n2", "type": "choice", "choiceData": {"trueNextNodeName": "n3", "falseNextNodeName": "n4",
            "checkType": "numGreaterThan", "checkVarName": "y", "compareValue": 0}},
        func("n3", "f3", ""), func("n4", "f1", "")]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reference_results_come_out_of_a_cluster() {
    let world = World::new(reference()).await;
    world.workflow("linear", json!({"startAt": "a", "steps": [task("a", "f2", "b"), task("b", "f3", "")]})).await;
    world.workflow("branch", branch()).await;
    world.begin("one", "linear", json!({"x": 1, "y": 2})).await;
    world.begin("two", "branch", json!({"x": 3, "y": 1})).await;
    let run = json!({"metadata": {"name": "three"}, "spec": {"workflow": "branch"}});
    let run: WorkflowRun = serde_json::from_value(run).unwrap();
    world.client().api::<WorkflowRun>("default").create(&run).await.unwrap();
    for (name, want) in
        [("one", json!({"x": 9, "y": 1})), ("two", json!({"x": 16, "y": 4})), ("three", json!({"x": 4, "y": -4}))]
    {
        let status = world.ended(name).await;
        assert_eq!((status.phase.as_str(), status.output.as_ref()), ("Succeeded", Some(&want)), "{name}: {status:?}");
        assert!(status.started_at.is_some() && status.finished_at.is_some() && status.step.is_empty());
        assert!(world.events(name).await.len() as u64 == status.history.events);
    }
    let uid = world.run("two").await.metadata.uid.unwrap();
    let asked: Vec<_> = world.invoker.asked().into_iter().filter(|key| key.starts_with(&uid)).collect();
    assert_eq!(asked, [format!("{uid}/n1/1"), format!("{uid}/n3/1")], "each step once");
    let steps = world.run("two").await.status.unwrap().steps;
    assert_eq!(steps.keys().collect::<Vec<_>>(), ["n1", "n2", "n3"]);
    assert!(steps.values().all(|step| step.succeeded == 1 && step.running == 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_fails_names_step_and_reason() {
    let world = World::new(reference()).await;
    world.workflow("bad", json!({"startAt": "a", "steps": [task("a", "echo", "c"),
        {"name": "c", "choice": {"rules": [{"check": "NumberGreater", "variable": "y", "value": 0, "next": "e"}], "default": "e"}}, {"name": "e", "succeed": {}}]})).await;
    world.begin("r", "bad", json!({"y": "three"})).await;
    let status = world.ended("r").await;
    let failure = status.failure.unwrap();
    assert_eq!((status.phase.as_str(), failure.step.as_str(), failure.error.as_str()), ("Failed", "c", "TypeMismatch"));
    assert!(status.message.contains("the text \"three\"") && status.message.contains("step c"), "{}", status.message);
    world.workflow("broken", json!({"startAt": "a", "steps": [task("a", "broken", "")]})).await;
    world.begin("s", "broken", json!(null)).await;
    assert_eq!(world.ended("s").await.message, "step a: TaskFailed: it is broken");
    world.workflow("nothing", json!({"startAt": "a", "steps": [task("a", "nowhere", "")]})).await;
    world.begin("t", "nothing", json!(null)).await;
    assert_eq!(world.ended("t").await.failure.unwrap().error, "NotFound");
    world.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_workflow_is_refused_by_field() {
    let world = World::new(reference()).await;
    let api = world.client().api::<Workflow>("default");
    let workflow =
        |spec: Value| serde_json::from_value::<Workflow>(json!({"metadata": {"name": "w"}, "spec": spec})).unwrap();
    let error = api.create(&workflow(json!({"startAt": "a", "steps": [task("a", "f", "b")]}))).await.unwrap_err();
    assert_eq!(error.details.causes[0].field, "spec.steps[0].next");
    let error = api
        .create(&workflow(json!({"entryNodeName": "x", "workflowNodes": branch()["workflowNodes"]})))
        .await
        .unwrap_err();
    assert_eq!(error.details.causes[0].field, "spec.entryNodeName");
    world
        .workflow("w", json!({"startAt": "a", "steps": [{"name": "a", "wait": {"seconds": 3600}, "end": true}]}))
        .await;
    world.begin("r", "w", json!(1)).await;
    let runs = world.client().api::<WorkflowRun>("default");
    let error = runs.patch("r", PatchType::Merge, &json!({"spec": {"input": 2}})).await.unwrap_err();
    assert_eq!(error.details.causes[0].field, "spec.input");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_wait_for_their_workflow_and_can_be_stopped() {
    let world = World::new(reference()).await;
    world.begin("early", "late", json!({"x": 1, "y": 2})).await;
    wait::until("the run says what it waits for", BOUND, || async {
        let status = world.run("early").await.status?;
        (status.phase == "Pending" && status.message.contains("no Workflow \"late\"")).then_some(())
    })
    .await;
    world.workflow("late", json!({"startAt": "a", "steps": [task("a", "f2", "w"), {"name": "w", "wait": {"seconds": 3600}, "end": true}]})).await;
    wait::until("it waits", BOUND, || async { (world.run("early").await.status?.step == "w").then_some(()) }).await;
    let api = world.client().api::<WorkflowRun>("default");
    // The workflow may change or go: the run keeps to what it began with.
    world
        .client()
        .api::<Workflow>("default")
        .patch("late", PatchType::Merge, &json!({"spec": {"startAt": "w", "steps": [{"name": "w", "succeed": {}}]}}))
        .await
        .unwrap();
    api.patch("early", PatchType::Merge, &json!({"spec": {"cancel": true}})).await.unwrap();
    let status = world.ended("early").await;
    assert_eq!((status.phase.as_str(), status.steps["w"].stopped), ("Cancelled", 1));
    world.begin("after", "late", json!(7)).await;
    assert_eq!(world.ended("after").await.output, Some(json!(7)));
    world.stop().await;
}

/// A workflow of everything, whose result does not depend on what happens on the way.
fn everything() -> Value {
    let mut flaky = task("try", "flaky", "mend");
    flaky["retry"] = json!([{"errors": ["*"], "maxAttempts": 4, "intervalSeconds": 0.01}]);
    let mut broken = task("mend", "broken", "never");
    broken["catch"] = json!([{"errors": ["TaskFailed"], "resultPath": "none", "next": "all"}]);
    let branches = json!([{"startAt": "x", "steps": [task("x", "f1", "y"), task("y", "f2", "")]}, {"startAt": "x", "steps": [task("x", "f3", "")]}]);
    json!({"startAt": "a", "steps": [task("a", "f2", "both"),
        {"name": "both", "parallel": {"branches": branches}, "resultPath": "$.both", "next": "pause"},
        {"name": "pause", "wait": {"seconds": 0.02}, "next": "try"}, flaky, broken,
        {"name": "never", "fail": {"error": "Never"}},
        {"name": "all", "map": {"itemsPath": "$.both", "maxConcurrency": 2, "startAt": "x", "steps": [task("x", "f1", "")]}, "outputPath": "$", "end": true}]})
}

/// Functions that check, whenever they are called, that what was committed still waits for them.
fn suspicious(
    world: &Arc<Mutex<Option<minik8s_core::client::Client>>>,
    wrong: &Arc<Mutex<Vec<String>>>,
) -> FakeInvoker {
    let plain = reference();
    let mut invoker = FakeInvoker::new();
    for name in ["f1", "f2", "f3", "flaky", "broken"] {
        let (world, wrong, plain) = (world.clone(), wrong.clone(), plain.clone());
        invoker = invoker.with_async(&format!("default/{name}"), move |call, alive| {
            let (world, wrong, plain) = (world.clone(), wrong.clone(), plain.clone());
            Box::pin(async move {
                use minik8s_serverless::workflow::Invoker;
                let client = world.lock().clone().unwrap();
                let run = client.api::<WorkflowRun>(&call.namespace).get(&call.run).await.unwrap();
                let status = run.status.clone().unwrap_or_default();
                let happened = events(&client, &call.namespace, &status.history).await.unwrap();
                let workflow = program_of(&client, &call.namespace, &status.revision).await.unwrap();
                let (uid, about) = (run.metadata.uid.unwrap(), json!({}));
                let machine = Machine { workflow: &workflow, timeout: None, uid: &uid, about: &about };
                if !machine.outstanding(&RunState::of(&happened)).iter().any(|open| open.key == call.key)
                    && status.phase == "Running"
                {
                    wrong.lock().push(call.key.clone());
                }
                if call.step == "try" {
                    let attempt: u32 = call.key.rsplit('/').next().unwrap().parse().unwrap();
                    return if attempt < 3 { Err(Failure::new("Unavailable", "not yet")) } else { Ok(call.input) };
                }
                plain.invoke(&call, &alive).await
            })
        });
    }
    invoker
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_is_killed_at_every_event_repeats_no_completed_step() {
    let (client, wrong) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
    let mut world = World::new(suspicious(&client, &wrong)).await;
    *client.lock() = Some(world.client());
    world.workflow("all", everything()).await;
    world.begin("calm", "all", json!({"x": 1, "y": 2})).await;
    let calm = world.ended("calm").await;
    assert_eq!(calm.phase, "Succeeded", "{}", calm.message);
    world.kill();
    // One death for every write that there is.
    for writes in 1.. {
        let name = format!("once{writes}");
        world.begin(&name, "all", json!({"x": 1, "y": 2})).await;
        if !world.dies_after(writes, &name).await {
            assert!(writes > 10, "a run of {} events took {writes} writes", calm.history.events);
            break;
        }
        world.start();
        let once = world.ended(&name).await;
        assert_eq!((once.phase.as_str(), &once.output), ("Succeeded", &calm.output), "{name}");
        world.kill();
    }
    // Death after death: whoever takes a run over may only come to write that, and the next one writes what happened.
    world.begin("wild", "all", json!({"x": 1, "y": 2})).await;
    let mut kills = 0;
    while world.dies_after(1 + kills % 2, "wild").await {
        kills += 1;
    }
    let wild = world.ended("wild").await;
    assert_eq!((wild.phase.as_str(), &wild.output), ("Succeeded", &calm.output));
    assert!(kills > 10, "killed {kills} times in {} events", wild.history.events);
    assert_eq!(*wrong.lock(), Vec::<String>::new(), "tasks that were completed were asked for again");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_fails_now_and_then_loses_and_doubles_nothing() {
    let (client, wrong) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
    let mut world = World::new(suspicious(&client, &wrong)).await;
    *client.lock() = Some(world.client());
    world.kill();
    let faulty = FaultyTransport::new(world.cluster.transport(), 7);
    world.start_over(faulty.clone());
    world.workflow("all", everything()).await;
    for run in 0..10 {
        world.begin(&format!("r{run}"), "all", json!({"x": run, "y": 2})).await;
    }
    wait::until("faults have happened", BOUND, || async { (faulty.faults() > 5).then_some(()) }).await;
    faulty.heal();
    for run in 0..10 {
        let status = world.ended(&format!("r{run}")).await;
        assert_eq!(status.phase, "Succeeded", "{}", status.message);
    }
    assert_eq!(*wrong.lock(), Vec::<String>::new());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_controllers_on_one_run_do_not_tear_its_history() {
    let world = World::new(reference()).await;
    let mut other = World::new(FakeInvoker::new()).await;
    // The other's controllers work on the same API.
    other.invoker = world.invoker.clone();
    other.kill();
    other.start_over(world.cluster.transport());
    world.workflow("linear", json!({"startAt": "a", "steps": [task("a", "f2", "b"), task("b", "f3", "")]})).await;
    for run in 0..20 {
        world.begin(&format!("r{run}"), "linear", json!({"x": 1, "y": 2})).await;
    }
    for run in 0..20 {
        let name = format!("r{run}");
        assert_eq!(world.ended(&name).await.output, Some(json!({"x": 9, "y": 1})));
        assert_eq!(world.events(&name).await.len() as u64, world.run(&name).await.status.unwrap().history.events);
    }
    other.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_values_and_long_histories_stand_in_records() {
    let mut world = World::new(reference()).await;
    let echo = |name: &str, next: &str| task(name, "echo", next);
    let mut map = json!({"name": "m", "map": {"itemsPath": "$.items", "startAt": "x", "steps": [echo("x", "")], "maxConcurrency": 5}, "resultPath": "$.items", "next": "w"});
    map["comment"] = json!("a hundred items are a long history");
    world.workflow("big", json!({"startAt": "a", "steps": [echo("a", "m"), map, {"name": "w", "wait": {"seconds": 0.2}, "next": "z"}, echo("z", "")]})).await;
    let items: Vec<Value> = (0..100).map(|i| json!({"i": i, "text": "x".repeat(100)})).collect();
    let input = json!({"items": items, "large": "ä".repeat(300_000), "$record": "not one"});
    world.begin("r", "big", input.clone()).await;
    wait::until("it waits", BOUND, || async { (world.run("r").await.status?.step == "w").then_some(()) }).await;
    let run = world.run("r").await;
    let size = serde_json::to_string(&run.status).unwrap().len();
    assert!(size < 100_000, "the status has {size} bytes");
    world.kill();
    world.start();
    let status = world.ended("r").await;
    assert_eq!(status.phase, "Succeeded", "{}", status.message);
    assert!(status.output.clone().unwrap().get("$record").is_some(), "too large to stand here");
    let events = world.events("r").await;
    assert_eq!(RunState::of(&events).output, Some(input));
    assert!(status.history.tail.len() <= 64 && !status.history.sealed.is_empty());
    let records = world.client().api::<WorkflowRecord>("default").list(&ListOptions::default()).await.unwrap().items;
    let uid = run.metadata.uid;
    assert!(
        records
            .iter()
            .filter(|r| r.metadata.owner_references.iter().flatten().any(|o| Some(&o.uid) == uid.as_ref()))
            .count()
            > 3,
        "they go with the run"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_runs_go_side_by_side() {
    let world = World::new(reference()).await;
    world.workflow("branch", branch()).await;
    for run in 0..300 {
        world.begin(&format!("r{run}"), "branch", json!({"x": run, "y": 1})).await;
    }
    for run in 0..300_i64 {
        let (x, y) = (run + 1, run - 1);
        let want = if y > 0 { json!({"x": x * x, "y": y * y}) } else { json!({"x": x - y, "y": y - x}) };
        assert_eq!(world.ended(&format!("r{run}")).await.output, Some(want), "{run}");
    }
    assert_eq!(world.invoker.asked().len(), 600, "each step of each run once");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_must_give_signs_of_life_and_are_dropped_when_nobody_waits() {
    let (dropped, seen) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    struct Gone(Arc<Mutex<u32>>);
    impl Drop for Gone {
        fn drop(&mut self) {
            *self.0.lock() += 1;
        }
    }
    let invoker = reference()
        .with_async("default/silent", {
            let dropped = dropped.clone();
            move |_, _| {
                let gone = Gone(dropped.clone());
                Box::pin(async move {
                    let _gone = gone;
                    std::future::pending().await
                })
            }
        })
        .with_async("default/alive", {
            let seen = seen.clone();
            move |_, alive| {
                let seen = seen.clone();
                Box::pin(async move {
                    for _ in 0..8 {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        alive.beat();
                        *seen.lock() += 1;
                    }
                    Ok(json!("done"))
                })
            }
        });
    let world = World::new(invoker).await;
    for (name, function, timeout) in [
        ("silent", "silent", "heartbeatSeconds"),
        ("alive", "alive", "heartbeatSeconds"),
        ("slow", "silent", "timeoutSeconds"),
    ] {
        let mut step = task("a", function, "");
        step[timeout] = json!(if name == "alive" { 5.0 } else { 0.3 });
        world.workflow(name, json!({"startAt": "a", "steps": [step]})).await;
        world.begin(name, name, json!(null)).await;
    }
    assert_eq!(world.ended("silent").await.failure.unwrap().error, "HeartbeatTimeout");
    assert_eq!(world.ended("slow").await.failure.unwrap().error, "Timeout");
    assert_eq!(world.ended("alive").await.output, Some(json!("done")));
    wait::until("what timed out is dropped", BOUND, || async { (*dropped.lock() == 2).then_some(()) }).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_whose_tasks_never_end_keeps_no_other_one_waiting() {
    let hangs = reference().with_async("default/hangs", |_, _| Box::pin(std::future::pending()));
    let mut world = World::new(hangs).await;
    world.kill();
    world.limits = CallLimits { at_once: 4, ..CallLimits::default() };
    world.start();
    let many = json!({"itemsPath": "$", "startAt": "x", "steps": [task("x", "hangs", "")]});
    world.workflow("hangs", json!({"startAt": "all", "steps": [{"name": "all", "map": many, "end": true}]})).await;
    world.workflow("quick", json!({"startAt": "a", "steps": [task("a", "f2", "b"), task("b", "f3", "")]})).await;
    world.begin("r", "hangs", json!([1, 2, 3, 4, 5, 6, 7, 8, 9])).await;
    wait::until("some of them are under way", BOUND, || async { (world.invoker.asked().len() >= 2).then_some(()) })
        .await;
    world.begin("other", "quick", json!({"x": 1, "y": 2})).await;
    assert_eq!(world.ended("other").await.output, Some(json!({"x": 9, "y": 1})));
    let uid = world.run("r").await.metadata.uid.unwrap();
    assert_eq!(world.invoker.asked().iter().filter(|key| key.starts_with(&uid)).count(), 2, "half is for others");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_tells_of_its_functions_and_runs_and_keeps_only_some() {
    let world = World::new(reference()).await;
    world.workflow("w", json!({"keepFinished": 3, "startAt": "a", "steps": [task("a", "echo", "")]})).await;
    wait::until("it says what is missing", BOUND, || async {
        let workflow = world.client().api::<Workflow>("default").get("w").await.unwrap();
        let condition = workflow.status?.conditions.into_iter().find(|c| c.type_ == "FunctionsFound")?;
        (condition.status == "False" && condition.message == "there is no Function default/echo").then_some(())
    })
    .await;
    let function = json!({"apiVersion": "minik8s.io/v1alpha1", "kind": "Function", "metadata": {"name": "echo"}, "spec": {"image": "echo:1"}});
    let function: minik8s_serverless::functions::api::Function = serde_json::from_value(function).unwrap();
    world.client().api("default").create(&function).await.unwrap();
    for run in 0..6 {
        world.begin(&format!("r{run}"), "w", json!(run)).await;
        world.ended(&format!("r{run}")).await;
    }
    wait::until("it knows, and the oldest went", BOUND, || async {
        let status = world.client().api::<Workflow>("default").get("w").await.unwrap().status?;
        let runs = world.client().api::<WorkflowRun>("default").list(&ListOptions::default()).await.unwrap();
        (status.conditions[0].status == "True" && status.succeeded == 3 && runs.items.len() == 3).then_some(())
    })
    .await;
    world.client().api::<WorkflowRun>("default").delete("r5", &DeleteOptions::default()).await.unwrap();
    wait::until("it counts again", BOUND, || async {
        (world.client().api::<Workflow>("default").get("w").await.unwrap().status?.succeeded == 2).then_some(())
    })
    .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_outlives_its_workflow_and_what_it_kept_of_it_goes_with_the_last_run() {
    let mut world = World::new(reference()).await;
    let workflows = world.client().api::<Workflow>("default");
    let records = world.client().api::<WorkflowRecord>("default");
    let count = async || records.list(&ListOptions::default()).await.unwrap().items.len();
    world
        .workflow(
            "w",
            json!({"startAt": "a", "steps": [{"name": "a", "wait": {"seconds": 1}, "next": "b"}, task("b", "f2", "")]}),
        )
        .await;
    world.begin("r", "w", json!({"x": 1, "y": 2})).await;
    wait::until("it waits", BOUND, || async { (world.run("r").await.status?.step == "a").then_some(()) }).await;
    world.kill();
    workflows.delete("w", &DeleteOptions::default()).await.unwrap();
    // With the loop that lets dependents of what is gone go.
    let kind = |resource: &'static str, kind: &'static str| KindRef {
        gvr: Gvr::new("minik8s.io", "v1alpha1", resource),
        kind: kind.into(),
        namespaced: true,
    };
    let kinds = vec![
        kind("workflows", "Workflow"),
        kind("workflowruns", "WorkflowRun"),
        kind("workflowrecords", "WorkflowRecord"),
    ];
    let collector = GarbageCollector { workers: 2, kinds: Arc::new(kinds) };
    let collector: Arc<dyn Controller> = Arc::new(collector);
    world.start_with(vec![collector.clone()]);
    assert_eq!(world.ended("r").await.output, Some(json!({"x": 3, "y": -1})));
    assert_eq!(count().await, 1, "the program can still be looked at");
    // A revision that was just kept is nobody's who has not said so yet: it goes when it is older.
    world.kill();
    world.clock = Arc::new(ManualClock::new(jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)));
    world.start_with(vec![collector]);
    world.client().api::<WorkflowRun>("default").delete("r", &DeleteOptions::default()).await.unwrap();
    wait::until("nothing is left", BOUND, || async { (count().await == 0).then_some(()) }).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_records_are_gone_ends_and_says_so() {
    let mut world = World::new(reference()).await;
    world
        .workflow("w", json!({"startAt": "a", "steps": [{"name": "a", "wait": {"seconds": 3600}, "end": true}]}))
        .await;
    world.begin("r", "w", json!(1)).await;
    wait::until("it waits", BOUND, || async { (world.run("r").await.status?.step == "a").then_some(()) }).await;
    world.kill();
    let revision = world.run("r").await.status.unwrap().revision;
    world.client().api::<WorkflowRecord>("default").delete(&revision, &DeleteOptions::default()).await.unwrap();
    world.start();
    let status = world.ended("r").await;
    assert_eq!((status.phase.as_str(), status.failure.unwrap().error.as_str()), ("Failed", "HistoryLost"));
    assert!(status.message.contains(&revision), "{}", status.message);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_that_are_too_large_together_fail_the_step() {
    let large = |_: &Value| Ok(json!("x".repeat(3 << 20)));
    let world = World::new(reference().with("default/large", large)).await;
    let branch = |function: &str| json!({"startAt": "x", "steps": [task("x", function, "")]});
    let both = |function: &str, catch: bool| {
        let mut step = json!({"name": "both", "parallel": {"branches": vec![branch(function); 4]}, "end": true});
        if catch {
            step["catch"] = json!([{"errors": ["TooLarge"], "resultPath": "$", "next": "said"}]);
        }
        json!({"startAt": "first", "steps": [task("first", "large", "both"), step, {"name": "said", "pass": {"value": "${input.step}"}, "end": true}]})
    };
    let mut plain = both("large", false);
    plain["steps"].as_array_mut().unwrap().pop();
    world.workflow("plain", plain).await;
    world.workflow("caught", both("large", true)).await;
    // Four times the same large input is no large value.
    let mut small = both("f0", false);
    small["steps"].as_array_mut().unwrap().pop();
    small["steps"][1]["parallel"]["branches"] =
        json!(vec![json!({"startAt": "x", "steps": [{"name": "x", "pass": {"value": 1}, "end": true}]}); 8]);
    world.workflow("shared", small).await;
    for name in ["plain", "caught", "shared"] {
        world.begin(name, name, json!(null)).await;
    }
    let failed = world.ended("plain").await;
    let failure = failed.failure.unwrap();
    assert_eq!((failure.step.as_str(), failure.error.as_str()), ("both", "TooLarge"), "{}", failed.message);
    assert_eq!(world.ended("caught").await.output, Some(json!("both")));
    assert_eq!(world.ended("shared").await.output, Some(json!([1, 1, 1, 1, 1, 1, 1, 1])));
    world.stop().await;
}
