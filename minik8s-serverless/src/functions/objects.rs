//! What a revision is made of in the cluster: a ReplicaSet, a Service, and the function's route. Pure.

use super::api::{Function, FunctionRevision, FunctionSpec, FunctionTraffic};
use super::revision::{FUNCTION_LABEL, REVISION_LABEL};
use crate::front;
use crate::registry::HOST;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use minik8s_core::api::{Hold, PathBackend, PathRoute, PathRouteSpec};
use minik8s_core::controllers::controller_reference;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The port of revisions' Services.
pub const PORT: i32 = 80;
/// Annotation of a route: images, with spaces between them, that are needed where somebody calls.
pub const IMAGES: &str = "minik8s.io/images";
/// Annotation of a route: images of revisions that its function may go back to. They are not fetched ahead, and stay where
/// they are.
pub const KEPT_IMAGES: &str = "minik8s.io/kept-images";
/// Between leaving the Services and being told to end, so that no gateway sends anything any more.
const LEAVING: i64 = 1;
/// Who runs code that users have written.
const NOBODY: i64 = 65_534;
/// What an instance of such code may use where the function does not say.
const MEMORY: &str = "512Mi";

fn labels(revision: &FunctionRevision) -> BTreeMap<String, String> {
    let name = revision.metadata.name.clone().unwrap_or_default();
    [(FUNCTION_LABEL.to_owned(), revision.spec.function.clone()), (REVISION_LABEL.to_owned(), name)].into()
}

fn metadata(revision: &FunctionRevision) -> Value {
    json!({"name": revision.metadata.name, "namespace": revision.metadata.namespace, "labels": labels(revision),
        "ownerReferences": [controller_reference(revision)]})
}

/// The Service behind which a revision's instances stand; without an address of its own, for only gateways go there.
pub fn service(revision: &FunctionRevision) -> Result<Service, serde_json::Error> {
    let name = revision.metadata.name.as_deref().unwrap_or_default();
    serde_json::from_value(json!({"metadata": metadata(revision), "spec": {
        "clusterIP": "None", "selector": {REVISION_LABEL: name},
        "ports": [{"name": "http", "port": PORT, "targetPort": revision.spec.template.port}]}}))
}

/// The set that keeps a revision's instances.
pub fn set(
    function: &Function,
    revision: &FunctionRevision,
    image: &str,
    replicas: u32,
) -> Result<ReplicaSet, serde_json::Error> {
    let name = revision.metadata.name.as_deref().unwrap_or_default();
    serde_json::from_value(json!({"metadata": metadata(revision), "spec": {
        "replicas": replicas, "selector": {"matchLabels": {REVISION_LABEL: name}},
        "template": {"metadata": {"labels": labels(revision)}, "spec": pod(function, &revision.spec.template, image)}}}))
}

fn pod(function: &Function, template: &FunctionSpec, image: &str) -> Value {
    let own_code = template.source.is_some();
    let mut env = vec![json!({"name": "PORT", "value": template.port.to_string()})];
    if own_code {
        env.push(json!({"name": "FUNCTION_HANDLER", "value": template.handler}));
        env.push(json!({"name": "FUNCTION_TIMEOUT", "value": function.spec.timeout_seconds.to_string()}));
        env.push(json!({"name": "FUNCTION_CONCURRENCY", "value": template.concurrency.to_string()}));
    }
    env.extend(template.env.iter().map(|var| json!(var)));
    let resources = match (&template.resources, own_code) {
        (Some(resources), _) => json!(resources),
        (None, true) => json!({"limits": {"memory": MEMORY}, "requests": {"memory": "32Mi", "cpu": "10m"}}),
        (None, false) => json!({}),
    };
    let security = match own_code {
        true => json!({"runAsUser": NOBODY, "runAsGroup": NOBODY, "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]}}),
        false => json!({}),
    };
    let mut container = json!({
        "name": "function", "image": image, "env": env, "resources": resources, "securityContext": security,
        "imagePullPolicy": "IfNotPresent", "terminationMessagePolicy": "FallbackToLogsOnError",
        "ports": [{"name": "http", "containerPort": template.port}],
        "readinessProbe": {"tcpSocket": {"port": template.port}, "periodSeconds": 1, "failureThreshold": 3},
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVING}}},
    });
    if !template.command.is_empty() {
        container["command"] = json!(template.command);
    }
    if !template.args.is_empty() {
        container["args"] = json!(template.args);
    }
    json!({"containers": [container], "enableServiceLinks": false, "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": i64::from(function.spec.timeout_seconds) + LEAVING + 1})
}

/// Where a function is called.
pub fn url(function: &Function) -> String {
    let meta = &function.metadata;
    format!("/function/{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// What gateways do with a function's calls; those that nobody waits for go to the front where there is one (`deferred`).
pub fn route_spec(function: &Function, traffic: &[FunctionTraffic], deferred: bool) -> PathRouteSpec {
    let spec = &function.spec;
    let backend = |t: &FunctionTraffic| PathBackend { service: t.revision.clone(), port: PORT, weight: t.percent };
    PathRouteSpec {
        path: url(function),
        rewrite: "/".to_owned(),
        backends: traffic.iter().map(backend).collect(),
        hold: Some(Hold {
            queue: spec.queue,
            patience_seconds: spec.timeout_seconds.into(),
            concurrency: spec.concurrency,
        }),
        deferred: deferred.then(|| PathBackend {
            service: front::SERVICE.to_owned(),
            port: front::PORT.into(),
            weight: 1,
        }),
        timeout_seconds: spec.timeout_seconds.into(),
        max_body_bytes: spec.max_body_bytes,
    }
}

/// Who gets calls now.
pub fn serving(route: &PathRoute) -> Vec<FunctionTraffic> {
    let of = |b: &PathBackend| FunctionTraffic { revision: b.service.clone(), percent: b.weight };
    route.spec.backends.iter().map(of).collect()
}

/// Where the registry has the images of a function.
pub fn repository(namespace: &str, function: &str) -> String {
    format!("{HOST}/functions/{namespace}/{function}")
}

/// True for an image that was built of a function's files, by its digest: the registry has it for as long as it is needed.
pub fn is_built(image: &str) -> bool {
    let path = image.strip_prefix(HOST).and_then(|rest| rest.strip_prefix("/functions/"));
    path.is_some_and(|path| path.contains("@sha256:"))
}

/// What the images of instances are, as nodes are told.
pub fn images<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    all.into_iter().collect::<Vec<_>>().join(" ")
}

/// The images that a route says will be needed ([`IMAGES`]), or are kept ([`KEPT_IMAGES`]).
pub fn images_of(meta: &ObjectMeta, annotation: &str) -> Vec<String> {
    let text = meta.annotations.as_ref().and_then(|all| all.get(annotation));
    text.into_iter().flat_map(|text| text.split(' ')).filter(|image| !image.is_empty()).map(str::to_owned).collect()
}

/// A function's route. It has the function's name.
pub fn route(function: &Function, traffic: &[FunctionTraffic], deferred: bool) -> PathRoute {
    let mut route = PathRoute { spec: route_spec(function, traffic, deferred), ..PathRoute::default() };
    route.metadata.name = function.metadata.name.clone();
    route.metadata.namespace = function.metadata.namespace.clone();
    route.metadata.owner_references = Some(vec![controller_reference(function)]);
    route
}
