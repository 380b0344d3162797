//! What the simulation must find: clusters with one fault built in.

use async_trait::async_trait;
use minik8s_core::api::{ApiResult, Object, ObjectList, Revision, Target};
use minik8s_core::client::{
    DeleteOptions, DeletePreconditions, Deleted, ListOptions, PatchType, Payload, SharedTransport, Transport,
    WatchOptions, WatchStream, WriteOptions, Written,
};
use minik8s_core::controllers::all;
use minik8s_core::scheduler::{SchedulerConfig, SchedulerLoop};
use minik8s_core::store::{
    Commit, Entry, Precondition, RangePage, RangeRequest, Store, StoreCapabilities, StoreError, WatchStart,
    WatchStream as StoreWatch,
};
use minik8s_core::testkit::simulation::Simulation;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Plays seeds until one fails, and checks what it says.
fn finds(simulation: &Simulation, what: &[&str]) {
    let simulation = simulation.clone().faults_for(Duration::from_secs(40)).settle_within(Duration::from_secs(180));
    let Some(failure) = (1..=6).find_map(|seed| simulation.run(seed).err()) else {
        panic!("none of the seeds found it");
    };
    assert!(what.iter().any(|what| failure.why.contains(what)), "it found something else: {failure}");
}

/// Forgets what must hold of an object for it to be changed or deleted.
struct Careless(SharedTransport);

fn without_preconditions(payload: Payload) -> Payload {
    let Payload::Json(bytes) = &payload else { return payload };
    let mut body: Value = serde_json::from_slice(bytes).unwrap_or_default();
    if let Some(meta) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("resourceVersion");
        meta.remove("uid");
    }
    Payload::Json(body.to_string().into())
}

#[async_trait]
impl Transport for Careless {
    async fn get(&self, target: &Target) -> ApiResult<Arc<Object>> {
        self.0.get(target).await
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> ApiResult<ObjectList> {
        self.0.list(target, options).await
    }

    async fn watch(&self, target: &Target, options: &WatchOptions) -> ApiResult<WatchStream> {
        self.0.watch(target, options).await
    }

    async fn create(&self, target: &Target, body: Payload, options: &WriteOptions) -> ApiResult<Written> {
        self.0.create(target, body, options).await
    }

    async fn update(&self, target: &Target, body: Payload, options: &WriteOptions) -> ApiResult<Written> {
        self.0.update(target, without_preconditions(body), options).await
    }

    async fn patch(
        &self,
        target: &Target,
        kind: PatchType,
        body: Payload,
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        self.0.patch(target, kind, without_preconditions(body), options).await
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> ApiResult<Deleted> {
        let options = DeleteOptions { preconditions: DeletePreconditions::default(), ..options.clone() };
        self.0.delete(target, &options).await
    }

    async fn delete_collection(
        &self,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> ApiResult<ObjectList> {
        self.0.delete_collection(target, list, options).await
    }
}

#[test]
fn a_transport_that_drops_preconditions_is_found() {
    let careless = Simulation::new().transport_layer(|inner| Arc::new(Careless(inner)));
    finds(&careless, &["does not explain", "no order of the calls"]);
}

/// Neither keeps places that only one object may hold, nor knows who holds them.
struct Claimless(Arc<dyn Store>);

fn is_claim(key: &str) -> bool {
    key.contains("/~claims/")
}

#[async_trait]
impl Store for Claimless {
    fn capabilities(&self) -> StoreCapabilities {
        self.0.capabilities()
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        if is_claim(key) { Ok(None) } else { self.0.get(key).await }
    }

    async fn range(&self, request: RangeRequest) -> Result<RangePage, StoreError> {
        self.0.range(request).await
    }

    async fn commit(&self, mut commit: Commit) -> Result<Revision, StoreError> {
        commit.when.retain(|when| !matches!(when, Precondition::Absent(key) if is_claim(key)));
        self.0.commit(commit).await
    }

    async fn watch(&self, prefix: &str, start: WatchStart) -> Result<StoreWatch, StoreError> {
        self.0.watch(prefix, start).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.0.compact(revision).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.0.revision().await
    }
}

#[test]
fn an_allocator_without_claims_is_found() {
    let claimless = Simulation::new().store_layer(|store| Arc::new(Claimless(store)));
    finds(&claimless, &["belongs to"]);
}

#[test]
fn a_cluster_without_garbage_collector_is_found() {
    let littering = Simulation::new().controllers(|config| {
        let mut loops = all(config);
        loops.retain(|controller| controller.name() != "garbage-collector");
        loops.push(Arc::new(SchedulerLoop::new(SchedulerConfig::default())));
        loops
    });
    finds(&littering, &["which is gone", "is still being deleted"]);
}
