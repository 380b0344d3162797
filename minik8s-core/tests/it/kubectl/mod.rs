//! The real kubectl against the server, over TLS. Needs kubectl 1.32 or newer; touches nothing but the loopback.

mod describes;
mod drains;
mod reads;
mod streams;
mod waits;
mod writes;

use minik8s_core::api::{Gvr, Target};
use minik8s_core::client::{PatchType, Payload, Transport, WriteOptions};
use minik8s_core::testkit::kubectl::Kubectl;
use minik8s_core::testkit::need::{self, Need};
use minik8s_core::testkit::served::Served;
use serde_json::Value;

/// A server and a kubectl for it; `None` where there is no kubectl.
async fn start() -> Option<(Served, Kubectl)> {
    if !need::met(&[Need::Kubectl]) {
        return None;
    }
    let served = Served::start().await;
    let kubectl = served.kubectl();
    Some((served, kubectl))
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: main
        image: nginx:1.25
";

/// Sets an object's status, as a controller or a node would.
async fn set_status(served: &Served, gvr: Gvr, name: &str, status: &Value) {
    let namespace = if gvr.resource == "nodes" { "" } else { "default" };
    let target = Target::object(gvr, namespace, name).sub("status");
    let body = Payload::Json(serde_json::json!({ "status": status }).to_string().into());
    served.server.patch(&target, PatchType::Merge, body, &WriteOptions::default()).await.unwrap();
}

const fn pods() -> Gvr {
    Gvr::new("", "v1", "pods")
}

const fn deployments() -> Gvr {
    Gvr::new("apps", "v1", "deployments")
}
