//! Finding the pod that a command is about: by its name, or one of the pods of a workload.

use crate::api::{Conn, Resources, parse_what};
use anyhow::{Result, bail};
use serde_json::Value;

/// The pod's name, and the container to use.
pub(crate) async fn find(conn: &Conn, word: &str, container: Option<&str>) -> Result<(String, String)> {
    let pod = pod_named(conn, word).await?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let container = pick_container(&pod, container)?;
    Ok((name, container))
}

pub(super) async fn pod_named(conn: &Conn, word: &str) -> Result<Value> {
    let path = |name: &str| format!("/api/v1/namespaces/{}/pods/{name}", conn.namespace);
    if !word.contains('/') {
        return conn.get(&path(word)).await;
    }
    let known = Resources::load(conn).await?;
    let selected = parse_what(&known, &[word.to_owned()])?;
    let (resource, name) = (&selected[0].resource, &selected[0].names[0]);
    if resource.plural == "pods" {
        return conn.get(&path(name)).await;
    }
    let owner = conn.get(&resource.path(&conn.namespace, Some(name))).await?;
    let labels = owner["spec"]["selector"]["matchLabels"].as_object().or_else(|| owner["spec"]["selector"].as_object());
    let Some(labels) = labels else { bail!("{word} selects no pods") };
    let selector: Vec<String> =
        labels.iter().map(|(k, v)| format!("{k}%3D{}", v.as_str().unwrap_or_default())).collect();
    let list =
        conn.get(&format!("/api/v1/namespaces/{}/pods?labelSelector={}", conn.namespace, selector.join(","))).await?;
    let pods = list["items"].as_array().cloned().unwrap_or_default();
    let running = pods.iter().find(|p| p["status"]["phase"] == "Running").or(pods.first());
    match running {
        Some(pod) => Ok(pod.clone()),
        None => bail!("{word} has no pods"),
    }
}

fn pick_container(pod: &Value, asked: Option<&str>) -> Result<String> {
    let spec = &pod["spec"];
    let lists = ["containers", "initContainers"];
    let names: Vec<&str> =
        lists.iter().filter_map(|l| spec[*l].as_array()).flatten().filter_map(|c| c["name"].as_str()).collect();
    let annotated = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
    match asked.or(annotated).or(names.first().copied()) {
        Some(name) if names.contains(&name) => Ok(name.to_owned()),
        Some(name) => bail!("pod {} has no container {name:?}, only {}", pod["metadata"]["name"], names.join(", ")),
        None => bail!("pod {} has no containers", pod["metadata"]["name"]),
    }
}
