//! The driver against a scripted transport: what an informer does when watches break.

use super::*;
use crate::api::{ApiError, Gvr, ObjectList, Reason, Revision, WatchEvent, WatchEventType};
use crate::client::{Client, Informers, ListOptions, WatchOptions, WatchStream};
use crate::testkit::StubTransport;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::VecDeque;

const MAPS: Gvr = Gvr::new("", "v1", "configmaps");

fn map(name: &str, uid: &str, revision: Revision, value: &str) -> Arc<Object> {
    let json = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": "ns", "uid": uid,
        "resourceVersion": revision.to_string()}, "data": {"v": value}});
    Arc::new(Object::from_json(MAPS, serde_json::to_vec(&json).unwrap().into()).unwrap())
}

fn list(revision: Revision, items: &[Arc<Object>]) -> ApiResult<ObjectList> {
    Ok(ObjectList { items: items.to_vec(), revision, ..ObjectList::default() })
}

fn event(kind: WatchEventType, object: Arc<Object>) -> ApiResult<WatchEvent> {
    Ok(WatchEvent::Object(kind, object))
}

/// Answers lists and watches from a script, and notes where each watch began. A watch whose script ran out stays open
/// and silent; when no watch is scripted, the same.
#[derive(Default)]
struct Script {
    lists: Mutex<VecDeque<ApiResult<ObjectList>>>,
    watches: Mutex<VecDeque<ApiResult<Vec<ApiResult<WatchEvent>>>>>,
    asked: Mutex<Vec<String>>,
}

impl Script {
    fn list(&self, options: &ListOptions) -> ApiResult<ObjectList> {
        self.asked.lock().push(format!("list{}", options.continue_token));
        self.lists.lock().pop_front().unwrap_or_else(|| Err(ApiError::new(Reason::ServiceUnavailable, "no list")))
    }

    fn watch(&self, options: &WatchOptions) -> ApiResult<WatchStream> {
        self.asked.lock().push(format!("watch {}", options.resource_version.unwrap_or_default()));
        match self.watches.lock().pop_front() {
            None => Ok(futures::stream::pending().boxed()),
            Some(events) => Ok(futures::stream::iter(events?).boxed()),
        }
    }
}

fn client(script: &Arc<Script>) -> Client {
    let (lists, watches) = (script.clone(), script.clone());
    let stub = StubTransport::default();
    let stub = stub.on_list(move |options| lists.list(options)).on_watch(move |options| watches.watch(options));
    Client::new(Arc::new(stub))
}

fn start(script: &Arc<Script>) -> Informer<ConfigMap> {
    Informer::start(client(script).all(), InformerOptions::default(), CancellationToken::new())
}

async fn told(changes: &mut Changes<ConfigMap>, count: usize) -> Vec<String> {
    let value = |m: &ConfigMap| m.data.as_ref().and_then(|d| d.get("v")).cloned().unwrap_or_default();
    let name = |m: &ConfigMap| m.metadata.name.clone().unwrap_or_default();
    let mut out = Vec::new();
    for _ in 0..count {
        out.push(match changes.next().await {
            Some(Change::Applied { old, new }) => {
                format!("{} {}>{}", name(&new), old.as_deref().map(value).unwrap_or_default(), value(&new))
            }
            Some(Change::Deleted(old)) => format!("-{}", name(&old)),
            Some(Change::Resync) => "resync".into(),
            None => "end".into(),
        });
    }
    out
}

