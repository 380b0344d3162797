//! Lists and tables.

use super::{CONFIG_MAPS, Http, TABLE};
use serde_json::{Value, json};

#[tokio::test]
async fn a_list_is_its_items_without_their_kind() {
    let http = Http::new().await;
    for name in ["a", "b", "c"] {
        http.config_map(name, r#"{"g":"l"}"#).await;
    }
    let answer = http.get(&format!("{CONFIG_MAPS}?labelSelector=g%3Dl")).await;
    assert_eq!(answer.code, 200);
    let text = answer.text();
    assert!(text.starts_with(r#"{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":""#), "{text}");
    let list = answer.json();
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(items.iter().all(|i| i.get("kind").is_none() && i.get("apiVersion").is_none()));
    let empty = http.get(&format!("{CONFIG_MAPS}?labelSelector=g%3Dnothing")).await.json();
    assert_eq!(empty["items"], json!([]));
}

#[tokio::test]
async fn a_list_comes_in_pages_of_one_revision() {
    let http = Http::new().await;
    for index in 0..5 {
        http.config_map(&format!("m{index}"), r#"{"g":"l"}"#).await;
    }
    let path = format!("{CONFIG_MAPS}?labelSelector=g%3Dl&limit=2");
    let first = http.get(&path).await.json();
    http.config_map("m9", r#"{"g":"l"}"#).await;
    let mut seen: Vec<Value> = first["items"].as_array().unwrap().clone();
    let mut page = first.clone();
    while let Some(token) = page["metadata"]["continue"].as_str() {
        page = http.get(&format!("{path}&continue={token}")).await.json();
        assert_eq!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        seen.extend(page["items"].as_array().unwrap().clone());
    }
    let names: Vec<&str> = seen.iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4"]);
}

#[tokio::test]
async fn a_table_has_the_columns_of_the_kind() {
    let http = Http::new().await;
    http.config_map("one", r#"{"g":"l"}"#).await;
    let path = format!("{CONFIG_MAPS}?labelSelector=g%3Dl");
    let table = http.get_as(&path, TABLE).await.json();
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let columns = table["columnDefinitions"].as_array().unwrap();
    assert_eq!(columns.iter().map(|c| c["name"].as_str().unwrap()).collect::<Vec<_>>(), ["Name", "Data", "Age"]);
    let row = &table["rows"][0];
    assert_eq!(row["cells"].as_array().unwrap().len(), 3);
    assert_eq!(row["cells"][0], "one");
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    assert!(row["object"].get("data").is_none());
    let whole = http.get_as(&format!("{path}&includeObject=Object"), TABLE).await.json();
    assert_eq!(whole["rows"][0]["object"]["data"], json!({"a": "1"}));
    let bare = http.get_as(&format!("{path}&includeObject=None"), TABLE).await.json();
    assert_eq!(bare["rows"][0]["object"], Value::Null);
    let one = http.get_as(&format!("{CONFIG_MAPS}/one"), TABLE).await.json();
    assert_eq!(one["rows"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn metadata_alone() {
    let http = Http::new().await;
    http.config_map("one", r#"{"g":"l"}"#).await;
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let list = http.get_as(&format!("{CONFIG_MAPS}?labelSelector=g%3Dl"), accept).await.json();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["name"], "one");
    assert!(list["items"][0].get("data").is_none());
    let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let one = http.get_as(&format!("{CONFIG_MAPS}/one"), accept).await.json();
    assert_eq!((&one["kind"], &one["metadata"]["name"]), (&json!("PartialObjectMetadata"), &json!("one")));
}

#[tokio::test]
async fn a_list_as_yaml() {
    let http = Http::new().await;
    http.config_map("one", r#"{"g":"l"}"#).await;
    let answer = http.get_as(&format!("{CONFIG_MAPS}?labelSelector=g%3Dl"), "application/yaml").await;
    assert!(answer.text().contains("kind: ConfigMapList") && answer.text().contains("name: one"), "{}", answer.text());
}
