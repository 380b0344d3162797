//! The environment of a container, in all its sources, and the expansion of `$(NAME)`.

use super::resources::{NodeSize, resource_field};
use super::service_env::service_env;
use super::{ConfigError, Sources};
use crate::node::pod;
use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, EnvVarSource, Pod};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What fields of a pod may refer to beside its record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) pod_ips: Vec<IpAddr>,
    pub(crate) host_ips: Vec<IpAddr>,
    pub(crate) node: NodeSize,
}

/// Names and values in order; a name occurs once.
pub(super) fn environment(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    facts: &Facts,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut env = Environment::default();
    for (name, value) in service_env(pod, &sources.services) {
        env.set(name, value);
    }
    for from in container.env_from.iter().flatten() {
        all_of(from, pod, sources)?.into_iter().for_each(|(name, value)| env.set(name, value));
    }
    for var in container.env.iter().flatten() {
        if let Some(value) = value_of(var, &env, pod, container, sources, facts)? {
            env.set(var.name.clone(), value);
        }
    }
    Ok(env.0)
}

#[derive(Default)]
struct Environment(Vec<(String, String)>);

impl Environment {
    fn set(&mut self, name: String, value: String) {
        match self.0.iter_mut().find(|(there, _)| *there == name) {
            Some(entry) => entry.1 = value,
            None => self.0.push((name, value)),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(there, _)| there == name).map(|(_, value)| value.as_str())
    }
}

/// Replaces `$(NAME)` by the value of a variable; `$$(NAME)` stands for itself, and so do unknown names.
pub(super) fn expand(text: &str, env: &[(String, String)]) -> String {
    expand_by(text, |name| env.iter().rev().find(|(there, _)| there == name).map(|(_, value)| value.clone()))
}

