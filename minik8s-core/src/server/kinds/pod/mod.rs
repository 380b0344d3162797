//! `Pod`: containers that live and die together on one node.

mod columns;
mod eviction;
mod status_cell;
mod update;

use super::pod_template::{Use, default_spec, qos_class, validate_spec};
use super::util::{child, items, names, set, set_default, text, unset};
use crate::api::{ApiError, ApiResult, Gvr};
use crate::clock::rfc3339;
use crate::server::{
    ActionNames, Beside, Column, DeletionRule, Effect, FieldErrors, Kind, KindNames, SelectableField, WriteContext,
};
use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Taints that mean a node is gone; a pod bears them for a while.
const NODE_GONE: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const DEFAULT_GRACE: i64 = 30;

pub(crate) struct PodKind(KindNames);

impl PodKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("", "v1", "pods"), "Pod", &["po"], true, true))
    }
}

const fn field(path: &'static str, value: fn(&Value) -> String) -> SelectableField {
    SelectableField { path, value }
}

static FIELDS: [SelectableField; 9] = [
    field("spec.nodeName", |o| text(o, "/spec/nodeName").to_owned()),
    field("spec.restartPolicy", |o| text(o, "/spec/restartPolicy").to_owned()),
    field("spec.schedulerName", |o| text(o, "/spec/schedulerName").to_owned()),
    field("spec.serviceAccountName", |o| text(o, "/spec/serviceAccountName").to_owned()),
    field("spec.hostNetwork", |o| (o.pointer("/spec/hostNetwork") == Some(&Value::Bool(true))).to_string()),
    field("status.phase", |o| text(o, "/status/phase").to_owned()),
    field("status.podIP", |o| text(o, "/status/podIP").to_owned()),
    field("status.podIPs", |o| items(o, "/status/podIPs").map(|ip| text(ip, "/ip")).collect::<Vec<_>>().join(",")),
    field("status.nominatedNodeName", |o| text(o, "/status/nominatedNodeName").to_owned()),
];

const fn action(
    name: &'static str,
    group: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
) -> ActionNames {
    ActionNames { name, group, version: "v1", kind, verbs }
}

static ACTIONS: [ActionNames; 6] = [
    action("attach", "", "PodAttachOptions", &["create", "get"]),
    action("binding", "", "Binding", &["create"]),
    action("eviction", "policy", "Eviction", &["create"]),
    action("exec", "", "PodExecOptions", &["create", "get"]),
    action("log", "", "Pod", &["get"]),
    action("portforward", "", "PodPortForwardOptions", &["create", "get"]),
];

#[async_trait]
impl Kind for PodKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.core.v1.Pod"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn actions(&self) -> &'static [ActionNames] {
        &ACTIONS
    }

    fn columns(&self) -> &'static [Column] {
        &columns::COLUMNS
    }

    fn fields(&self) -> &'static [SelectableField] {
        &FIELDS
    }

    fn indexed_fields(&self) -> &'static [&'static str] {
        &["spec.nodeName"]
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = child(object, "spec") {
            default_spec(spec);
            set_default(spec, "enableServiceLinks", true);
        }
    }

    async fn admit(&self, new: &mut Value, old: Option<&Value>, ctx: &dyn WriteContext) -> ApiResult<()> {
        if old.is_some() {
            return Ok(());
        }
        super::priority_class::resolve(new, ctx).await?;
        let class = qos_class(new.get("spec").unwrap_or(&Value::Null));
        set(new, "status", json!({"phase": "Pending", "qosClass": class}));
        if let Some(spec) = child(new, "spec") {
            super::util::default_text(spec, "serviceAccountName", "default");
            super::util::default_text(spec, "serviceAccount", "default");
            bear_lost_nodes(spec, [ctx.settings().not_ready_seconds, ctx.settings().unreachable_seconds]);
        }
        Ok(())
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        validate_spec("spec", new.get("spec").unwrap_or(&Value::Null), Use::Pod, errors);
        if let Some(old) = old {
            update::validate(new, old, errors);
        }
    }

    fn deletion(&self) -> DeletionRule {
        DeletionRule { answers_object: true, grace }
    }

    fn act(&self, action: &str, body: &Value, object: &Value, now: Timestamp) -> ApiResult<Effect> {
        match action {
            "binding" => bind(&self.0.gvr, body, object, now).map(Effect::Update),
            "eviction" => Ok(Effect::Delete(eviction::options(body)?, eviction::leaving(object, now))),
            other => Err(ApiError::bad_request(format!("{other} is a stream: ask for it with GET"))),
        }
    }

    async fn beside(&self, action: &str, object: &Value, ctx: &dyn WriteContext) -> ApiResult<Option<Beside>> {
        if action != "eviction" {
            return Ok(None);
        }
        let gvr = super::pod_disruption_budget::gvr();
        let budgets = ctx.all_in(&gvr, text(object, "/metadata/namespace")).await?;
        let paid = eviction::pay(object, budgets, ctx.now())?;
        Ok(paid.map(|object| Beside { gvr, object }))
    }
}

