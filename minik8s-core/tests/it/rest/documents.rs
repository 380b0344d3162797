//! Documents about the server: version, health, metrics, discovery.

use super::Http;
use http::Method;
use minik8s_core::server::ApiServer;
use minik8s_core::server::auth::User;
use minik8s_core::server::rest::{RestConfig, RestService};
use minik8s_core::store::{FaultRates, FaultStore, MemoryStore};
use minik8s_core::testkit::wait;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const V2BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

#[tokio::test]
async fn the_version_is_that_of_the_upstream_types() {
    let version = Http::new().await.get("/version").await.json();
    let expected = format!("v1.{}.0+minik8s-{}", version["minor"].as_str().unwrap(), env!("CARGO_PKG_VERSION"));
    assert_eq!(version["gitVersion"], json!(expected));
    for field in ["gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"] {
        assert!(version[field].is_string(), "{field}");
    }
}

#[tokio::test]
async fn health_is_told_in_short_and_in_full() {
    let http = Http::new().await;
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(http.get(path).await.text(), "ok", "{path}");
    }
    assert_eq!(http.get("/readyz?verbose").await.text(), "[+]ping ok\n[+]store ok\nreadyz check passed\n");
    assert_eq!(http.get("/livez/ping").await.code, 200);
    assert_eq!(http.get("/readyz/store").await.code, 200);
    assert_eq!(http.get("/livez/nothing").await.code, 404);
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let http = Http::new().await;
    http.get("/api/v1/namespaces").await;
    let text = http.get("/metrics").await.text();
    assert!(text.contains("# TYPE apiserver_request counter"), "{text}");
    assert!(text.contains("resource=\"namespaces\""), "{text}");
}

#[tokio::test]
async fn discovery_is_aggregated_for_who_asks() {
    let http = Http::new().await;
    for (form, version) in [(V2, "v2"), (V2BETA1, "v2beta1")] {
        let answer = http.get_as("/api", &format!("{form},application/json")).await;
        assert_eq!(answer.header("content-type"), form);
        let list = answer.json();
        assert_eq!(list["apiVersion"], json!(format!("apidiscovery.k8s.io/{version}")));
        let resources = list["items"][0]["versions"][0]["resources"].as_array().unwrap();
        let maps = resources.iter().find(|r| r["resource"] == "configmaps").unwrap();
        assert_eq!((&maps["scope"], &maps["shortNames"]), (&json!("Namespaced"), &json!(["cm"])));
        assert_eq!(maps["responseKind"]["kind"], "ConfigMap");
    }
    let both = http.get_as("/apis", &format!("{V2},{V2BETA1},application/json")).await;
    assert_eq!(both.header("content-type"), V2);
}

#[tokio::test]
async fn discovery_is_classic_for_everyone_else() {
    let http = Http::new().await;
    let api = http.get("/api/").await.json();
    assert_eq!((&api["kind"], &api["versions"]), (&json!("APIVersions"), &json!(["v1"])));
    let core = http.get("/api/v1/").await.json();
    let names: Vec<&str> = core["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
    assert!(names.contains(&"namespaces") && names.contains(&"configmaps"), "{names:?}");
    assert_eq!(http.get("/apis/").await.json()["kind"], "APIGroupList");
    assert!(!no_nulls(&core).contains(&false));
}

fn no_nulls(value: &Value) -> Vec<bool> {
    match value {
        Value::Null => vec![false],
        Value::Array(items) => items.iter().flat_map(no_nulls).collect(),
        Value::Object(fields) => fields.values().flat_map(no_nulls).collect(),
        _ => vec![true],
    }
}

#[tokio::test]
async fn a_document_is_fetched_once() {
    let http = Http::new().await;
    for path in ["/api", "/apis"] {
        let first = http.get_as(path, V2).await;
        let etag = first.header("etag");
        assert!(!etag.is_empty());
        assert_eq!(first.header("vary"), "Accept");
        let again = http.call(Method::GET, path, &[("accept", V2), ("if-none-match", etag)], "").await;
        assert_eq!((again.code, again.body.len(), again.header("etag")), (304, 0, etag));
        let other = http.call(Method::GET, path, &[("accept", V2), ("if-none-match", "\"x\"")], "").await;
        assert_eq!(other.code, 200);
    }
}

#[tokio::test]
async fn openapi_is_kept_by_its_hash() {
    let http = Http::new().await;
    let index = http.get("/openapi/v3").await;
    assert_eq!(index.header("cache-control"), "no-cache");
    let url = index.json()["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    assert!(url.starts_with("/openapi/v3/api/v1?hash="), "{url}");
    let document = http.get(&url).await;
    assert_eq!(document.header("cache-control"), "public, immutable");
    let again = http.call(Method::GET, &url, &[("if-none-match", document.header("etag"))], "").await;
    assert_eq!(again.code, 304);
    let patch = &document.json()["paths"]["/api/v1/namespaces/{namespace}/configmaps/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "ConfigMap");
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query"), "{patch}");
    assert_eq!(http.get("/openapi/v3/apis/nope/v1").await.code, 404);
}

/// A server that hears nothing of its store any more does not say that it is ready.
#[tokio::test]
async fn readiness_ends_while_the_store_cannot_be_followed() {
    let faults = Arc::new(FaultStore::new(Arc::new(MemoryStore::new())));
    let server = ApiServer::builder(faults.clone()).start().await.unwrap();
    let rest = RestService::new(RestConfig::of(&server)).acting_as(User::system());
    let http = Http { rest, server };
    assert_eq!(http.get("/readyz").await.code, 200);
    let broken = FaultRates { refuse: 1.0, ..FaultRates::default() };
    faults.set_rates(broken);
    faults.cut_watches();
    let asked = async |code: u16| {
        wait::until("readiness is told", Duration::from_secs(30), || async {
            let answer = http.get("/readyz?verbose").await;
            (answer.code == code).then(|| answer.text())
        })
        .await
    };
    let told = asked(500).await;
    assert!(told.contains("[-]store failed") && told.contains("readyz check failed"), "{told}");
    faults.heal();
    asked(200).await;
}
