//! The node a pod insists on, and cordoned nodes.

use crate::scheduler::{FilterPlugin, NodeInfo, PodFilter, PodInfo, Snapshot};
use std::borrow::Cow;

/// Refuses every node but the one in `spec.nodeName`, where a pod names one.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeName;

impl FilterPlugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<Box<dyn PodFilter + 'a>> {
        (!pod.node_name.is_empty()).then(|| self.for_each_node(pod, snapshot))
    }

    fn refuse(&self, pod: &PodInfo, node: &NodeInfo, _: &Snapshot) -> Vec<Cow<'static, str>> {
        if pod.node_name.is_empty() || pod.node_name == node.name {
            return Vec::new();
        }
        vec!["node(s) didn't match the requested node name".into()]
    }
}

/// Refuses cordoned nodes, but for pods that tolerate `node.kubernetes.io/unschedulable`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeSchedulable;

impl FilterPlugin for NodeSchedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn refuse(&self, pod: &PodInfo, node: &NodeInfo, _: &Snapshot) -> Vec<Cow<'static, str>> {
        if !node.unschedulable {
            return Vec::new();
        }
        let taint = k8s_openapi::api::core::v1::Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            effect: "NoSchedule".into(),
            ..Default::default()
        };
        if super::taints::tolerates(&pod.tolerations, &taint) {
            return Vec::new();
        }
        vec!["node(s) were unschedulable".into()]
    }
}