#[tokio::test(start_paused = true)]
async fn a_broken_watch_resumes_where_it_was() {
    use WatchEventType::{Added, Modified};
    let script = Arc::new(Script::default());
    script.lists.lock().push_back(list(5, &[map("a", "u1", 3, "1")]));
    script.watches.lock().extend([
        Ok(vec![event(Added, map("b", "u2", 7, "1")), Err(ApiError::new(Reason::ServiceUnavailable, "cut"))]),
        Err(ApiError::new(Reason::ServiceUnavailable, "down")),
        Ok(vec![
            event(Modified, map("a", "u1", 8, "2")),
            Ok(WatchEvent::Bookmark { revision: 20, initial_done: false }),
            Err(ApiError::new(Reason::Timeout, "cut again")),
        ]),
    ]);
    let informer = start(&script);
    let mut changes = informer.subscribe();
    assert_eq!(told(&mut changes, 3).await, ["a >1", "b >1", "a 1>2"]);
    crate::testkit::wait::until("the last watch is open", std::time::Duration::from_secs(60), || async {
        (script.asked.lock().len() == 5).then_some(())
    })
    .await;
    assert_eq!(*script.asked.lock(), ["list", "watch 5", "watch 7", "watch 7", "watch 20"]);
    assert_eq!(informer.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn lost_history_means_a_list_and_only_the_difference_is_told() {
    let script = Arc::new(Script::default());
    let kept = map("kept", "u0", 2, "same");
    script.lists.lock().extend([
        list(5, &[kept.clone(), map("a", "u1", 3, "1"), map("b", "u2", 4, "1")]),
        list(30, &[kept, map("a", "u9", 21, "new")]),
    ]);
    script.watches.lock().push_back(Ok(vec![Err(ApiError::expired("too old"))]));
    let informer = start(&script);
    let mut changes = informer.subscribe();
    // Nobody listened in between, so that only what became of each is told; who went is always told.
    assert_eq!(told(&mut changes, 4).await, ["kept >same", "-a", "a >new", "-b"]);
    assert_eq!(script.asked.lock()[..3], ["list", "watch 5", "list"]);
    assert!(informer.get("ns/b").is_none());
}

#[tokio::test(start_paused = true)]
async fn pages_are_put_together_and_lists_are_tried_until_one_works() {
    let script = Arc::new(Script::default());
    let mut first = list(5, &[map("a", "u1", 3, "1")]).unwrap();
    first.continue_token = " more".into();
    script.lists.lock().extend([
        Err(ApiError::new(Reason::ServiceUnavailable, "not yet")),
        Ok(first),
        list(5, &[map("b", "u2", 4, "1")]),
    ]);
    let informer = start(&script);
    assert!(!informer.is_synced());
    assert!(informer.synced().await);
    assert_eq!(informer.list_in("ns").len(), 2);
    assert_eq!(script.asked.lock()[..3], ["list", "list", "list more"]);
}

#[tokio::test(start_paused = true)]
async fn a_lagging_subscriber_is_told_of_every_object_once() {
    let script = Arc::new(Script::default());
    script.lists.lock().push_back(list(1, &[]));
    let make = |r| event(WatchEventType::Added, map(&format!("m{r}"), &format!("u{r}"), r, "x"));
    let change = |r| event(WatchEventType::Modified, map("m2", "u2", r, &r.to_string()));
    let many = (2..2000).map(make).chain((2000..3000).map(change));
    script.watches.lock().push_back(Ok(many.chain([Err(ApiError::internal("end"))]).collect()));
    let informer = start(&script);
    let mut changes = informer.subscribe();
    crate::testkit::wait::until("all are in", std::time::Duration::from_secs(60), || async {
        (informer.revision() == 2999).then_some(())
    })
    .await;
    let told = told(&mut changes, 1998).await;
    assert_eq!((told[0].as_str(), told[1997].as_str()), ("m2 >2999", "m1999 >x"));
    assert_eq!((changes.told(), changes.try_next().is_none()), (2999, true), "it was told of all there is");
}

#[tokio::test(start_paused = true)]
async fn a_list_with_many_differences_does_not_outrun_its_subscribers() {
    let script = Arc::new(Script::default());
    let many: Vec<_> = (2..2000).map(|r| map(&format!("m{r}"), &format!("u{r}"), r, "x")).collect();
    script.lists.lock().extend([list(2000, &many), list(3000, &[])]);
    script.watches.lock().push_back(Ok(vec![Err(ApiError::expired("too old"))]));
    let informer = start(&script);
    let mut changes = informer.subscribe();
    let told = told(&mut changes, 2 * many.len()).await;
    assert!(told[..many.len()].iter().all(|t| t.ends_with(" >x")), "all came");
    assert!(told[many.len()..].iter().all(|t| t.starts_with('-')), "all went");
}

#[tokio::test(start_paused = true)]
async fn it_stops_when_the_last_handle_goes_and_when_told() {
    let script = Arc::new(Script::default());
    script.lists.lock().push_back(list(1, &[]));
    let stop = CancellationToken::new();
    let informers = Informers::new(client(&script), stop.clone());
    let (one, two) = (informers.of::<ConfigMap>(), informers.of::<ConfigMap>());
    assert!(Arc::ptr_eq(&one.inner, &two.inner), "one informer per collection");
    let mut changes = one.subscribe();
    assert!(one.synced().await);
    let child = one.inner.stopped.clone();
    stop.cancel();
    assert_eq!(told(&mut changes, 1).await, ["end"]);
    assert!(child.is_cancelled());

    let alone = start(&script);
    let child = alone.inner.stopped.clone();
    drop(alone);
    assert!(child.is_cancelled());
    let never = start(&Arc::new(Script::default()));
    never.inner.stopped.cancel();
    assert!(!never.synced().await);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_does_not_decode_is_left_out() {
    let script = Arc::new(Script::default());
    let json = br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"bad","resourceVersion":"2"},"data":7}"#;
    let bad = Arc::new(Object::from_json(MAPS, json.to_vec().into()).unwrap());
    script.lists.lock().push_back(list(5, &[bad, map("a", "u1", 3, "1")]));
    let informer = start(&script);
    assert!(informer.synced().await);
    assert_eq!(informer.len(), 1);
}
