//! Variables that lead to services, the way Docker links once did.

use crate::node::pod;
use k8s_openapi::api::core::v1::{Pod, Service};
use std::sync::Arc;

/// Variables for the services of the pod's namespace, and for the API itself.
pub(super) fn service_env(pod: &Pod, services: &[Arc<Service>]) -> Vec<(String, String)> {
    let links = pod::spec(pod).enable_service_links != Some(false);
    let namespace = pod::namespace(pod);
    let is = |service: &Service, ns: &str, name: Option<&str>| {
        service.metadata.namespace.as_deref() == Some(ns)
            && name.is_none_or(|n| service.metadata.name.as_deref() == Some(n))
    };
    let mut chosen: Vec<&Arc<Service>> =
        services.iter().filter(|s| is(s, "default", Some("kubernetes")) || (links && is(s, namespace, None))).collect();
    chosen.sort_by_key(|s| s.metadata.name.clone());
    chosen.into_iter().flat_map(|service| of_service(service)).collect()
}

fn of_service(service: &Service) -> Vec<(String, String)> {
    let spec = service.spec.clone().unwrap_or_default();
    let ip = spec.cluster_ip.filter(|ip| !ip.is_empty() && ip != "None");
    let ports = spec.ports.unwrap_or_default();
    let (Some(ip), Some(first)) = (ip, ports.first()) else { return Vec::new() };
    let prefix = upper(service.metadata.name.as_deref().unwrap_or_default());
    let mut env = vec![
        (format!("{prefix}_SERVICE_HOST"), ip.clone()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in &ports {
        if let Some(name) = &port.name {
            env.push((format!("{prefix}_SERVICE_PORT_{}", upper(name)), port.port.to_string()));
        }
    }
    let url = |port: i32, protocol: &str| format!("{}://{ip}:{port}", protocol.to_lowercase());
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        if index == 0 {
            env.push((format!("{prefix}_PORT"), url(port.port, protocol)));
        }
        let base = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        env.push((base.clone(), url(port.port, protocol)));
        env.push((format!("{base}_PROTO"), protocol.to_lowercase()));
        env.push((format!("{base}_PORT"), port.port.to_string()));
        env.push((format!("{base}_ADDR"), ip.clone()));
    }
    env
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace(['-', '.'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn services_of_the_namespace_and_the_api_are_named() {
        let service = |ns: &str, name: &str, ip: &str| -> Arc<Service> {
            let spec = json!({"metadata": {"name": name, "namespace": ns},
                "spec": {"clusterIP": ip, "ports": [{"name": "http-x", "port": 80}]}});
            Arc::new(serde_json::from_value(spec).unwrap())
        };
        let services = [
            service("default", "kubernetes", "10.96.0.1"),
            service("ns", "my-db", "10.96.0.9"),
            service("ns", "headless", "None"),
            service("other", "web", "10.96.0.8"),
        ];
        let pod = |links: bool| -> Pod {
            let spec = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"enableServiceLinks": links, "containers": []}});
            serde_json::from_value(spec).unwrap()
        };
        let env = service_env(&pod(true), &services);
        let get = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(get("KUBERNETES_SERVICE_HOST"), Some("10.96.0.1"));
        assert_eq!(get("MY_DB_SERVICE_PORT_HTTP_X"), Some("80"));
        assert_eq!(get("MY_DB_PORT_80_TCP"), Some("tcp://10.96.0.9:80"));
        assert!(env.iter().all(|(name, _)| !name.starts_with("WEB") && !name.starts_with("HEADLESS")));
        assert!(service_env(&pod(false), &services).iter().all(|(name, _)| name.starts_with("KUBERNETES")));
    }
}
