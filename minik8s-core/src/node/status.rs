//! The status of the node's record, kept true: what it has, and how its parts are.

use super::config::{NodeConfig, architecture, os_image, read};
use super::context::Context;
use super::elsewhere::Elsewhere;
use super::register::register;
use crate::api::{ApiResult, Revision};
use crate::client::{Change, Changes, Informer, PatchType};
use crate::devices::GPU;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long the first status waits for runtime and network to answer. An agent that starts again over parts that work
/// then never says that they do not.
const FIRST_WORD: Duration = Duration::from_secs(2);

/// The conditions that are the agent's.
const OWN: [&str; 5] = ["MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable", "Ready"];
/// The resources that are the agent's; others may add to them.
const AMOUNTS: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "pods"];

/// How a part of the node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Health {
    /// It has not answered yet.
    #[default]
    Unasked,
    Well,
    /// This is wrong.
    Ill(String),
}

/// How the parts of the node are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeHealth {
    pub(crate) runtime: Health,
    pub(crate) network: Health,
}

impl NodeHealth {
    /// Enough is known for a status that will not be taken back at once.
    fn is_known(&self) -> bool {
        let parts = [&self.runtime, &self.network];
        parts.iter().all(|part| **part == Health::Well) || parts.iter().any(|part| matches!(part, Health::Ill(_)))
    }

    fn problem(part: &Health, name: &str) -> Option<String> {
        match part {
            Health::Unasked => Some(format!("{name} has not answered yet")),
            Health::Well => None,
            Health::Ill(why) => Some(why.clone()),
        }
    }
}

/// The status, with conditions that keep their times while they stay the same. So many graphics processors others of this
/// machine have, such as jobs that run beside pods.
pub(crate) fn status(
    config: &NodeConfig,
    runtime: &str,
    health: &NodeHealth,
    elsewhere: usize,
    old: &Node,
    now: Timestamp,
) -> Value {
    let capacity = &config.capacity;
    let kib = |bytes: u64| format!("{}Ki", bytes / 1024);
    let have =
        [cpu(capacity.milli_cpu), kib(capacity.memory_bytes), kib(capacity.ephemeral_bytes), capacity.pods.to_string()];
    let mut amounts: BTreeMap<&str, String> = AMOUNTS.into_iter().zip(have).collect();
    let gpus = config.gpus.as_ref().map_or(0, |gpus| gpus.numbers.len());
    if gpus > 0 {
        amounts.insert(GPU, gpus.to_string());
    }
    let mut allocatable = amounts.clone();
    allocatable.entry(GPU).and_modify(|amount| *amount = gpus.saturating_sub(elsewhere).to_string());
    let mut addresses: Vec<Value> =
        config.addresses.iter().map(|ip| json!({"type": "InternalIP", "address": ip.to_string()})).collect();
    addresses.push(json!({"type": "Hostname", "address": config.hostname}));
    json!({
        "capacity": amounts,
        "allocatable": allocatable,
        "addresses": addresses,
        "conditions": conditions(health, old, now),
        "nodeInfo": {
            "machineID": read("/etc/machine-id").unwrap_or_default(),
            "systemUUID": read("/sys/class/dmi/id/product_uuid").or_else(|| read("/etc/machine-id")).unwrap_or_default(),
            "bootID": read("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            "kernelVersion": read("/proc/sys/kernel/osrelease").unwrap_or_default(),
            "osImage": os_image(),
            "containerRuntimeVersion": runtime,
            "kubeletVersion": config.version,
            "kubeProxyVersion": config.version,
            "operatingSystem": "linux",
            "architecture": architecture(),
        },
    })
}

fn cpu(milli: u64) -> String {
    if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { format!("{milli}m") }
}

fn conditions(health: &NodeHealth, old: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let runtime = NodeHealth::problem(&health.runtime, "the container runtime");
    let network = NodeHealth::problem(&health.network, "the network");
    let problems: Vec<&str> = [&runtime, &network].into_iter().flatten().map(String::as_str).collect();
    let ready = if problems.is_empty() {
        ("True", "KubeletReady", "the node agent is ready".to_owned())
    } else {
        ("False", "KubeletNotReady", problems.join("; "))
    };
    let network = match network {
        Some(why) => ("True", "NetworkNotReady", why),
        None => ("False", "NetworkReady", "the node's network is set up".to_owned()),
    };
    let fine = |reason, text: &str| ("False", reason, text.to_owned());
    let told = [
        fine("KubeletHasSufficientMemory", "the node has sufficient memory available"),
        fine("KubeletHasNoDiskPressure", "the node has no disk pressure"),
        fine("KubeletHasSufficientPID", "the node has sufficient process ids available"),
        network,
        ready,
    ];
    let stated = OWN.into_iter().zip(told);
    stated
        .map(|(kind, (status, reason, message))| {
            let before = old.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == kind);
            let since = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
            let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
            NodeCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_heartbeat_time: Some(now.clone()),
                last_transition_time: since.or(Some(now)),
            }
        })
        .collect()
}

