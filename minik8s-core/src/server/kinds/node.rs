//! `Node`: a machine that runs pods.

use super::cells::{AGE, NAME, NONE, column, wide};
use super::util::{items, names, text};
use crate::api::{ApiResult, Gvr};
use crate::clock::rfc3339;
use crate::server::{Claim, Column, FieldErrors, Kind, KindNames, SelectableField, WriteContext};
use async_trait::async_trait;
use serde_json::Value;

const ROLE_LABEL: &str = "node-role.kubernetes.io/";
/// The space of claims of pod ranges.
const RANGES: &str = "podcidr";
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(crate) struct NodeKind(KindNames);

impl NodeKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("", "v1", "nodes"), "Node", &["no"], false, false))
    }
}

static COLUMNS: [Column; 10] = [
    NAME,
    column("Status", |o, _| status(o).into()),
    column("Roles", |o, _| roles(o).into()),
    AGE,
    column("Version", |o, _| text(o, "/status/nodeInfo/kubeletVersion").into()),
    wide("Internal-IP", |o, _| address(o, "InternalIP").into()),
    wide("External-IP", |o, _| address(o, "ExternalIP").into()),
    wide("OS-Image", |o, _| or_unknown(o, "/status/nodeInfo/osImage").into()),
    wide("Kernel-Version", |o, _| or_unknown(o, "/status/nodeInfo/kernelVersion").into()),
    wide("Container-Runtime", |o, _| or_unknown(o, "/status/nodeInfo/containerRuntimeVersion").into()),
];

static FIELDS: [SelectableField; 1] =
    [SelectableField { path: "spec.unschedulable", value: |o| unschedulable(o).to_string() }];

#[async_trait]
impl Kind for NodeKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.core.v1.Node"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn keeps_status(&self) -> bool {
        true
    }

    fn desired<'a>(&self, _: &'a Value) -> Option<&'a Value> {
        None
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn fields(&self) -> &'static [SelectableField] {
        &FIELDS
    }

    async fn admit(&self, new: &mut Value, old: Option<&Value>, ctx: &dyn WriteContext) -> ApiResult<()> {
        stamp_taints(new, old, &rfc3339(ctx.now()));
        Ok(())
    }

    /// No two nodes have the same range.
    fn claims(&self, object: &Value) -> Vec<Claim> {
        let field = || "spec.podCIDRs".to_owned();
        ranges(object).map(|range| Claim { space: RANGES, value: range.to_owned(), field: field() }).collect()
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        validate_ranges(new, old, errors);
        for (index, taint) in items(new, "/spec/taints").enumerate() {
            let at = format!("spec.taints[{index}]");
            for why in crate::api::names::qualified_name(text(taint, "/key")) {
                errors.invalid(format!("{at}.key"), &text(taint, "/key").into(), &why);
            }
            let effect = text(taint, "/effect");
            if !EFFECTS.contains(&effect) {
                errors.unsupported(format!("{at}.effect"), effect, &EFFECTS);
            }
            let same = |t: &&Value| text(t, "/key") == text(taint, "/key") && text(t, "/effect") == effect;
            if items(new, "/spec/taints").take(index).any(|t| same(&t)) {
                errors.duplicate(at, taint);
            }
        }
    }
}

/// When a taint came that makes pods leave decides when those leave that tolerate it for a while: whoever sets one
/// without its time gets it from here, and one that stays keeps it.
fn stamp_taints(new: &mut Value, old: Option<&Value>, now: &str) {
    let taints = new.pointer_mut("/spec/taints").and_then(Value::as_array_mut).into_iter().flatten();
    for taint in taints.filter(|t| text(t, "/effect") == "NoExecute" && text(t, "/timeAdded").is_empty()) {
        let same = |t: &&Value| ["/key", "/value", "/effect"].iter().all(|at| text(t, at) == text(taint, at));
        let before = old.and_then(|old| items(old, "/spec/taints").find(same)).map(|t| text(t, "/timeAdded"));
        let at = before.filter(|at| !at.is_empty()).unwrap_or(now);
        super::util::set(taint, "timeAdded", at.into());
    }
}