fn expand_by(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            out.push_str(&value(name).unwrap_or_else(|| format!("$({name})")));
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// All keys of a ConfigMap or Secret.
fn all_of(from: &EnvFromSource, pod: &Pod, sources: &Sources) -> Result<BTreeMap<String, String>, ConfigError> {
    let prefix = from.prefix.as_deref().unwrap_or_default();
    let named = |(key, value): (&String, String)| (format!("{prefix}{key}"), value);
    if let Some(reference) = &from.config_map_ref {
        return match sources.config_maps.get(&reference.name) {
            Some(map) => Ok(map.data.iter().flatten().map(|(k, v)| named((k, v.clone()))).collect()),
            None if reference.optional == Some(true) => Ok(BTreeMap::new()),
            None => Err(missing("configmap", &reference.name)),
        };
    }
    if let Some(reference) = &from.secret_ref {
        return match sources.secrets.get(&reference.name) {
            Some(secret) => Ok(secret.data.iter().flatten().map(|(k, v)| named((k, lossy(&v.0)))).collect()),
            None if reference.optional == Some(true) => Ok(BTreeMap::new()),
            None => Err(missing("secret", &reference.name)),
        };
    }
    Err(ConfigError::new(format!("envFrom of pod {} names neither a configMapRef nor a secretRef", pod::key(pod))))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn missing(kind: &str, name: &str) -> ConfigError {
    ConfigError::new(format!("{kind} \"{name}\" not found"))
}

fn value_of(
    var: &EnvVar,
    env: &Environment,
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    facts: &Facts,
) -> Result<Option<String>, ConfigError> {
    let Some(from) = &var.value_from else {
        let text = var.value.as_deref().unwrap_or_default();
        return Ok(Some(expand_by(text, |name| env.get(name).map(str::to_owned))));
    };
    if let Some(reference) = &from.field_ref {
        return field(pod, facts, &reference.field_path).map(Some);
    }
    if let Some(selector) = &from.resource_field_ref {
        let target = selector.container_name.as_deref().and_then(|name| pod::find(pod, name)).map(|(_, c)| c);
        return resource_field(target.unwrap_or(container), selector, &facts.node).map(Some);
    }
    key_of(from, pod, sources)
}

fn key_of(from: &EnvVarSource, pod: &Pod, sources: &Sources) -> Result<Option<String>, ConfigError> {
    let namespace = pod::namespace(pod);
    let (kind, name, key, optional, object, value) = if let Some(at) = &from.config_map_key_ref {
        let map = sources.config_maps.get(&at.name);
        let value = map.and_then(|m| m.data.as_ref()?.get(&at.key).cloned());
        ("ConfigMap", &at.name, &at.key, at.optional, map.is_some(), value)
    } else if let Some(at) = &from.secret_key_ref {
        let secret = sources.secrets.get(&at.name);
        let value = secret.and_then(|s| s.data.as_ref()?.get(&at.key).map(|bytes| lossy(&bytes.0)));
        ("Secret", &at.name, &at.key, at.optional, secret.is_some(), value)
    } else {
        return Err(ConfigError::new("a variable's valueFrom names no source this agent knows"));
    };
    match value {
        Some(value) => Ok(Some(value)),
        None if optional == Some(true) => Ok(None),
        None if object => Err(ConfigError::new(format!("couldn't find key {key} in {kind} {namespace}/{name}"))),
        None => Err(missing(&kind.to_lowercase(), name)),
    }
}

/// The value of a field of the pod, as the downward API spells it.
pub(crate) fn field(pod: &Pod, facts: &Facts, path: &str) -> Result<String, ConfigError> {
    let meta = &pod.metadata;
    let subscript = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
    if let Some(key) = subscript("metadata.labels") {
        return Ok(meta.labels.as_ref().and_then(|l| l.get(key).cloned()).unwrap_or_default());
    }
    if let Some(key) = subscript("metadata.annotations") {
        return Ok(meta.annotations.as_ref().and_then(|a| a.get(key).cloned()).unwrap_or_default());
    }
    let list = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    Ok(match path {
        "metadata.name" => pod::name(pod).to_owned(),
        "metadata.namespace" => pod::namespace(pod).to_owned(),
        "metadata.uid" => pod::uid(pod).to_owned(),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => pod::spec(pod).node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => {
            pod::spec(pod).service_account_name.clone().unwrap_or_else(|| "default".to_owned())
        }
        "status.podIP" => list(&facts.pod_ips).into_iter().next().unwrap_or_default(),
        "status.podIPs" => list(&facts.pod_ips).join(","),
        "status.hostIP" => list(&facts.host_ips).into_iter().next().unwrap_or_default(),
        "status.hostIPs" => list(&facts.host_ips).join(","),
        _ => return Err(ConfigError::new(format!("unsupported fieldPath: {path}"))),
    })
}

/// `key="value"` lines, quoted the way Go quotes.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(env: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "enableServiceLinks": false, "containers": [
                {"name": "c", "env": env["env"], "envFrom": env["envFrom"],
                 "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}]}
        }))
        .unwrap()
    }

    fn sources() -> Sources {
        let map: k8s_openapi::api::core::v1::ConfigMap =
            serde_json::from_value(json!({"data": {"k": "v", "l": "w"}})).unwrap();
        let secret: k8s_openapi::api::core::v1::Secret =
            serde_json::from_value(json!({"data": {"p": "cGFzcw=="}})).unwrap();
        Sources {
            config_maps: [("cm".to_owned(), map.into())].into(),
            secrets: [("s".to_owned(), secret.into())].into(),
            services: vec![],
        }
    }

    fn run(env: serde_json::Value) -> Result<Vec<(String, String)>, ConfigError> {
        let pod = pod(env);
        let facts = Facts { pod_ips: vec!["10.0.0.7".parse().unwrap()], ..Facts::default() };
        environment(&pod, &pod::spec(&pod).containers[0], &sources(), &facts)
    }

    #[test]
    fn every_source_is_read_in_order_and_references_expand() {
        let env = run(json!({"envFrom": [{"prefix": "X_", "configMapRef": {"name": "cm"}}], "env": [
            {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(X_k)-$(NO)-$$(A)-$"},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}},
            {"name": "D", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
            {"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "F", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "G", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "H", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "I", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "no", "optional": true}}},
            {"name": "A", "value": "2"}]}))
        .unwrap();
        let pairs: Vec<String> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            pairs,
            ["X_k=v", "X_l=w", "A=2", "B=1-v-$(NO)-$(A)-$", "C=v", "D=pass", "E=10.0.0.7", "F=web", "G=2", "H=64"]
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        for (from, want) in [
            (json!({"configMapKeyRef": {"name": "no", "key": "k"}}), "configmap \"no\" not found"),
            (json!({"configMapKeyRef": {"name": "cm", "key": "no"}}), "couldn't find key no in ConfigMap ns/cm"),
            (json!({"secretKeyRef": {"name": "s", "key": "no"}}), "couldn't find key no in Secret ns/s"),
            (json!({"fieldRef": {"fieldPath": "spec.foo"}}), "unsupported fieldPath: spec.foo"),
        ] {
            let error = run(json!({"env": [{"name": "A", "valueFrom": from}]})).unwrap_err();
            assert_eq!(error.to_string(), want);
        }
        let error = run(json!({"envFrom": [{"secretRef": {"name": "gone"}}]})).unwrap_err();
        assert_eq!(error.to_string(), "secret \"gone\" not found");
    }
}