/// Writes the status; answers what the record is now.
async fn write_status(context: &Context, health: &NodeHealth, elsewhere: usize) -> ApiResult<Node> {
    let nodes = context.client.all::<Node>();
    let old = match nodes.get_opt(&context.config.name).await? {
        Some(node) => node,
        None => register(context).await?,
    };
    let now = context.clock.now();
    let status = status(&context.config, &context.runtime_version(), health, elsewhere, &old, now);
    // Conditions of others stay: lists merge by key in a strategic merge patch.
    nodes.patch_status(&context.config.name, PatchType::StrategicMerge, &json!({ "status": status })).await
}

/// Keeps the record's status true: at once when the health changes, others take or give back graphics processors, or the
/// record shows something else than was written, and from time to time. Ends with the agent.
pub(crate) async fn keep_status(
    context: Arc<Context>,
    mut health: watch::Receiver<NodeHealth>,
    record: Informer<Node>,
) {
    let mut changes = record.subscribe();
    // Whatever is known when the time is up is said then.
    let _ = tokio::time::timeout(FIRST_WORD, health.wait_for(NodeHealth::is_known)).await;
    let elsewhere = Elsewhere::watch(&context.config);
    let mut written = None;
    let mut failures = 0;
    loop {
        let now = health.borrow_and_update().clone();
        let others = elsewhere.count().await;
        let wait = match write_status(&context, &now, others).await {
            Ok(node) => {
                failures = 0;
                written = Some(node);
                context.registered.send_replace(true);
                context.config.status_period
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(node = context.config.name, %error, "cannot write the node's status");
                context.retry.delay(failures)
            }
        };
        tokio::select! {
            biased;
            () = tokio::time::sleep(wait) => {}
            changed = health.changed() => if changed.is_err() { return },
            () = elsewhere.differs(others), if failures == 0 => {}
            // While writing fails, its own pace counts.
            () = overwritten(&mut changes, written.as_ref()), if failures == 0 => {
                tracing::info!(node = context.config.name, "somebody else changed the node's status");
            }
        }
    }
}

/// Returns once the record no longer shows what was written: the cluster gave the node up while it could not be
/// reached, or the record is gone.
async fn overwritten(changes: &mut Changes<Node>, written: Option<&Node>) {
    let Some(written) = written else { return std::future::pending().await };
    let name = written.metadata.name.as_deref().unwrap_or_default();
    loop {
        let seen = match changes.next().await {
            Some(Change::Applied { new, .. }) => Some(new),
            Some(Change::Deleted(_)) => None,
            Some(Change::Resync) => changes.informer().get(name),
            None => return std::future::pending().await,
        };
        match seen {
            Some(node) if !differs(written, &node) => {}
            // Someone took the record away, or made it something else.
            _ => return,
        }
    }
}

/// True where a newer record lacks some of what was written. Others may add to it.
fn differs(written: &Node, seen: &Node) -> bool {
    if revision(seen) <= revision(written) {
        return false;
    }
    let (Some(ours), Some(theirs)) = (&written.status, &seen.status) else { return true };
    ours.node_info != theirs.node_info
        || !has_all(&theirs.addresses, &ours.addresses)
        || OWN.iter().any(|kind| told(ours, kind) != told(theirs, kind))
        || lacks(&ours.capacity, &theirs.capacity)
        || lacks(&ours.allocatable, &theirs.allocatable)
}

/// True where amounts of ours are not there as we have them. Processors that nobody has any more go too.
fn lacks(ours: &Option<BTreeMap<String, Quantity>>, theirs: &Option<BTreeMap<String, Quantity>>) -> bool {
    AMOUNTS.into_iter().chain([GPU]).any(|name| amount(ours, name) != amount(theirs, name))
}

/// The store's revision of a record.
fn revision(node: &Node) -> Revision {
    node.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// What a condition says, without its times.
fn told<'a>(status: &'a NodeStatus, kind: &str) -> Option<(&'a str, Option<&'a str>, Option<&'a str>)> {
    let condition = status.conditions.iter().flatten().find(|c| c.type_ == kind)?;
    Some((&condition.status, condition.reason.as_deref(), condition.message.as_deref()))
}

fn amount<'a>(amounts: &'a Option<BTreeMap<String, Quantity>>, name: &str) -> Option<&'a Quantity> {
    amounts.as_ref()?.get(name)
}

