//! What the server fills in where a pod spec says nothing.

use super::super::util::{child, default_text, items_mut, set_default, text};
use super::probe;
use serde_json::{Value, json};

/// Lists of containers in a pod spec.
pub(super) const CONTAINER_LISTS: [&str; 2] = ["initContainers", "containers"];

/// Defaults of a pod spec. Idempotent.
pub(crate) fn default_spec(spec: &mut Value) {
    default_text(spec, "restartPolicy", "Always");
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default_text(spec, "schedulerName", "default-scheduler");
    set_default(spec, "terminationGracePeriodSeconds", 30);
    set_default(spec, "securityContext", json!({}));
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in CONTAINER_LISTS {
        for container in items_mut(spec, list) {
            default_container(container, host_network);
        }
    }
    for volume in items_mut(spec, "volumes") {
        default_volume(volume);
    }
    mirror_service_account(spec);
}

/// The old name of the field follows the new one, and fills it where only the old one is given.
fn mirror_service_account(spec: &mut Value) {
    let (new, old) = (text(spec, "/serviceAccountName").to_owned(), text(spec, "/serviceAccount").to_owned());
    let name = if new.is_empty() { old } else { new };
    if !name.is_empty() {
        super::super::util::set(spec, "serviceAccountName", name.as_str().into());
        super::super::util::set(spec, "serviceAccount", name.into());
    }
}

fn default_container(container: &mut Value, host_network: bool) {
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
    let policy = pull_policy(text(container, "/image"));
    default_text(container, "imagePullPolicy", policy);
    for port in items_mut(container, "ports") {
        default_text(port, "protocol", "TCP");
        if host_network && let Some(number) = port.get("containerPort").cloned() {
            set_default(port, "hostPort", number);
        }
    }
    for env in items_mut(container, "env") {
        if let Some(field) = env.pointer_mut("/valueFrom/fieldRef") {
            default_text(field, "apiVersion", "v1");
        }
    }
    for name in probe::PROBES {
        if let Some(probe) = container.get_mut(name).filter(|p| p.is_object()) {
            probe::default_probe(probe);
        }
    }
    for hook in ["/lifecycle/postStart/httpGet", "/lifecycle/preStop/httpGet"] {
        if let Some(get) = container.pointer_mut(hook) {
            probe::default_http_get(get);
        }
    }
    if let Some(resources) = child(container, "resources") {
        requests_from_limits(resources);
    }
}

/// A limit without a request is also the request.
fn requests_from_limits(resources: &mut Value) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    if limits.is_empty() {
        return;
    }
    if let Some(requests) = child(resources, "requests") {
        for (name, limit) in limits {
            set_default(requests, &name, limit);
        }
    }
}

/// `Always` where the image has no tag or `latest`.
pub(super) fn pull_policy(image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or_default();
    if last.contains('@') {
        return "IfNotPresent";
    }
    match last.split_once(':').map(|(_, tag)| tag) {
        None | Some("latest" | "") => "Always",
        Some(_) => "IfNotPresent",
    }
}

/// Sources of a volume whose files have a mode.
const MODES: [&str; 4] = ["secret", "configMap", "downwardAPI", "projected"];

fn default_volume(volume: &mut Value) {
    let sources = volume.as_object().map_or(0, |v| v.iter().filter(|(k, v)| *k != "name" && !v.is_null()).count());
    if sources == 0 {
        set_default(volume, "emptyDir", json!({}));
    }
    for source in MODES {
        if let Some(source) = volume.get_mut(source).filter(|s| s.is_object()) {
            set_default(source, "defaultMode", 0o644);
            default_items(source);
        }
    }
    for source in volume.get_mut("projected").into_iter().flat_map(|p| items_mut(p, "sources")) {
        if let Some(downward) = source.get_mut("downwardAPI") {
            default_items(downward);
        }
        if let Some(token) = source.get_mut("serviceAccountToken").filter(|t| t.is_object()) {
            set_default(token, "expirationSeconds", 3600);
        }
    }
    if let Some(host) = volume.get_mut("hostPath").filter(|h| h.is_object()) {
        set_default(host, "type", "");
    }
}

fn default_items(source: &mut Value) {
    for item in items_mut(source, "items") {
        if let Some(field) = item.get_mut("fieldRef").filter(|f| f.is_object()) {
            default_text(field, "apiVersion", "v1");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, want) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:2", "IfNotPresent"),
            ("nginx@sha256:0000", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), want, "{image}");
        }
    }

    #[test]
    fn a_spec_is_filled_once() {
        let mut spec = json!({
            "containers": [{"name": "c", "image": "i",
                "ports": [{"containerPort": 80}],
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "livenessProbe": {"httpGet": {"port": 80}},
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}}],
            "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "x"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]
        });
        default_spec(&mut spec);
        let container = &spec["containers"][0];
        assert_eq!(container["ports"][0]["protocol"], "TCP");
        assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
        let probe = json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
            "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3});
        assert_eq!(container["livenessProbe"], probe);
        assert_eq!(container["resources"]["requests"], json!({"cpu": "500m", "memory": "1Gi"}));
        assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
        assert_eq!(spec["volumes"][1]["secret"]["defaultMode"], 420);
        assert_eq!(spec["volumes"][2]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3600);
        let once = spec.clone();
        default_spec(&mut spec);
        assert_eq!(spec, once);
    }
}
