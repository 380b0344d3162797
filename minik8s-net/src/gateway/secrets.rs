//! The Secrets that certificates come from: only those that routes name are followed, each alone, as a node may read no
//! others.

use super::TlsSecret;
use k8s_openapi::api::core::v1::Secret;
use minik8s_core::client::{Client, Informer, InformerOptions};
use minik8s_core::node::CompanionContext;
use minik8s_core::routing::{Certificate, Key};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long the first requests wait for certificates.
const FIRST: Duration = Duration::from_secs(3);

pub(super) struct Secrets {
    client: Client,
    stop: CancellationToken,
    followed: BTreeMap<Key, (Informer<Secret>, DropGuard)>,
    news: Arc<Notify>,
}

impl Secrets {
    pub(super) fn new(ctx: &CompanionContext) -> Self {
        Self { client: ctx.client.clone(), stop: ctx.stop.clone(), followed: BTreeMap::new(), news: Arc::default() }
    }

    /// Follows those that the certificates name, and no others.
    pub(super) fn follow(&mut self, wanted: &[Certificate]) {
        let keys =
            wanted.iter().map(|c| (c.namespace.clone(), c.secret.clone())).collect::<std::collections::BTreeSet<_>>();
        self.followed.retain(|key, _| keys.contains(key));
        for key in keys {
            if self.followed.contains_key(&key) {
                continue;
            }
            let stop = self.stop.child_token();
            let options =
                InformerOptions { field_selector: format!("metadata.name={}", key.1), ..InformerOptions::default() };
            let informer = Informer::start(self.client.api::<Secret>(&key.0), options, stop.clone());
            let (mut changes, news) = (informer.subscribe(), self.news.clone());
            tokio::spawn(async move {
                while changes.next().await.is_some() {
                    news.notify_one();
                }
            });
            self.followed.insert(key, (informer, stop.drop_guard()));
        }
    }

    /// Waits until all are known, but not for long: one that cannot be read must not keep the others from working.
    pub(super) async fn known(&self) {
        let all = self.followed.values().map(|(informer, _)| informer.synced());
        let _ = tokio::time::timeout(FIRST, futures::future::join_all(all)).await;
    }

    /// Waits for a change.
    pub(super) async fn changed(&self) {
        self.news.notified().await;
    }

    /// Those that there are.
    pub(super) fn all(&self) -> HashMap<Key, TlsSecret> {
        let found = self.followed.iter().filter_map(|(key, (informer, _))| {
            let secret = informer.get(&format!("{}/{}", key.0, key.1))?;
            let part = |name: &str| secret.data.as_ref()?.get(name).map(|bytes| bytes.0.clone());
            Some((key.clone(), TlsSecret { certificate: part("tls.crt")?, key: part("tls.key")? }))
        });
        found.collect()
    }
}