fn ranges(node: &Value) -> impl Iterator<Item = &str> {
    let all = items(node, "/spec/podCIDRs").filter_map(Value::as_str);
    let first = text(node, "/spec/podCIDR");
    let beside = !items(node, "/spec/podCIDRs").any(|range| range == first) && !first.is_empty();
    beside.then_some(first).into_iter().chain(all)
}

/// Ranges are ranges, and stay: pods have addresses of them.
fn validate_ranges(new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
    for (index, range) in ranges(new).enumerate() {
        if range.parse::<ipnet::IpNet>().is_ok_and(|net| net.trunc() == net) {
            continue;
        }
        let why = "must be a valid CIDR block, (e.g. 10.9.8.0/24)";
        errors.invalid(format!("spec.podCIDRs[{index}]"), &range.into(), why);
    }
    let first = items(new, "/spec/podCIDRs").next().and_then(Value::as_str);
    if first.is_some_and(|first| first != text(new, "/spec/podCIDR")) {
        errors.invalid("spec.podCIDRs", &new["spec"]["podCIDRs"], "its first must be the same as podCIDR");
    }
    let held: Vec<&str> = old.into_iter().flat_map(ranges).collect();
    if !held.is_empty() && held != ranges(new).collect::<Vec<_>>() {
        let why = "node updates may not change podCIDR except from \"\" to valid; a node that is deleted gets another";
        errors.forbidden("spec.podCIDRs", why);
    }
}

fn unschedulable(node: &Value) -> bool {
    node.pointer("/spec/unschedulable") == Some(&Value::Bool(true))
}

fn status(node: &Value) -> String {
    let ready = items(node, "/status/conditions").find(|c| text(c, "/type") == "Ready");
    let word = match ready.map(|c| text(c, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if unschedulable(node) { format!("{word},SchedulingDisabled") } else { word.to_owned() }
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<String> = Vec::new();
    for (label, value) in node.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten() {
        match (label.strip_prefix(ROLE_LABEL), label.as_str(), value.as_str()) {
            (Some(role), _, _) if !role.is_empty() => roles.push(role.to_owned()),
            (_, "kubernetes.io/role", Some(role)) if !role.is_empty() => roles.push(role.to_owned()),
            _ => {}
        }
    }
    roles.sort();
    roles.dedup();
    if roles.is_empty() { NONE.to_owned() } else { roles.join(",") }
}

fn address(node: &Value, kind: &str) -> String {
    let found = items(node, "/status/addresses").find(|a| text(a, "/type") == kind);
    found.map_or(NONE, |a| text(a, "/address")).to_owned()
}

fn or_unknown(node: &Value, pointer: &str) -> String {
    let found = text(node, pointer);
    if found.is_empty() { "<unknown>".to_owned() } else { found.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn taints_that_make_pods_leave_get_their_time_once() {
        let taint = |key: &str, effect: &str| json!({"key": key, "effect": effect});
        let mut new = json!({"spec": {"taints": [taint("a", "NoExecute"), taint("b", "NoSchedule")]}});
        stamp_taints(&mut new, None, "first");
        let want = json!([{"key": "a", "effect": "NoExecute", "timeAdded": "first"}, taint("b", "NoSchedule")]);
        assert_eq!(new["spec"]["taints"], want);
        let mut again = json!({"spec": {"taints": [taint("c", "NoExecute"), taint("a", "NoExecute")]}});
        stamp_taints(&mut again, Some(&new), "later");
        let times: Vec<_> = items(&again, "/spec/taints").map(|t| text(t, "/timeAdded")).collect();
        assert_eq!(times, ["later", "first"]);
    }

    #[test]
    fn status_and_roles() {
        let node = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "worker"}},
            "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(
            (status(&node).as_str(), roles(&node).as_str()),
            ("Ready,SchedulingDisabled", "control-plane,worker")
        );
        assert_eq!((status(&json!({})).as_str(), roles(&json!({})).as_str()), ("Unknown", "<none>"));
        assert_eq!(address(&node, "InternalIP"), "<none>");
    }
}