fn has_all<T: PartialEq>(have: &Option<Vec<T>>, want: &Option<Vec<T>>) -> bool {
    let have = have.as_deref().unwrap_or_default();
    want.iter().flatten().all(|item| have.contains(item))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_tells_capacity_addresses_and_what_is_wrong() {
        let mut config = NodeConfig::new("n1", "/tmp/x");
        config.capacity.milli_cpu = 2500;
        config.capacity.memory_bytes = 4 << 30;
        let now = Timestamp::from_second(1_000_000).unwrap();
        let old: Node = serde_json::from_value(json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:09Z"}]}}))
        .unwrap();
        let all_well = NodeHealth { runtime: Health::Well, network: Health::Well };
        let well = status(&config, "fake://1", &all_well, 0, &old, now);
        assert_eq!((&well["capacity"]["cpu"], &well["allocatable"]["memory"]), (&json!("2500m"), &json!("4194304Ki")));
        let ready = |status: &Value| {
            let all = status["conditions"].as_array().unwrap().clone();
            all.into_iter().find(|c| c["type"] == "Ready").unwrap()
        };
        assert_eq!(ready(&well)["lastTransitionTime"], json!("1970-01-01T00:00:09Z"));
        let ill = NodeHealth { runtime: Health::Ill("containerd is down".into()), ..all_well };
        let ill = ready(&status(&config, "fake://1", &ill, 0, &old, now));
        assert_eq!((&ill["status"], &ill["message"]), (&json!("False"), &json!("containerd is down")));
        assert_ne!(ill["lastTransitionTime"], json!("1970-01-01T00:00:09Z"));
    }

    #[test]
    fn graphics_processors_that_others_have_are_not_for_pods() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = NodeConfig::new("n1", "/tmp/x");
        let told = |config: &NodeConfig, others: usize| {
            let now = Timestamp::from_second(1).unwrap();
            let status = status(config, "", &NodeHealth::default(), others, &Node::default(), now);
            (status["capacity"][GPU].clone(), status["allocatable"][GPU].clone())
        };
        config.gpus = Some(crate::devices::Gpus::discover(dir.path()));
        assert_eq!(told(&config, 0), (Value::Null, Value::Null));
        ["nvidia0", "nvidia1"].iter().for_each(|name| std::fs::write(dir.path().join(name), "").unwrap());
        config.gpus = Some(crate::devices::Gpus::discover(dir.path()));
        for (others, left) in [(0, "2"), (1, "1"), (2, "0"), (9, "0")] {
            assert_eq!(told(&config, others), (json!("2"), json!(left)), "{others}");
        }
    }

    #[test]
    fn what_has_not_answered_is_not_ready() {
        let node = NodeConfig::new("n1", "/tmp/x");
        let says = |runtime: Health, network: Health| {
            let health = NodeHealth { runtime, network };
            let all = conditions(&health, &Node::default(), Timestamp::from_second(1).unwrap());
            let of = |kind: &str| all.iter().find(|c| c.type_ == kind).map(|c| c.status.clone()).unwrap();
            (of("Ready"), of("NetworkUnavailable"), health.is_known())
        };
        let ill = || Health::Ill("broken".into());
        let table = [
            (Health::Unasked, Health::Unasked, ("False", "True", false)),
            (Health::Well, Health::Unasked, ("False", "True", false)),
            (ill(), Health::Unasked, ("False", "True", true)),
            (Health::Well, ill(), ("False", "True", true)),
            (ill(), Health::Well, ("False", "False", true)),
            (Health::Well, Health::Well, ("True", "False", true)),
        ];
        for (runtime, network, (ready, unavailable, known)) in table {
            let case = format!("{runtime:?} {network:?}");
            assert_eq!(says(runtime, network), (ready.into(), unavailable.into(), known), "{case}");
        }
        let first = status(&node, "", &NodeHealth::default(), 0, &Node::default(), Timestamp::from_second(1).unwrap());
        let text = first["conditions"].to_string();
        assert!(
            text.contains("the container runtime has not answered yet; the network has not answered yet"),
            "{text}"
        );
    }

    #[test]
    fn only_what_others_took_away_is_written_again() {
        type Edit = fn(&mut Value);
        let node = |version: &str, edit: Edit| -> Node {
            let health = NodeHealth { runtime: Health::Well, network: Health::Well };
            let mut config = NodeConfig::new("n1", "/tmp/x");
            config.addresses = vec!["192.168.7.1".parse().unwrap()];
            let now = Timestamp::from_second(1).unwrap();
            let status = status(&config, "fake://1", &health, 0, &Node::default(), now);
            let mut node = json!({"metadata": {"name": "n1", "resourceVersion": version}, "status": status});
            edit(&mut node["status"]);
            serde_json::from_value(node).unwrap()
        };
        let written = node("7", |_| {});
        let table: [(&str, Edit, bool); 8] = [
            ("nothing", |_| {}, false),
            ("a heartbeat", |s| s["conditions"][4]["lastHeartbeatTime"] = json!("2030-01-01T00:00:00Z"), false),
            ("unknown", |s| s["conditions"][4]["status"] = json!("Unknown"), true),
            ("a condition gone", |s| drop(s["conditions"].as_array_mut().unwrap().remove(0)), true),
            ("a condition of others", |s| s["conditions"][0]["type"] = json!("Other"), true),
            ("a resource of others", |s| s["capacity"]["example.com/x"] = json!("1"), false),
            ("less memory", |s| s["allocatable"]["memory"] = json!("1Ki"), true),
            ("no address", |s| s["addresses"] = json!([]), true),
        ];
        for (what, edit, want) in table {
            assert_eq!(differs(&written, &node("8", edit)), want, "{what}");
            assert!(!differs(&written, &node("7", edit)), "{what}: not newer than what was written");
        }
        assert!(differs(&written, &serde_json::from_value(json!({"metadata": {"resourceVersion": "9"}})).unwrap()));
    }
}
