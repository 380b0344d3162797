//! What the cluster's own components may do, as tables.

use super::Attributes;

/// One sentence: these verbs on these resources (`pods`, `pods/status`) of a group.
pub(super) struct Rule {
    pub(super) group: &'static str,
    pub(super) resources: &'static [&'static str],
    pub(super) verbs: &'static [&'static str],
}

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch"];

/// The scheduler reads what pods and nodes are about, binds pods, and makes room for them.
pub(super) static SCHEDULER: [Rule; 8] = [
    Rule { group: "", resources: &["pods", "nodes", "namespaces", "services"], verbs: READ },
    Rule { group: "", resources: &["pods"], verbs: &["delete"] },
    Rule { group: "", resources: &["pods/binding", "bindings"], verbs: &["create"] },
    Rule { group: "", resources: &["pods/status"], verbs: &["update", "patch"] },
    Rule { group: "scheduling.k8s.io", resources: &["priorityclasses"], verbs: READ },
    Rule { group: "policy", resources: &["poddisruptionbudgets"], verbs: READ },
    Rule { group: "", resources: &["events"], verbs: WRITE },
    Rule { group: "events.k8s.io", resources: &["events"], verbs: WRITE },
];

/// What every process of the cluster that stands for election may do besides.
pub(super) static ELECTION: [Rule; 1] = [Rule {
    group: "coordination.k8s.io",
    resources: &["leases"],
    verbs: &["get", "list", "watch", "create", "update", "patch"],
}];

/// True where one of the rules allows it.
pub(super) fn allow(rules: &[Rule], asked: &Attributes<'_>) -> bool {
    let Some(target) = asked.target else { return false };
    let resource = match &target.subresource {
        Some(sub) => format!("{}/{sub}", target.gvr.resource),
        None => target.gvr.resource.to_string(),
    };
    rules.iter().any(|rule| {
        rule.group == target.gvr.group && rule.resources.contains(&&*resource) && rule.verbs.contains(&asked.verb)
    })
}

/// True for the paths that everyone known may read: what there is, and which version.
pub(super) fn is_discovery(asked: &Attributes<'_>) -> bool {
    let first = asked.path.split('/').find(|part| !part.is_empty()).unwrap_or_default();
    let known = ["api", "apis", "openapi", "version", "healthz", "livez", "readyz"];
    asked.target.is_none() && matches!(asked.verb, "get" | "head") && known.contains(&first)
}
