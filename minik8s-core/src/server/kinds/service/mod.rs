//! `Service`: one name and one address in front of many pods.

mod allocate;
mod columns;
mod validate;

use super::util::{child, default_text, items, items_mut, names, number, set, set_default, text, unset};
use crate::api::{ApiResult, Gvr};
use crate::server::{
    Claim, Column, DeletionRule, FieldErrors, Kind, KindNames, NameRule, SelectableField, WriteContext,
};
use async_trait::async_trait;
use serde_json::{Value, json};

/// The claim on a cluster address.
const ADDRESSES: &str = "clusterip";
/// The claim on a node port.
const NODE_PORTS: &str = "nodeport";
/// What stands for an address in a headless service.
const HEADLESS: &str = "None";
/// How long a client stays with its endpoint.
const AFFINITY_SECONDS: i64 = 10_800;

pub(crate) struct ServiceKind(KindNames);

impl ServiceKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("", "v1", "services"), "Service", &["svc"], true, true))
    }
}

static FIELDS: [SelectableField; 2] = [
    SelectableField { path: "spec.clusterIP", value: |o| text(o, "/spec/clusterIP").to_owned() },
    SelectableField { path: "spec.type", value: |o| text(o, "/spec/type").to_owned() },
];

#[async_trait]
impl Kind for ServiceKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.core.v1.Service"
    }

    fn name_rule(&self) -> NameRule {
        NameRule::ServiceLabel
    }

    fn has_status(&self) -> bool {
        true
    }

    fn desired<'a>(&self, _: &'a Value) -> Option<&'a Value> {
        None
    }

    fn columns(&self) -> &'static [Column] {
        &columns::COLUMNS
    }

    fn fields(&self) -> &'static [SelectableField] {
        &FIELDS
    }

    fn deletion(&self) -> DeletionRule {
        DeletionRule { answers_object: true, grace: |_| 0 }
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = child(object, "spec") {
            default_spec(spec);
        }
        set_default(object, "status", json!({"loadBalancer": {}}));
    }

    async fn admit(&self, new: &mut Value, old: Option<&Value>, ctx: &dyn WriteContext) -> ApiResult<()> {
        if let Some(old) = old {
            keep_allocated(new, old);
        }
        let mut errors = FieldErrors::default();
        allocate::allocate(new, old, ctx, &mut errors).await?;
        if errors.0.is_empty() {
            return Ok(());
        }
        Err(crate::server::verbs::invalid(self, text(new, "/metadata/name"), errors.0))
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        validate::validate(new, old, errors);
    }

    fn claims(&self, object: &Value) -> Vec<Claim> {
        let addresses = items(object, "/spec/clusterIPs").filter_map(Value::as_str).filter(|ip| *ip != HEADLESS);
        let mut claims: Vec<Claim> = addresses
            .map(|ip| Claim { space: ADDRESSES, value: ip.to_owned(), field: "spec.clusterIPs".into() })
            .collect();
        for (index, port) in items(object, "/spec/ports").enumerate() {
            if let Some(n) = number(port, "/nodePort").filter(|n| *n != 0) {
                let field = format!("spec.ports[{index}].nodePort");
                claims.push(Claim { space: NODE_PORTS, value: n.to_string(), field });
            }
        }
        claims
    }
}

/// True for types that are reached from outside through a port of every node.
fn has_node_ports(spec: &Value) -> bool {
    matches!(text(spec, "/type"), "NodePort" | "LoadBalancer")
}

fn default_spec(spec: &mut Value) {
    default_text(spec, "type", "ClusterIP");
    default_text(spec, "sessionAffinity", "None");
    if text(spec, "/sessionAffinity") == "ClientIP" {
        let client = child(spec, "sessionAffinityConfig").and_then(|c| child(c, "clientIP"));
        if let Some(client) = client {
            set_default(client, "timeoutSeconds", AFFINITY_SECONDS);
        }
    } else {
        unset(spec, "sessionAffinityConfig");
    }
    for port in items_mut(spec, "ports") {
        default_text(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or(Value::Null);
        let target = port.get("targetPort");
        if target.is_none_or(|t| t.is_null() || t == 0 || t == "") {
            set(port, "targetPort", number);
        }
    }
    if text(spec, "/type") == "ExternalName" {
        return;
    }
    default_text(spec, "internalTrafficPolicy", "Cluster");
    if has_node_ports(spec) {
        default_text(spec, "externalTrafficPolicy", "Cluster");
    } else if text(spec, "/externalTrafficPolicy") == "Cluster" {
        unset(spec, "externalTrafficPolicy");
    }
    if text(spec, "/type") == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// What was allocated stays, where the writer did not say otherwise.
fn keep_allocated(new: &mut Value, old: &Value) {
    let (Some(spec), Some(before)) = (new.get_mut("spec"), old.get("spec")) else { return };
    if text(spec, "/type") == "ExternalName" {
        return;
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if let Some(value) = before.get(field) {
            set_default(spec, field, value.clone());
        }
    }
    if text(spec, "/clusterIP").is_empty() && !text(before, "/clusterIP").is_empty() {
        set(spec, "clusterIP", text(before, "/clusterIP").into());
    }
    if !has_node_ports(spec) || !has_node_ports(before) {
        return;
    }
    let same = |a: &Value, b: &Value| a.get("port") == b.get("port") && a.get("protocol") == b.get("protocol");
    for port in items_mut(spec, "ports") {
        let kept = items(before, "/ports").find(|old| same(old, port)).and_then(|old| old.get("nodePort"));
        if let (Some(kept), true) = (kept, number(port, "/nodePort").unwrap_or_default() == 0) {
            set(port, "nodePort", kept.clone());
        }
    }
}
