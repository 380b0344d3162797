//! What must hold after every commit, whatever has failed by then.

use super::components::Machine;
use crate::runtime::ContainerState;
use crate::store::{Event, WatchBatch};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The objects as the store has them.
#[derive(Default)]
pub(super) struct Observed {
    pub(super) objects: BTreeMap<String, Value>,
    revision: u64,
}

pub(super) const PODS: &str = "/registry/core/pods/";
pub(super) const SERVICES: &str = "/registry/core/services/";

/// A text of an object, empty where it has none.
pub(super) fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

impl Observed {
    /// The objects below a prefix.
    pub(super) fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.objects.range(prefix.to_owned()..).take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// Takes in a commit, and says what does not hold with it.
    pub(super) fn add(&mut self, batch: &WatchBatch) -> Result<(), String> {
        if batch.revision < self.revision || (batch.revision == self.revision && !batch.events.is_empty()) {
            return Err(format!("revision {} follows {}", batch.revision, self.revision));
        }
        self.revision = batch.revision;
        for event in batch.events.iter() {
            let key = event.entry().key.to_string();
            if let Event::Delete(_) = event {
                self.objects.remove(&key);
                continue;
            }
            let new: Value = serde_json::from_slice(&event.entry().value).unwrap_or_default();
            if let Some(old) = self.objects.get(&key) {
                keeps_its_past(&key, old, &new)?;
            }
            self.objects.insert(key, new);
        }
        let touched = |prefix: &str| batch.events.iter().any(|event| event.entry().key.starts_with(prefix));
        if touched(PODS) {
            self.pod_addresses()?;
        }
        if touched(SERVICES) {
            self.service_addresses()?;
        }
        Ok(())
    }

    /// No two pods that are not finished have the same address.
    fn pod_addresses(&self) -> Result<(), String> {
        let live = self.below(PODS).filter(|(_, pod)| !is_finished(pod) && pod.pointer("/spec/hostNetwork").is_none());
        unique("pod", live.map(|(key, pod)| (key, text(pod, "/status/podIP").to_owned())))
    }

    /// No two services have the same address, or the same port of nodes.
    fn service_addresses(&self) -> Result<(), String> {
        let all = || self.below(SERVICES);
        unique("service", all().map(|(key, service)| (key, text(service, "/spec/clusterIP").to_owned())))?;
        let ports = |(key, service): (_, &Value)| {
            let ports = service.pointer("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default();
            let numbers = ports.into_iter().filter_map(|port| Some(port.get("nodePort")?.to_string()));
            numbers.map(|port| (key, port)).collect::<Vec<_>>()
        };
        unique("node port", all().flat_map(ports))
    }
}

fn unique<'a>(what: &str, values: impl Iterator<Item = (&'a String, String)>) -> Result<(), String> {
    let mut owners = BTreeMap::new();
    for (key, value) in values.filter(|(_, value)| !value.is_empty() && value != "None") {
        if let Some(other) = owners.insert(value.clone(), key) {
            return Err(format!("{what} {value} belongs to {other} and to {key}"));
        }
    }
    Ok(())
}

pub(super) fn is_finished(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// What an object once was it stays, until it is deleted.
fn keeps_its_past(key: &str, old: &Value, new: &Value) -> Result<(), String> {
    for path in ["/metadata/uid", "/metadata/creationTimestamp"] {
        if text(old, path) != text(new, path) {
            return Err(format!("{key}: {path} {:?} became {:?}", text(old, path), text(new, path)));
        }
    }
    // These are set once.
    for path in ["/spec/nodeName", "/spec/clusterIP"] {
        let (was, is) = (text(old, path), text(new, path));
        if !was.is_empty() && was != is {
            return Err(format!("{key}: {path} {was:?} became {is:?}"));
        }
    }
    if old.pointer("/metadata/deletionTimestamp").is_some() && new.pointer("/metadata/deletionTimestamp").is_none() {
        return Err(format!("{key} was being deleted, and is not any more"));
    }
    let generation =
        |object: &Value| object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default();
    if generation(new) < generation(old) {
        return Err(format!("{key}: generation {} became {}", generation(old), generation(new)));
    }
    if key.starts_with(PODS) && is_finished(old) && text(old, "/status/phase") != text(new, "/status/phase") {
        return Err(format!(
            "{key} had ended as {}, and is {}",
            text(old, "/status/phase"),
            text(new, "/status/phase")
        ));
    }
    Ok(())
}

/// The uids of the pods of which a machine runs containers.
pub(super) fn running_on(machine: &Machine) -> BTreeSet<String> {
    let all = machine.runtime.snapshot();
    let running = all.into_iter().filter(|container| container.state == ContainerState::Running);
    running.filter_map(|container| container.labels.get(crate::node::POD_UID).cloned()).collect()
}

/// No pod runs on two machines.
pub(super) fn on_machines(machines: &[Arc<Machine>]) -> Result<(), String> {
    let mut places: BTreeMap<String, &str> = BTreeMap::new();
    for machine in machines.iter().filter(|machine| *machine.on.lock()) {
        for uid in running_on(machine) {
            if let Some(other) = places.insert(uid.clone(), machine.agent.name()) {
                return Err(format!("pod {uid} runs on {other} and on {}", machine.agent.name()));
            }
        }
    }
    Ok(())
}