/// Pods that nobody runs go at once.
fn grace(object: &Value) -> i64 {
    let over = matches!(text(object, "/status/phase"), "Succeeded" | "Failed");
    if text(object, "/spec/nodeName").is_empty() || over {
        return 0;
    }
    object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(DEFAULT_GRACE)
}

/// A pod bears the loss of its node for a while, where it does not say otherwise.
fn bear_lost_nodes(spec: &mut Value, seconds: [i64; 2]) {
    set_default(spec, "tolerations", json!([]));
    let Some(tolerations) = spec.get_mut("tolerations").and_then(Value::as_array_mut) else { return };
    for (key, seconds) in NODE_GONE.into_iter().zip(seconds) {
        let borne = tolerations.iter().any(|t| {
            let (of, effect) = (text(t, "/key"), text(t, "/effect"));
            (of == key || of.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !borne {
            tolerations.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": seconds}));
        }
    }
}

fn bind(gvr: &Gvr, body: &Value, object: &Value, now: Timestamp) -> ApiResult<Value> {
    let (name, node) = (text(object, "/metadata/name"), text(body, "/target/name"));
    let kind = text(body, "/target/kind");
    if node.is_empty() || !(kind.is_empty() || kind == "Node") {
        return Err(ApiError::bad_request(format!("a Binding of pod {name} must name a Node as its target")));
    }
    let refuse = |why: String| {
        let mut place = gvr.clone();
        place.resource = "pods/binding".into();
        Err(ApiError::conflict(&place, name, &why))
    };
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let bound = text(object, "/spec/nodeName");
    if !bound.is_empty() {
        return refuse(format!("pod {name} is already assigned to node \"{bound}\""));
    }
    let mut new = object.clone();
    if let Some(spec) = child(&mut new, "spec") {
        set(spec, "nodeName", node.into());
    }
    for extra in ["labels", "annotations"] {
        for (key, value) in body.pointer(&format!("/metadata/{extra}")).and_then(Value::as_object).into_iter().flatten()
        {
            if let Some(map) = new.get_mut("metadata").and_then(|m| child(m, extra)) {
                set(map, key, value.clone());
            }
        }
    }
    if let Some(status) = child(&mut new, "status") {
        scheduled(status, now);
    }
    Ok(new)
}

fn scheduled(status: &mut Value, now: Timestamp) {
    let condition =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": rfc3339(now)});
    set_default(status, "conditions", json!([]));
    let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) else { return };
    conditions.retain(|c| text(c, "/type") != "PodScheduled");
    conditions.push(condition);
    unset(status, "nominatedNodeName");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_is_for_pods_that_somebody_runs() {
        let pod = |node: &str, phase: &str| json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 7}, "status": {"phase": phase}});
        assert_eq!(grace(&pod("", "Pending")), 0);
        assert_eq!(grace(&pod("n1", "Running")), 7);
        assert_eq!(grace(&pod("n1", "Succeeded")), 0);
    }

    #[test]
    fn own_tolerations_of_a_lost_node_are_kept() {
        let mut spec = json!({"tolerations": [{"key": NODE_GONE[0], "operator": "Exists", "tolerationSeconds": 5}]});
        bear_lost_nodes(&mut spec, [300, 60]);
        let keys: Vec<_> = items(&spec, "/tolerations").map(|t| text(t, "/key")).collect();
        assert_eq!(keys, NODE_GONE);
        let seconds: Vec<_> = items(&spec, "/tolerations").map(|t| t["tolerationSeconds"].clone()).collect();
        assert_eq!(seconds, [5, 60]);
        let mut all = json!({"tolerations": [{"operator": "Exists"}]});
        bear_lost_nodes(&mut all, [300, 300]);
        assert_eq!(items(&all, "/tolerations").count(), 1);
    }
}
