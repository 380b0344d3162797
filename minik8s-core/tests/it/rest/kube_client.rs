//! kube-rs over the front, without sockets.

use super::{Http, User};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher;
use serde_json::json;
use std::time::Duration;

fn client(http: &Http) -> kube::Client {
    http.rest.kube_client(User::system(), "default")
}

fn config_map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        data: Some([("a".to_owned(), "1".to_owned())].into()),
        ..ConfigMap::default()
    }
}

#[tokio::test]
async fn every_verb() {
    let http = Http::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&http));
    let made = maps.create(&PostParams::default(), &config_map("one")).await.unwrap();
    assert!(made.metadata.uid.is_some());
    let mut read = maps.get("one").await.unwrap();
    read.data = Some([("a".to_owned(), "2".to_owned())].into());
    let replaced = maps.replace("one", &PostParams::default(), &read).await.unwrap();
    // The first version is stale now.
    let stale = maps.replace("one", &PostParams::default(), &made).await.unwrap_err();
    assert!(matches!(stale, kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict"));
    let patch = Patch::Merge(json!({"metadata": {"labels": {"app": "web"}}}));
    let patched = maps.patch("one", &PatchParams::apply("test"), &patch).await.unwrap();
    assert_ne!(patched.metadata.resource_version, replaced.metadata.resource_version);
    let list = maps.list(&ListParams::default().labels("app=web")).await.unwrap();
    assert_eq!(list.items.len(), 1);
    assert_eq!(maps.get_opt("nope").await.unwrap(), None);
    let deleted = maps.delete("one", &DeleteParams::default()).await.unwrap();
    assert!(deleted.is_right(), "a deleted configuration map answers a Status");
    let metadata = maps.get_metadata_opt("one").await.unwrap();
    assert!(metadata.is_none());
}

#[tokio::test]
async fn collections_are_deleted() {
    let http = Http::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&http));
    for name in ["one", "two"] {
        maps.create(&PostParams::default(), &config_map(name)).await.unwrap();
    }
    let deleted = maps.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    assert!(deleted.left().is_some_and(|list| list.items.len() >= 2));
    assert!(maps.get_opt("one").await.unwrap().is_none());
}

#[tokio::test]
async fn watches() {
    let http = Http::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&http));
    let params = WatchParams::default().fields("metadata.name=one").timeout(10);
    let mut events = maps.watch(&params, "0").await.unwrap().boxed();
    maps.create(&PostParams::default(), &config_map("one")).await.unwrap();
    let event = events.try_next().await.unwrap();
    assert!(matches!(event, Some(WatchEvent::Added(map)) if map.metadata.name.as_deref() == Some("one")));
}

#[tokio::test]
async fn watchers_in_both_of_their_ways() {
    let http = Http::new().await;
    let client = client(&http);
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    maps.create(&PostParams::default(), &config_map("one")).await.unwrap();
    let fields = watcher::Config::default().fields("metadata.name!=kube-root-ca.crt");
    for config in [fields.clone(), fields.streaming_lists()] {
        let mut stream = watcher(maps.clone(), config).boxed();
        let mut next = async || {
            tokio::time::timeout(Duration::from_secs(60), stream.try_next()).await.expect("an event").unwrap().unwrap()
        };
        assert!(matches!(next().await, watcher::Event::Init));
        assert!(matches!(next().await, watcher::Event::InitApply(_)));
        assert!(matches!(next().await, watcher::Event::InitDone));
        maps.create(&PostParams::default(), &config_map("two")).await.unwrap();
        assert!(matches!(next().await, watcher::Event::Apply(map) if map.metadata.name.as_deref() == Some("two")));
        maps.delete("two", &DeleteParams::default()).await.unwrap();
        assert!(matches!(next().await, watcher::Event::Delete(map) if map.metadata.name.as_deref() == Some("two")));
    }
}

#[tokio::test]
async fn discovery_finds_the_kinds() {
    let http = Http::new().await;
    let client = client(&http);
    let version = client.apiserver_version().await.unwrap();
    assert_eq!(version.major, "1");
    let discovery = kube::discovery::Discovery::new(client.clone()).run().await.unwrap();
    let core = discovery.get("").expect("the core group");
    assert!(core.recommended_kind("ConfigMap").is_some());
    let aggregated = kube::discovery::Discovery::new(client.clone()).run_aggregated().await.unwrap();
    assert!(aggregated.get("").expect("the core group").recommended_kind("Namespace").is_some());
    let namespaces: Api<Namespace> = Api::all(client);
    assert!(namespaces.get("default").await.is_ok());
}
