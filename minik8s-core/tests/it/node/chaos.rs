//! The agent is killed again and again at random moments, while pods are made, deleted, crash and vanish and the
//! runtime fails. Then it is left alone, and everything must be as it should.

use super::world::{BOUND, World, condition, first, one, uid};
use k8s_openapi::api::core::v1::Pod;
use minik8s_core::client::ListOptions;
use minik8s_core::network::NetworkPlugin;
use minik8s_core::node::{ATTEMPT, CONTAINER_NAME};
use minik8s_core::runtime::{ContainerState, RuntimeError};
use minik8s_core::testkit::{FakeOp, wait};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const ROUNDS: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_at_any_moment_leaves_no_trace_of_it() {
    let seed = std::env::var("MINIK8S_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("MINIK8S_SEED={seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let mut world = World::new().await;
    let mut made = 0;
    for _ in 0..ROUNDS {
        step(&world, &mut dice, &mut made).await;
        tokio::time::sleep(Duration::from_micros(dice.random_range(0..15_000))).await;
        if dice.random_bool(0.7) {
            world.kill().await;
            never_two(&world);
            if dice.random_bool(0.2) {
                world.runtime.reboot();
            }
            world.start();
        }
    }
    world.runtime.heal();
    settled(&world).await;
    drain(&world).await;
}

/// One thing happens.
async fn step(world: &World, dice: &mut StdRng, made: &mut usize) {
    let pods = world.client.api::<Pod>("default").list(&ListOptions::default()).await.unwrap().items;
    let containers = world.runtime.snapshot();
    let any = |dice: &mut StdRng| containers.get(dice.random_range(0..containers.len().max(1)));
    match dice.random_range(0..10) {
        0..4 if pods.len() < 6 => {
            *made += 1;
            world.create(&format!("p{made}"), one("web:1", &[])).await;
        }
        4 | 5 => {
            if let Some(pod) = pods.get(dice.random_range(0..pods.len().max(1))) {
                world.delete(pod.metadata.name.as_deref().unwrap(), Some(dice.random_range(0..2))).await;
            }
        }
        6 => drop(any(dice).map(|c| world.runtime.exit(&c.id, 1))),
        7 => drop(any(dice).map(|c| world.runtime.vanish(&c.id))),
        8 => {
            let ops = [FakeOp::Create, FakeOp::Start, FakeOp::RunSandbox, FakeOp::Pull, FakeOp::RemoveSandbox];
            let error = RuntimeError::Unavailable { operation: "testing", cause: "chaos".into() };
            world.runtime.fail(ops[dice.random_range(0..ops.len())], "", Some(1), error);
        }
        _ => world.runtime.lose_events(),
    }
}

/// At no moment do two lives of one container run.
fn never_two(world: &World) {
    let mut seen = BTreeSet::new();
    for info in world.runtime.snapshot().iter().filter(|info| info.state == ContainerState::Running) {
        let key = (info.sandbox.clone(), info.labels[CONTAINER_NAME].clone());
        assert!(seen.insert(key), "two lives of {} run at once", info.id);
    }
}

/// Every pod runs, told truthfully, and nothing else is there.
async fn settled(world: &World) {
    let pods = world.client.api::<Pod>("default").list(&ListOptions::default()).await.unwrap().items;
    let alive = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let names: Vec<String> = alive.map(|pod| pod.metadata.name.clone().unwrap()).collect();
    let mut wanted = BTreeMap::new();
    for name in &names {
        let ready = |pod: &Pod| condition(pod, "Ready") == Some(true) && told_truly(world, pod);
        let pod = world.until(name, "is ready and tells the truth", ready).await;
        wanted.insert(uid(&pod), pod);
    }
    wait::until("only the wanted pods are there", BOUND, || async {
        let sandboxes: BTreeSet<String> = world.runtime.sandbox_ids().into_iter().collect();
        let networks: BTreeSet<String> =
            world.network.attachments().await.unwrap().into_iter().map(|network| network.id).collect();
        let uids: BTreeSet<String> = wanted.keys().cloned().collect();
        (sandboxes == uids && networks == uids).then_some(())
    })
    .await;
    never_two(world);
    assert_eq!(wanted.len(), names.len());
}

/// The restart count is the number of the life that runs.
fn told_truly(world: &World, pod: &Pod) -> bool {
    let running: Vec<_> = world
        .runtime
        .snapshot()
        .into_iter()
        .filter(|info| info.sandbox == uid(pod) && info.state == ContainerState::Running)
        .collect();
    let status = first(pod);
    running.len() == 1
        && running[0].labels[ATTEMPT] == status.restart_count.to_string()
        && status.container_id == Some(format!("fake://{}", running[0].id))
}

async fn drain(world: &World) {
    for pod in world.client.api::<Pod>("default").list(&ListOptions::default()).await.unwrap().items {
        let name = pod.metadata.name.unwrap();
        if world.get(&name).await.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none()) {
            world.delete(&name, Some(1)).await;
        }
        world.gone(&name).await;
    }
    world.clean().await;
}
