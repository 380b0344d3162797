//! Who breaks things: crashes, power cuts, cut networks, machines that come and go. What it breaks it mends after a
//! while, at the latest when the time of faults is over.

use super::components::{Component, Machine};
use super::world::World;
use crate::api::{Gvr, Target};
use crate::client::DeleteOptions;
use crate::runtime::{ContainerState, RuntimeError};
use crate::testkit::FakeOp;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// No outage lasts longer.
const LONGEST: u64 = 40;

/// Breaks things until the time of faults is over; returns when all is mended.
pub(super) async fn play(world: Arc<World>) {
    let mut outages = JoinSet::new();
    let mut next = world.plan.nodes;
    let mut may_leave = world.plan.nodes > 1;
    while world.elapsed() < world.plan.faults {
        sleep(Duration::from_millis(200 + world.below(5_000))).await;
        match world.below(12) {
            0 | 1 => drop(outages.spawn(server(world.clone()))),
            2 | 3 => drop(outages.spawn(manager(world.clone()))),
            4 | 5 => drop(outages.spawn(agent(world.clone()))),
            6 => drop(outages.spawn(power(world.clone()))),
            7 => drop(outages.spawn(partition(world.clone()))),
            8 => trouble(&world),
            9 => container(&world),
            10 if next < world.plan.nodes + 2 => {
                world.fault(&format!("node-{next} joins"));
                if let Err(why) = world.add_machine(next) {
                    world.judge(why);
                }
                next += 1;
            }
            11 if may_leave => {
                may_leave = false;
                outages.spawn(leave(world.clone()));
            }
            _ => {
                let stores = world.servers.stores.lock();
                let index = usize::try_from(world.below(stores.len() as u64)).unwrap_or_default();
                stores[index].cut_watches();
                drop(stores);
                world.fault(&format!("server-{index} loses its watches of the store"));
            }
        }
    }
    outages.join_all().await;
    world.machines.lock().iter().for_each(|machine| machine.runtime.heal());
}

async fn a_while(world: &World, longest: u64) {
    sleep(Duration::from_millis(world.below(longest * 1_000))).await;
}

async fn server(world: Arc<World>) {
    let index = usize::try_from(world.below(world.servers.count() as u64)).unwrap_or_default();
    if world.servers.crash(index) {
        world.fault(&format!("server-{index} crashes"));
        a_while(&world, 8).await;
        world.servers.start(&world, index).await;
        world.fault(&format!("server-{index} starts"));
    }
}

async fn manager(world: Arc<World>) {
    let index = usize::try_from(world.below(world.managers.len() as u64)).unwrap_or_default();
    let Some(manager) = world.managers.get(index) else { return };
    if world.below(2) == 0 {
        return cut(&world, manager, 20).await;
    }
    if manager.crash() {
        world.fault(&format!("{} crashes", manager.name()));
        a_while(&world, 8).await;
        world.fault(&format!("{} starts", manager.name()));
        manager.start_manager(&world);
    }
}

/// A machine that is on and stays.
fn some_machine(world: &World) -> Option<Arc<Machine>> {
    let machines = world.machines.lock().clone();
    let on: Vec<_> = machines.into_iter().filter(|machine| *machine.on.lock()).collect();
    on.get(usize::try_from(world.below(on.len() as u64)).unwrap_or_default()).cloned()
}

async fn agent(world: Arc<World>) {
    let Some(machine) = some_machine(&world).filter(|machine| machine.agent.runs()) else { return };
    machine.agent.crash();
    world.fault(&format!("agent of {} crashes", machine.agent.name()));
    a_while(&world, 10).await;
    // It may have lost power meanwhile, and started with it.
    if !machine.agent.runs() {
        world.fault(&format!("agent of {} starts", machine.agent.name()));
        machine.start_agent(&world);
    }
}

async fn power(world: Arc<World>) {
    let Some(machine) = some_machine(&world) else { return };
    world.fault(&format!("{} loses power", machine.agent.name()));
    machine.power_off();
    a_while(&world, LONGEST).await;
    if !*machine.left.lock() {
        world.fault(&format!("{} boots", machine.agent.name()));
        machine.power_on(&world);
    }
}

async fn partition(world: Arc<World>) {
    if let Some(machine) = some_machine(&world) {
        cut(&world, &machine.agent, LONGEST).await;
    }
}

async fn cut(world: &World, component: &Component, longest: u64) {
    world.fault(&format!("{} is cut off", component.name()));
    component.cut.send_replace(true);
    a_while(world, longest).await;
    world.fault(&format!("{} is connected", component.name()));
    component.cut.send_replace(false);
}

/// A machine goes for good, and somebody deletes its node.
async fn leave(world: Arc<World>) {
    let Some(machine) = some_machine(&world) else { return };
    *machine.left.lock() = true;
    world.fault(&format!("{} leaves", machine.agent.name()));
    machine.power_off();
    a_while(&world, 10).await;
    let admin = Component::new("admin".to_owned(), 0);
    let (client, _alive) = admin.wire(&world);
    let node = Target::object(Gvr::new("", "v1", "nodes"), "", machine.agent.name());
    loop {
        match client.transport().delete(&node, &DeleteOptions::default()).await {
            Ok(_) => return,
            Err(error) if error.is_not_found() => return,
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    }
}

/// A runtime that fails for a while, or loses its listeners.
fn trouble(world: &World) {
    let Some(machine) = some_machine(world) else { return };
    let error = RuntimeError::Unavailable { operation: "anything", cause: "the simulation wants it".to_owned() };
    let times = u32::try_from(1 + world.below(4)).unwrap_or(1);
    let op = match world.below(5) {
        0 => FakeOp::RunSandbox,
        1 => FakeOp::Start,
        2 => FakeOp::Stop,
        3 => FakeOp::Remove,
        _ => FakeOp::RemoveSandbox,
    };
    world.fault(&format!("{}: {op:?} fails {times} times", machine.agent.name()));
    machine.runtime.fail(op, "", Some(times), error);
    machine.runtime.lose_events();
}

/// A container dies.
fn container(world: &World) {
    let Some(machine) = some_machine(world) else { return };
    let all = machine.runtime.snapshot();
    let running: Vec<_> = all.iter().filter(|c| c.state == ContainerState::Running).collect();
    if let Some(victim) = running.get(usize::try_from(world.below(running.len() as u64)).unwrap_or_default()) {
        world.fault(&format!("{}: container {} dies", machine.agent.name(), victim.id));
        machine.runtime.exit(&victim.id, 1);
    }
}
