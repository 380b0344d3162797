//! The API server: every verb over every kind, above a store. What carries requests to it (REST, gRPC, a direct call)
//! is no business of this module; it is a [`Transport`] like any other.

use super::admission::Admission;
use super::auth::NodeRestriction;
use super::cache::{Caches, Pump, StoredResource, WatchSettings};
use super::scrape::{Adapter, Scraper};
use super::usage::Usage;
use super::{ANYTHING, Kind, KindTable, Metrics, Registry, Settings, kinds, verbs};
use crate::api::{ApiResult, Gvr, Object, ObjectList, Reason, Schemas, Target};
use crate::client::{
    DeleteOptions, Deleted, ListOptions, PatchType, Payload, Transport, WatchOptions, WatchStream, WriteOptions,
    Written,
};
use crate::clock::{SharedClock, SystemClock};
use crate::node::{FilesWish, NodeDirectory, VolumeFile};
use crate::random::Dice;
use crate::store::{Store, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// See [`ApiServerBuilder::store_patience`].
const STORE_PATIENCE: Duration = Duration::from_secs(15);

/// How an [`ApiServer`] is put together.
#[derive(Clone)]
pub struct ApiServerBuilder {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: SharedClock,
    pub(crate) settings: Settings,
    schemas: Schemas,
    watch: WatchSettings,
    kinds: Vec<Arc<dyn Kind>>,
    admission: Vec<Arc<dyn Admission>>,
    nodes: NodeDirectory,
    seed: Option<u64>,
    bootstrap: bool,
    advertise: Option<SocketAddr>,
    adapter: Option<Adapter>,
    patience: Duration,
    resolution: Duration,
}

impl ApiServerBuilder {
    /// Where time comes from.
    #[must_use]
    pub fn clock(self, clock: SharedClock) -> Self {
        Self { clock, ..self }
    }

    /// What kinds default from.
    #[must_use]
    pub fn settings(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// Sizes and times of the watch cache.
    #[must_use]
    pub fn watch_settings(self, watch: WatchSettings) -> Self {
        Self { watch, ..self }
    }

    /// Adds a kind to the built-in ones, or replaces the one of the same resource.
    #[must_use]
    pub fn kind(mut self, kind: Arc<dyn Kind>) -> Self {
        self.kinds.push(kind);
        self
    }

    /// The types of objects; a kind added here has its schema among them.
    #[must_use]
    pub fn schemas(self, schemas: Schemas) -> Self {
        Self { schemas, ..self }
    }

    /// Adds a rule over writes.
    #[must_use]
    pub fn admission(mut self, rule: Arc<dyn Admission>) -> Self {
        self.admission.push(rule);
        self
    }

    /// The nodes that logs and exec are asked of.
    #[must_use]
    pub fn nodes(self, nodes: NodeDirectory) -> Self {
        Self { nodes, ..self }
    }

    /// Makes identities, generated names and allocations repeatable.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// The address at which others reach the server, to which the Service `default/kubernetes` leads; without any it has
    /// no endpoints. Where several servers share the store, see [`ApiServer::keep_presence`].
    #[must_use]
    pub fn advertise(self, address: SocketAddr) -> Self {
        Self { advertise: Some(address), ..self }
    }

    /// A server at this address knows metrics beyond those of pods: plain HTTP, in the words of `custom.metrics.k8s.io` and
    /// `external.metrics.k8s.io`.
    ///
    /// # Errors
    /// `BadRequest` for anything but plain HTTP to a host.
    pub fn metrics_adapter(self, url: &str) -> ApiResult<Self> {
        Ok(Self { adapter: Some(Adapter::new(url)?), ..self })
    }

    /// Over how long a time usage of cpu is averaged, where somebody asks at least that often: what goes up and down
    /// faster is not seen, and load is noticed so much later. 15 seconds unless said; less than a second is one.
    #[must_use]
    pub fn metric_resolution(self, resolution: Duration) -> Self {
        Self { resolution, ..self }
    }

    /// How long the store may not be followed before the server sends those away who speak gRPC with it, nodes above all:
    /// what they would see here is old, and another server may follow the store. 15 seconds unless said.
    #[must_use]
    pub fn store_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Leaves out the namespaces and objects every cluster begins with.
    #[must_use]
    pub fn without_bootstrap(self) -> Self {
        Self { bootstrap: false, ..self }
    }

    /// Loads the state and begins to serve.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn start(self) -> ApiResult<Arc<ApiServer>> {
        let table = KindTable::new(kinds::builtin().into_iter().chain(self.kinds));
        let caches = Arc::new(Caches::new(stored_resources(&table), self.watch));
        let (pump, stream) = Pump::start(self.store.clone(), caches.clone())
            .await
            .map_err(|e: StoreError| verbs::store_error("reading the cluster's state", &e))?;
        let stop = CancellationToken::new();
        tokio::spawn(pump.run(stream, stop.clone()));
        let lost = watch::Sender::new(false);
        let losing = lose(caches.following(), self.patience, lost.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(losing));
        let server = Arc::new(ApiServer {
            store: self.store,
            registry: Registry::new(table),
            caches,
            clock: self.clock,
            settings: self.settings,
            schemas: self.schemas,
            admission: self.admission,
            advertise: self.advertise,
            metrics: Metrics::default(),
            usage: Usage::new(self.nodes.clone(), self.resolution),
            scraper: Scraper::new(self.nodes.clone()),
            adapter: self.adapter,
            nodes: self.nodes,
            dice: Dice::new(self.seed),
            stop: stop.clone(),
            lost,
            _pump: stop.drop_guard(),
        });
        if self.bootstrap {
            super::bootstrap::run(&server).await?;
        }
        Ok(server)
    }
}

/// The stored resources of a table, each with the selectable fields of every kind that reads it.
fn stored_resources(table: &KindTable) -> Vec<StoredResource> {
    let mut all: BTreeMap<Gvr, StoredResource> = BTreeMap::new();
    for kind in table.kinds().filter(|kind| kind.computed().is_none()) {
        let gvr = kind.stored_as().unwrap_or_else(|| kind.names().gvr.clone());
        let resource = all.entry(gvr.clone()).or_insert_with(|| StoredResource::new(gvr));
        for field in kind.fields() {
            if !resource.fields.iter().any(|known| known.path == field.path) {
                resource.fields.push(field);
            }
        }
        for path in kind.indexed_fields() {
            if !resource.indexed.contains(path) {
                resource.indexed.push(path);
            }
        }
    }
    all.into_values().collect()
}

/// The API server. Dropping the last handle ends its watches and stops following the store.
pub struct ApiServer {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Registry,
    pub(crate) caches: Arc<Caches>,
    pub(crate) clock: SharedClock,
    pub(crate) settings: Settings,
    pub(crate) schemas: Schemas,
    pub(crate) admission: Vec<Arc<dyn Admission>>,
    pub(crate) dice: Dice,
    pub(crate) stop: CancellationToken,
    pub(crate) usage: Usage,
    /// Where others reach it.
    pub(crate) advertise: Option<SocketAddr>,
    pub(crate) scraper: Scraper,
    pub(crate) adapter: Option<Adapter>,
    metrics: Metrics,
    nodes: NodeDirectory,
    /// The store has not been followed for longer than there is patience for.
    lost: watch::Sender<bool>,
    _pump: DropGuard,
}

/// Says when the store has been lost for so long, and when it is found again.
async fn lose(mut following: watch::Receiver<bool>, patience: Duration, lost: watch::Sender<bool>) {
    while following.wait_for(|follows| !follows).await.is_ok() {
        tokio::select! {
            biased;
            _ = following.wait_for(|follows| *follows) => continue,
            () = tokio::time::sleep(patience) => {}
        }
        tracing::warn!(?patience, "the store is lost: nodes are sent to other API servers");
        lost.send_replace(true);
        let _ = following.wait_for(|follows| *follows).await;
        lost.send_replace(false);
    }
}

impl ApiServer {
    /// Begins to put a server together.
    pub fn builder(store: Arc<dyn Store>) -> ApiServerBuilder {
        ApiServerBuilder {
            store,
            clock: Arc::new(SystemClock),
            settings: Settings::default(),
            schemas: Schemas::builtin(),
            watch: WatchSettings::default(),
            kinds: Vec::new(),
            admission: vec![Arc::new(NodeRestriction)],
            nodes: NodeDirectory::default(),
            seed: None,
            bootstrap: true,
            advertise: None,
            adapter: None,
            patience: STORE_PATIENCE,
            resolution: super::usage::RESOLUTION,
        }
    }

    /// The kinds that are served.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What the server counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The nodes that logs and exec are asked of.
    pub fn nodes(&self) -> &NodeDirectory {
        &self.nodes
    }

    /// Where time comes from.
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// The types of objects.
    pub fn schemas(&self) -> &Schemas {
        &self.schemas
    }

    /// What kinds default from.
    pub fn cluster_settings(&self) -> &Settings {
        &self.settings
    }

    /// Ends every running watch and stops following the store; requests fail from then on.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }

    /// Asks whether what happens in the store arrives here.
    pub(crate) fn follows_store(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let caches = self.caches.clone();
        move || caches.follows()
    }

    /// True while the store has been lost for longer than there is patience for.
    pub(crate) fn store_lost(&self) -> watch::Receiver<bool> {
        self.lost.subscribe()
    }

    fn count<T>(&self, verb: &'static str, target: &Target, result: ApiResult<T>, ok: u16) -> ApiResult<T> {
        // A series for every word that someone makes up would be a way to fill the memory.
        if result.as_ref().is_err_and(|e| e.reason == Reason::NotFound) && self.registry.get(&target.gvr).is_none() {
            return result;
        }
        // Neither do metrics that somebody makes up.
        let any = Target::all(Gvr { resource: ANYTHING.into(), ..target.gvr.clone() });
        let named = self.registry.get(&target.gvr).is_none_or(|kind| kind.names().gvr.resource != ANYTHING);
        let target = if named { target } else { &any };
        self.metrics.request(verb, target, result.as_ref().map_or_else(|e| e.reason.http_code(), |_| ok));
        result
    }
}

#[async_trait]
impl Transport for ApiServer {
    async fn get(&self, target: &Target) -> ApiResult<Arc<Object>> {
        let result = self.get_object(target).await;
        self.count("GET", target, result, 200)
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> ApiResult<ObjectList> {
        let result = self.list_objects(target, options).await;
        self.count("LIST", target, result, 200)
    }

    async fn watch(&self, target: &Target, options: &WatchOptions) -> ApiResult<WatchStream> {
        let result = self.watch_objects(target, options).await;
        self.count("WATCH", target, result, 200)
    }

    async fn create(&self, target: &Target, body: Payload, options: &WriteOptions) -> ApiResult<Written> {
        let result = Box::pin(self.create_object(target, body, options)).await;
        self.count("POST", target, result, 201)
    }

    async fn update(&self, target: &Target, body: Payload, options: &WriteOptions) -> ApiResult<Written> {
        let result = Box::pin(self.update_object(target, body, options)).await;
        self.count("PUT", target, result, 200)
    }

    async fn patch(
        &self,
        target: &Target,
        kind: PatchType,
        body: Payload,
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        let result = Box::pin(self.patch_object(target, kind, body, options)).await;
        self.count("PATCH", target, result, 200)
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> ApiResult<Deleted> {
        let result = Box::pin(self.delete_object(target, options)).await;
        self.count("DELETE", target, result, 200)
    }

    async fn delete_collection(
        &self,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> ApiResult<ObjectList> {
        let result = Box::pin(self.delete_objects(target, list, options)).await;
        self.count("DELETECOLLECTION", target, result, 200)
    }

    async fn volume_files(&self, pod: &Target, volume: &str, wish: &FilesWish) -> ApiResult<Vec<VolumeFile>> {
        match self.volume(pod, volume).await? {
            Some((node, at)) => node.volume_files(&at, wish).await,
            None => Ok(Vec::new()),
        }
    }

    async fn read_volume(&self, pod: &Target, volume: &str, path: &str, from: u64, most: u64) -> ApiResult<Bytes> {
        match self.volume(pod, volume).await? {
            Some((node, at)) => node.read_volume(&at, path, from, most).await,
            None => Ok(Bytes::new()),
        }
    }
}
