//! The table of services.

use crate::server::Column;
use crate::server::kinds::cells::{AGE, NAME, NONE, column, or_none, wide};
use crate::server::kinds::util::{items, number, text};
use serde_json::Value;

pub(super) static COLUMNS: [Column; 7] = [
    NAME,
    column("Type", |o, _| text(o, "/spec/type").into()),
    column("Cluster-IP", |o, _| or_none(o, "/spec/clusterIP").into()),
    column("External-IP", |o, _| external(o).into()),
    column("Port(s)", |o, _| ports(o).into()),
    AGE,
    wide("Selector", |o, _| selector(o).into()),
];

fn external(service: &Value) -> String {
    let listed: Vec<&str> = items(service, "/spec/externalIPs").filter_map(Value::as_str).collect();
    match text(service, "/spec/type") {
        "ExternalName" => text(service, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let ingress = items(service, "/status/loadBalancer/ingress");
            let given = ingress.map(|i| if text(i, "/ip").is_empty() { text(i, "/hostname") } else { text(i, "/ip") });
            let all: Vec<&str> = given.chain(listed).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        _ if listed.is_empty() => NONE.to_owned(),
        _ => listed.join(","),
    }
}

fn ports(service: &Value) -> String {
    let one = |port: &Value| {
        let (listens, protocol) = (number(port, "/port").unwrap_or_default(), text(port, "/protocol"));
        match number(port, "/nodePort").filter(|n| *n != 0) {
            Some(node) => format!("{listens}:{node}/{protocol}"),
            None => format!("{listens}/{protocol}"),
        }
    };
    let all: Vec<String> = items(service, "/spec/ports").map(one).collect();
    if all.is_empty() { NONE.to_owned() } else { all.join(",") }
}

fn selector(service: &Value) -> String {
    let map = service.pointer("/spec/selector").and_then(Value::as_object);
    let pairs = map.into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()));
    let all: Vec<String> = pairs.collect();
    if all.is_empty() { NONE.to_owned() } else { all.join(",") }
}
