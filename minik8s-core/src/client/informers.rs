//! One informer per collection and selector in a process, shared by all who ask.

use super::{ApiResource, Client, Informer, InformerOptions};
use crate::api::{Gvr, Object, Target};
use parking_lot::Mutex;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

type Key = (TypeId, Gvr, InformerOptions);

/// Informers by kind and selector. Each starts when it is first asked for and runs until the token is cancelled or the
/// last clone of this is dropped. Cheap to clone.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    stop: CancellationToken,
    running: Arc<Mutex<HashMap<Key, Box<dyn Any + Send>>>>,
}

impl Informers {
    /// Informers over a client.
    pub fn new(client: Client, stop: CancellationToken) -> Self {
        Self { client, stop, running: Arc::default() }
    }

    /// The client they use.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// All objects of a kind.
    pub fn of<K: ApiResource>(&self) -> Informer<K> {
        self.select(InformerOptions::default())
    }

    /// The objects of a kind that the selectors pick.
    pub fn select<K: ApiResource>(&self, options: InformerOptions) -> Informer<K> {
        self.shared(K::gvr(), options, |options| Informer::start(self.client.all(), options, self.stop.clone()))
    }

    /// All objects of a resource, undecoded but for their metadata.
    pub fn objects(&self, gvr: Gvr) -> Informer<Object> {
        self.shared(gvr.clone(), InformerOptions::default(), |options| {
            Informer::start_objects(self.client.transport().clone(), Target::all(gvr), options, self.stop.clone())
        })
    }

    fn shared<K: Send + Sync + 'static>(
        &self,
        gvr: Gvr,
        options: InformerOptions,
        start: impl FnOnce(InformerOptions) -> Informer<K>,
    ) -> Informer<K> {
        let mut running = self.running.lock();
        let key = (TypeId::of::<K>(), gvr, options.clone());
        if let Some(informer) = running.get(&key).and_then(|any| any.downcast_ref::<Informer<K>>()) {
            return informer.clone();
        }
        let informer = start(options);
        running.insert(key, Box::new(informer.clone()));
        informer
    }
}
