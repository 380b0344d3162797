//! Which pods leave a node, which stay, and what keeps the node from being drained. Pure.

use serde_json::Value;

/// What the user allows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowed {
    pub(super) ignore_daemonsets: bool,
    pub(super) delete_emptydir_data: bool,
    pub(super) force: bool,
}

/// A pod that leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaving {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

impl Leaving {
    fn of(pod: &Value) -> Self {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
        Self { namespace: text("namespace"), name: text("name"), uid: text("uid") }
    }

    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// The decision about the pods of a node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) leaving: Vec<Leaving>,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
    /// Why nothing may be done, and the way out.
    pub(super) obstacles: Vec<String>,
}

const MIRROR: &str = "kubernetes.io/config.mirror";

/// A peculiarity of a pod that the user has to allow: whether it has it, the flag, what is wrong without it, and what
/// is said with it.
type Peculiar = (fn(&Value) -> bool, &'static str, &'static str, &'static str);

const NEEDS: [Peculiar; 2] = [
    (
        |pod| manager(pod).is_none(),
        "--force",
        "nobody would make these pods again, as no controller owns them",
        "nobody will make these pods again",
    ),
    (
        has_scratch,
        "--delete-emptydir-data",
        "these pods keep data in emptyDir volumes, which would be lost",
        "data in emptyDir volumes of these pods is lost",
    ),
];

/// Decides about the pods of a node.
pub(super) fn choose(pods: &[Value], allowed: Allowed) -> Choice {
    let mut choice = Choice::default();
    let real = pods.iter().filter(|pod| pod["metadata"]["annotations"].get(MIRROR).is_none());
    let (of_nodes, others): (Vec<&Value>, Vec<&Value>) = real.partition(|pod| is_of_nodes(pod) && !has_ended(pod));
    if !of_nodes.is_empty() {
        let names = names(&of_nodes);
        match allowed.ignore_daemonsets {
            true => choice.warnings.push(format!("pods of DaemonSets stay: {names}")),
            false => choice.obstacles.push(format!(
                "DaemonSets would make these pods again at once, so they cannot leave: {names}; \
                 leave them there with --ignore-daemonsets"
            )),
        }
    }
    for (has, flag, without, with) in NEEDS {
        let them: Vec<&Value> = others.iter().copied().filter(|pod| !has_ended(pod) && has(pod)).collect();
        if them.is_empty() {
            continue;
        }
        let names = names(&them);
        let allows = if flag == "--force" { allowed.force } else { allowed.delete_emptydir_data };
        match allows {
            true => choice.warnings.push(format!("{with}: {names}")),
            false => choice.obstacles.push(format!("{without}: {names}; allow it with {flag}")),
        }
    }
    choice.leaving = others.into_iter().map(Leaving::of).collect();
    choice
}

fn names(pods: &[&Value]) -> String {
    pods.iter().map(|pod| Leaving::of(pod).key()).collect::<Vec<_>>().join(", ")
}

fn manager(pod: &Value) -> Option<&Value> {
    pod["metadata"]["ownerReferences"].as_array()?.iter().find(|owner| owner["controller"] == true)
}

/// Its owner puts one on every node, cordoned or not.
fn is_of_nodes(pod: &Value) -> bool {
    manager(pod).is_some_and(|owner| owner["kind"] == "DaemonSet")
}

fn has_scratch(pod: &Value) -> bool {
    let volumes = pod["spec"]["volumes"].as_array();
    volumes.is_some_and(|all| all.iter().any(|volume| volume.get("emptyDir").is_some()))
}

fn has_ended(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, owner: Option<&str>, phase: &str, scratch: bool) -> Value {
        let owners = owner.map(|kind| json!([{"kind": kind, "name": "o", "controller": true}]));
        let volumes = if scratch { json!([{"name": "v", "emptyDir": {}}]) } else { json!([]) };
        json!({"metadata": {"name": name, "namespace": "ns", "uid": name, "ownerReferences": owners},
            "spec": {"volumes": volumes}, "status": {"phase": phase}})
    }

    #[test]
    fn pods_leave_where_the_user_allows_it() {
        let all = Allowed { ignore_daemonsets: true, delete_emptydir_data: true, force: true };
        let none = Allowed::default();
        // the pod, whether it leaves at all; the flag without which nothing happens
        let table = [
            (pod("owned", Some("ReplicaSet"), "Running", false), true, None),
            (pod("of-an-extension", Some("Herd"), "Running", false), true, None),
            (pod("alone", None, "Running", false), true, Some("--force")),
            (pod("alone-ended", None, "Succeeded", true), true, None),
            (pod("scratch", Some("ReplicaSet"), "Running", true), true, Some("--delete-emptydir-data")),
            (pod("daemon", Some("DaemonSet"), "Running", true), false, Some("--ignore-daemonsets")),
            (pod("daemon-ended", Some("DaemonSet"), "Failed", true), true, None),
        ];
        for (pod, leaves, flag) in table {
            let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
            let refused = choose(std::slice::from_ref(&pod), none).obstacles;
            assert_eq!(refused.len(), usize::from(flag.is_some()), "{name}: {refused:?}");
            let names_both = |text: &String| text.contains(&format!("ns/{name}")) && text.contains(flag.unwrap());
            assert!(refused.iter().all(names_both), "{refused:?}");
            let choice = choose(&[pod], all);
            assert_eq!(choice.leaving.len(), usize::from(leaves), "{name}");
            assert!(choice.obstacles.is_empty() && choice.warnings.len() == usize::from(flag.is_some()), "{choice:?}");
        }
    }

    #[test]
    fn mirrors_of_static_pods_are_not_looked_at() {
        let mut mirror = pod("static", None, "Running", true);
        mirror["metadata"]["annotations"] = json!({MIRROR: "x"});
        assert_eq!(choose(&[mirror], Allowed::default()), Choice::default());
    }
}
