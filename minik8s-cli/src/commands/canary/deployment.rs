//! A canary of a Deployment: another Deployment and Service beside it, and the route that leads to both.

use super::{aborted, beside, noted, wanted};
use crate::api::{Conn, MERGE, STRATEGIC, is_not_found};
use crate::args::CanaryOptions;
use crate::manifest;
use anyhow::{Context, Result, bail};
use minik8s_core::controllers::canary::{Canary, Pair, Phase};
use minik8s_core::routing::CANARY_ANNOTATION;
use serde_json::{Value, json};

pub(super) fn path(conn: &Conn, name: &str) -> String {
    format!("/apis/apps/v1/namespaces/{}/deployments/{name}", conn.namespace)
}

/// Begins the canary, and says which route it is of.
pub(super) async fn run(conn: &Conn, name: &str, options: &CanaryOptions) -> Result<String> {
    let deployment = conn.get(&path(conn, name)).await?;
    let services = items(conn, &format!("/api/v1/namespaces/{}/services", conn.namespace)).await?;
    let routes = items(conn, &super::path(conn, "")).await?;
    let (route, service, rules) = way(conn, &deployment, name, &services, &routes, options)?;
    let route_name = route["metadata"]["name"].as_str().unwrap_or_default();
    let before = noted(route).filter(|canary| canary.deployments.as_ref().is_some_and(|pair| pair.stable == name));
    let canary = if options.abort {
        before.with_context(|| format!("deployment {name:?} has no canary"))?;
        aborted(route, route_name)?
    } else {
        if noted(route).is_some_and(|canary| canary.goes_on()) {
            bail!("httproute/{route_name} has a canary under way: wait for its end, or give it up with --abort");
        }
        let pair = Pair { stable: name.to_owned(), canary: beside::name(name) };
        make(conn, &deployment, service, route, options).await?;
        // One that has a share goes on from there.
        let percent = before.filter(|canary| canary.phase == Phase::Completed).map_or(0, |canary| canary.percent);
        Canary { percent, deployments: Some(pair), ..wanted(options) }
    };
    let metadata = json!({"resourceVersion": route["metadata"]["resourceVersion"],
        "annotations": {CANARY_ANNOTATION: serde_json::to_string(&canary)?}});
    let change = json!({"metadata": metadata, "spec": {"rules": rules}});
    conn.patch(&super::path(conn, route_name), MERGE, &change).await?;
    Ok(route_name.to_owned())
}

async fn items(conn: &Conn, path: &str) -> Result<Vec<Value>> {
    let mut list = conn.get(path.trim_end_matches('/')).await?;
    Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

/// The one route that leads to the Deployment, the Service in between, and the rules for both.
fn way<'a>(
    conn: &Conn,
    deployment: &Value,
    name: &str,
    services: &'a [Value],
    routes: &'a [Value],
    options: &CanaryOptions,
) -> Result<(&'a Value, &'a Value, Vec<Value>)> {
    let mut found = Vec::new();
    for service in beside::services(deployment, services) {
        let called = service["metadata"]["name"].as_str().unwrap_or_default();
        let named = |route: &&Value| options.route.as_deref().is_none_or(|only| route["metadata"]["name"] == only);
        for route in routes.iter().filter(named) {
            let rules = beside::rules(route, &conn.namespace, called, &beside::name(name));
            found.extend(rules.map(|rules| (route, service, rules)));
        }
    }
    if found.len() > 1 {
        let all: Vec<String> = found
            .iter()
            .map(|(route, service, _)| {
                format!("{} by Service {}", route["metadata"]["name"], service["metadata"]["name"])
            })
            .collect();
        bail!("several ways lead to deployment {name:?}: {}; say which with --route", all.join(", "));
    }
    found.pop().with_context(|| {
        format!(
            "no HTTPRoute leads to deployment {name:?}: a rule must have a Service of its pods as its only backend, \
             so that requests can be shared out"
        )
    })
}

/// Makes the Deployment and the Service, or changes what is there.
async fn make(conn: &Conn, deployment: &Value, service: &Value, route: &Value, options: &CanaryOptions) -> Result<()> {
    let name = deployment["metadata"]["name"].as_str().unwrap_or_default();
    let other = beside::name(name);
    let there = match conn.get(&path(conn, &other)).await {
        Ok(_) => true,
        Err(error) if is_not_found(&error) => false,
        Err(error) => return Err(error),
    };
    if options.image.is_empty() && options.patch.is_none() {
        if there {
            return Ok(());
        }
        bail!("say what is to be tried: --image [CONTAINER=]IMAGE, or --patch with a change of the pod template");
    }
    let change = json!({"spec": {"template": change(deployment, options)?}});
    // What would become of the template, without it becoming so.
    let tried = conn.patch(&format!("{}?dryRun=All", path(conn, name)), STRATEGIC, &change).await?;
    let template = &tried["spec"]["template"];
    let metadata = &route["metadata"];
    let owner = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "name": metadata["name"],
        "uid": metadata["uid"]});
    let (beside, service) = beside::objects(deployment, service, template, &owner)?;
    if there {
        let template = json!([{"op": "add", "path": "/spec/template", "value": beside["spec"]["template"]}]);
        conn.patch(&path(conn, &other), "application/json-patch+json", &template).await?;
    } else {
        conn.post(path(conn, "").trim_end_matches('/'), &beside).await?;
    }
    let services = format!("/api/v1/namespaces/{}/services", conn.namespace);
    match conn.get(&format!("{services}/{other}")).await {
        Err(error) if is_not_found(&error) => conn.post(&services, &service).await.map(drop),
        other => other.map(drop),
    }
}

/// The change of the template that the options ask for.
fn change(deployment: &Value, options: &CanaryOptions) -> Result<Value> {
    let mut change: Value = match &options.patch {
        Some(text) => manifest::piece("--patch", text)?,
        None => json!({}),
    };
    if change.pointer("/metadata/labels").is_some() {
        bail!("--patch must not change labels: Services and Deployments know their pods by them");
    }
    let containers = deployment.pointer("/spec/template/spec/containers").and_then(Value::as_array);
    let names: Vec<&str> = containers.into_iter().flatten().filter_map(|c| c["name"].as_str()).collect();
    let mut images = Vec::new();
    for text in &options.image {
        let (name, image) = match (text.split_once('='), &names[..]) {
            (Some((name, image)), _) if names.contains(&name) => (name, image),
            (None, [only]) => (*only, text.as_str()),
            _ => bail!("--image {text:?}: write CONTAINER=IMAGE with one of {}", names.join(", ")),
        };
        images.push(json!({"name": name, "image": image}));
    }
    if !images.is_empty() {
        let spec = change.as_object_mut().context("--patch must be an object")?.entry("spec").or_insert(json!({}));
        let list = spec.as_object_mut().context("--patch: spec must be an object")?.entry("containers");
        let list = list.or_insert(json!([])).as_array_mut().context("--patch: containers must be a list")?;
        for image in images {
            match list.iter_mut().find(|container| container["name"] == image["name"]) {
                Some(container) => container["image"] = image["image"].clone(),
                None => list.push(image),
            }
        }
    }
    Ok(change)
}
