//! What clients of the API are told at the same time, on every store, through one server and through several, with a
//! store that fails: one order must explain all of it.

use super::{body, map, maps};
use futures::StreamExt;
use minik8s_core::api::ApiResult;
use minik8s_core::client::{
    DeleteOptions, DeletePreconditions, ListOptions, PatchType, SharedTransport, Transport, WatchOptions, WriteOptions,
};
use minik8s_core::server::ApiServer;
use minik8s_core::store::{EmbeddedStore, FaultRates, FaultStore, MemoryStore, Store};
use minik8s_core::testkit::etcd::Etcd;
use minik8s_core::testkit::history::{Outcome, Recorder, StoreLog, linearizable};
use minik8s_core::testkit::need::{Need, met};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

const OBJECTS: u64 = 3;
const CLIENTS: u64 = 6;
const CALLS: u64 = 60;

/// Answers come late and get lost, requests are refused, watches break.
fn rates() -> FaultRates {
    let delay = Duration::from_micros(300);
    FaultRates { refuse: 0.02, lose_request: 0.02, lose_reply: 0.03, cut_watch: 0.02, delay }
}

/// One call, chosen by the dice. `known` is what this client saw last.
async fn call(api: &SharedTransport, dice: &mut StdRng, value: u64, known: &mut Option<(String, String)>) {
    let name = format!("o{}", dice.random_range(0..OBJECTS));
    let (at, write) = (map(&name), WriteOptions::default());
    let object = json!({"metadata": {"name": name}, "data": {"v": value.to_string()}});
    let seen: ApiResult<_> = match dice.random_range(0..12) {
        0..3 => api.get(&at).await,
        3..5 => api.create(&maps(), body(&object), &write).await.map(|w| w.object),
        5 => api.update(&at, body(&object), &write).await.map(|w| w.object),
        6..8 => {
            let mut object = object;
            if let Some((version, uid)) = known.take() {
                object["metadata"]["resourceVersion"] = version.into();
                object["metadata"]["uid"] = uid.into();
            }
            api.update(&at, body(&object), &write).await.map(|w| w.object)
        }
        8..10 => {
            let key = format!("k{}", dice.random_range(0..3));
            let patch = body(&json!({"data": {key: value.to_string()}}));
            api.patch(&at, PatchType::Merge, patch, &write).await.map(|w| w.object)
        }
        10 => {
            let options = ListOptions { limit: dice.random_range(0..3), ..ListOptions::default() };
            let page = api.list(&maps(), &options).await;
            if let Some(token) = page.ok().map(|page| page.continue_token).filter(|token| !token.is_empty()) {
                let _ = api.list(&maps(), &ListOptions { continue_token: token, ..ListOptions::default() }).await;
            }
            return;
        }
        _ => {
            let (version, uid) = known.take().unzip();
            let preconditions = match dice.random_bool(0.5) {
                true => DeletePreconditions { uid, resource_version: version },
                false => DeletePreconditions::default(),
            };
            api.delete(&at, &DeleteOptions { preconditions, ..DeleteOptions::default() })
                .await
                .map(|d| d.object().clone())
        }
    };
    if let Ok(object) = seen {
        *known = Some((object.meta.resource_version.clone(), object.meta.uid.clone()));
    }
}

/// Follows the collection, from where the watch before ended.
async fn watch(api: SharedTransport) {
    let mut from = None;
    loop {
        let options = WatchOptions { resource_version: from, bookmarks: true, ..WatchOptions::default() };
        if from.is_none() {
            from = api.list(&maps(), &ListOptions::default()).await.ok().map(|list| list.revision);
        } else if let Ok(mut events) = api.watch(&maps(), &options).await {
            while let Ok(Some(Ok(event))) = tokio::time::timeout(Duration::from_millis(50), events.next()).await {
                from = match event {
                    minik8s_core::api::WatchEvent::Object(_, object) => Some(object.revision),
                    minik8s_core::api::WatchEvent::Bookmark { revision, .. } => Some(revision),
                };
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Several clients at once, spread over servers, each of which stands on one of the handles to the same state.
async fn play(name: &str, seed: u64, truth: Arc<dyn Store>, handles: Vec<Arc<dyn Store>>) {
    // Histories begin without objects.
    let clean = ApiServer::builder(truth.clone()).start().await.unwrap();
    clean.delete_collection(&maps(), &ListOptions::default(), &DeleteOptions::default()).await.unwrap();
    drop(clean);
    let recorder = Recorder::default();
    let mut servers = Vec::new();
    for (i, store) in handles.into_iter().enumerate() {
        servers.push(ApiServer::builder(store).seed(seed + i as u64).start().await.unwrap());
    }
    let (mut clients, mut watchers) = (JoinSet::new(), JoinSet::new());
    for n in 0..CLIENTS {
        let server = servers[n as usize % servers.len()].clone();
        let api = recorder.wrap(&format!("client {n}"), server);
        watchers.spawn(watch(api.clone()));
        clients.spawn(async move {
            let (mut dice, mut known) = (StdRng::seed_from_u64(seed * 1000 + n), None);
            for i in 0..CALLS {
                call(&api, &mut dice, n * CALLS + i, &mut known).await;
            }
        });
    }
    clients.join_all().await;
    watchers.shutdown().await;
    let log = StoreLog::read(&*truth, truth.revision().await.unwrap()).await.unwrap();
    let calls = recorder.calls();
    let done = calls.iter().filter(|call| matches!(call.outcome, Outcome::Is(_) | Outcome::Gone(_))).count();
    assert!(done > calls.len() / 4, "{name}, seed {seed}: only {done} calls of {} did something", calls.len());
    linearizable(&calls).unwrap_or_else(|why| panic!("{name}, seed {seed}: {why}"));
    log.explains(&recorder).unwrap_or_else(|why| panic!("{name}, seed {seed}: {why}"));
}

/// On a healthy store and on one that fails, with one server and with three.
async fn everything(name: &str, truth: Arc<dyn Store>, seed: u64) {
    for (servers, faulty) in [(1, false), (1, true), (3, false), (3, true)] {
        let handle = |n: u64| -> Arc<dyn Store> {
            // Nothing fails while a server starts: that is another test's matter.
            match faulty {
                true => Arc::new(FaultStore::seeded(truth.clone(), seed + n, rates())),
                false => truth.clone(),
            }
        };
        let name = format!("{name}, {servers} servers, faults: {faulty}");
        play(&name, seed, truth.clone(), (0..servers).map(handle).collect()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_on_memory_are_linearizable() {
    for seed in 1..4 {
        everything("memory", Arc::new(MemoryStore::new()), seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_on_the_embedded_store_are_linearizable() {
    let directory = tempfile::tempdir().unwrap();
    everything("embedded", Arc::new(EmbeddedStore::open(directory.path()).await.unwrap()), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_on_etcd_are_linearizable() {
    if !met(&[Need::Etcd]) {
        return;
    }
    let etcd = Etcd::start(1).await;
    everything("etcd", Arc::new(etcd.store("/histories").await), 1).await;
}
