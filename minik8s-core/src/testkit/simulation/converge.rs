//! What must have come about some time after the faults have ended.

use super::components::Machine;
use super::invariants::{Observed, PODS, SERVICES, is_finished, running_on, text};
use super::world::World;
use crate::network::NetworkPlugin;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const DEPLOYMENTS: &str = "/registry/apps/deployments/";
const NODES: &str = "/registry/core/nodes/";
const SLICES: &str = "/registry/discovery.k8s.io/endpointslices/";
const ADDRESSES: &str = "/registry/~claims/";

/// Waits until all is as it should be; fails with what is not.
pub(super) async fn wait(world: &World) -> Result<(), String> {
    let end = Instant::now() + world.plan.settle;
    loop {
        let machines = world.machines.lock().clone();
        let missing = match on_machines(&world.observed, &machines).await {
            Ok(()) => in_store(&world.observed.lock()),
            other => other,
        };
        let Err(why) = missing else { return Ok(()) };
        if Instant::now() >= end {
            return Err(format!("{:?} after the faults had ended: {why}", world.plan.settle));
        }
        sleep(Duration::from_secs(1)).await;
    }
}

fn number(object: &Value, path: &str) -> i64 {
    object.pointer(path).and_then(Value::as_i64).unwrap_or_default()
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    let all = object.pointer("/status/conditions").and_then(Value::as_array);
    let found = all.into_iter().flatten().find(|condition| text(condition, "/type") == kind);
    found.map_or("", |condition| text(condition, "/status"))
}

fn in_store(observed: &Observed) -> Result<(), String> {
    owners(observed)?;
    deployments(observed)?;
    pods(observed)?;
    services(observed)
}

/// Nothing has an owner that is gone, and nothing is left half deleted.
fn owners(observed: &Observed) -> Result<(), String> {
    let uids: BTreeSet<&str> = observed.objects.values().map(|object| text(object, "/metadata/uid")).collect();
    for (key, object) in &observed.objects {
        let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        if let Some(gone) = owners.into_iter().flatten().find(|owner| !uids.contains(text(owner, "/uid"))) {
            return Err(format!("{key} is owned by {} {}, which is gone", text(gone, "/kind"), text(gone, "/name")));
        }
        if object.pointer("/metadata/deletionTimestamp").is_some() {
            return Err(format!("{key} is still being deleted"));
        }
    }
    Ok(())
}

fn deployments(observed: &Observed) -> Result<(), String> {
    for (key, deployment) in observed.below(DEPLOYMENTS) {
        let wanted = number(deployment, "/spec/replicas");
        let counts = ["replicas", "updatedReplicas", "availableReplicas"];
        let counts = counts.map(|count| number(deployment, &format!("/status/{count}")));
        let current = number(deployment, "/status/observedGeneration") == number(deployment, "/metadata/generation");
        let name = text(deployment, "/metadata/name");
        let live =
            observed.below(PODS).filter(|(_, pod)| text(pod, "/metadata/labels/app") == name && !is_finished(pod));
        let live = i64::try_from(live.count()).unwrap_or_default();
        if !current || counts != [wanted; 3] || live != wanted {
            return Err(format!("{key} wants {wanted} replicas, has {counts:?} and {live} pods (seen: {current})"));
        }
    }
    Ok(())
}

fn pods(observed: &Observed) -> Result<(), String> {
    let nodes: BTreeSet<&str> = observed.below(NODES).map(|(_, node)| text(node, "/metadata/name")).collect();
    for (key, pod) in observed.below(PODS) {
        let node = text(pod, "/spec/nodeName");
        if !nodes.contains(node) {
            return Err(format!("{key} is bound to the node {node:?}, which does not exist"));
        }
        if !is_finished(pod) && condition(pod, "Ready") != "True" {
            return Err(format!("{key} on {node} is not ready: {}", pod.get("status").unwrap_or(&Value::Null)));
        }
    }
    for (key, node) in observed.below(NODES) {
        let taints = node.pointer("/spec/taints").and_then(Value::as_array).map_or(0, Vec::len);
        if condition(node, "Ready") != "True" || taints > 0 {
            return Err(format!("{key} is ready: {:?}, with {taints} taints", condition(node, "Ready")));
        }
    }
    Ok(())
}

/// Every service leads to its pods and to no others, and no address is held for nobody.
fn services(observed: &Observed) -> Result<(), String> {
    for (key, service) in observed.below(SERVICES) {
        let app = text(service, "/spec/selector/app");
        if app.is_empty() {
            continue;
        }
        let of_app = |pod: &Value| text(pod, "/metadata/labels/app") == app && !is_finished(pod);
        let pods = observed.below(PODS).filter(|(_, pod)| of_app(pod));
        let wanted: BTreeSet<String> = pods.map(|(_, pod)| text(pod, "/status/podIP").to_owned()).collect();
        let name = text(service, "/metadata/name");
        let own = |slice: &Value| text(slice, "/metadata/labels/kubernetes.io~1service-name") == name;
        let slices = observed.below(SLICES).filter(|(_, slice)| own(slice));
        let endpoints = slices.filter_map(|(_, slice)| slice.get("endpoints")?.as_array()).flatten();
        let is: BTreeSet<String> = endpoints.map(|endpoint| text(endpoint, "/addresses/0").to_owned()).collect();
        if is != wanted {
            return Err(format!("{key} leads to {is:?}, its pods are {wanted:?}"));
        }
    }
    for (key, _) in observed.below(ADDRESSES) {
        // Below the name of what is held: an address, a port, a range.
        let held = key.strip_prefix(ADDRESSES).and_then(|rest| rest.split_once('/')).map_or("", |(_, held)| held);
        let holders = observed.below(SERVICES).chain(observed.below(NODES));
        let used = holders.into_iter().any(|(_, holder)| holder.to_string().contains(held));
        if !used {
            return Err(format!("{key} is held for nobody"));
        }
    }
    Ok(())
}

/// Machines run the pods that are bound to them, whole, and nothing is left of any other.
async fn on_machines(observed: &parking_lot::Mutex<Observed>, machines: &[Arc<Machine>]) -> Result<(), String> {
    let mut wanted: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
    for (_, pod) in observed.lock().below(PODS) {
        let uid = text(pod, "/metadata/uid").to_owned();
        wanted.entry(text(pod, "/spec/nodeName").to_owned()).or_default().insert(uid, !is_finished(pod));
    }
    for machine in machines.iter().filter(|machine| *machine.on.lock()) {
        let name = machine.agent.name();
        let of_node = wanted.remove(name).unwrap_or_default();
        let (running, live) = (running_on(machine), of_node.iter().filter(|(_, live)| **live).map(|(uid, _)| uid));
        if let Some(idle) = live.into_iter().find(|uid| !running.contains(*uid)) {
            return Err(format!("{name} runs no container of its pod {idle}"));
        }
        let attached = machine.network.attachments().await.map_err(|e| e.to_string())?;
        let kept = machine.runtime.snapshot().into_iter().filter_map(|c| c.labels.get(crate::node::POD_UID).cloned());
        let left = kept.chain(attached.into_iter().map(|network| network.id)).chain(machine.runtime.sandbox_ids());
        if let Some(stray) = left.into_iter().find(|uid| !of_node.contains_key(uid)) {
            return Err(format!("{name} still has something of the pod {stray}, which is not bound to it"));
        }
    }
    Ok(())
}
