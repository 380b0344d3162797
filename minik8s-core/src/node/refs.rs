//! The ConfigMaps and Secrets pods refer to: each watched by itself while a pod uses it, and never anything else, so
//! that a node learns only the secrets it needs.

use super::pod;
use super::pods::Pods;
use super::spec::{ConfigError, Sources};
use crate::client::{Api, ApiResource, Client, Informer, InformerOptions, object_key};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Volume};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a container waits for the first answer about an object.
const FIRST_ANSWER: Duration = Duration::from_secs(20);

/// Names of the objects a pod refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) config_maps: BTreeSet<String>,
    pub(crate) secrets: BTreeSet<String>,
}

impl Names {
    pub(crate) fn of(pod: &Pod) -> Self {
        let mut names = Self::default();
        pod::containers(pod).for_each(|(_, container)| names.container(container));
        pod::spec(pod).volumes.iter().flatten().for_each(|volume| names.volume(volume));
        names.secrets.extend(pod::spec(pod).image_pull_secrets.iter().flatten().map(|s| s.name.clone()));
        names
    }

    fn container(&mut self, container: &Container) {
        for from in container.env_from.iter().flatten() {
            self.config_maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
            self.secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
        }
        for from in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
            self.config_maps.extend(from.config_map_key_ref.as_ref().map(|r| r.name.clone()));
            self.secrets.extend(from.secret_key_ref.as_ref().map(|r| r.name.clone()));
        }
    }

    fn volume(&mut self, volume: &Volume) {
        self.config_maps.extend(volume.config_map.as_ref().map(|v| v.name.clone()));
        self.secrets.extend(volume.secret.as_ref().and_then(|v| v.secret_name.clone()));
        for part in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            self.config_maps.extend(part.config_map.as_ref().map(|v| v.name.clone()));
            self.secrets.extend(part.secret.as_ref().map(|v| v.name.clone()));
        }
    }
}

/// The watched objects.
pub(crate) struct Refs {
    config_maps: Watched<ConfigMap>,
    secrets: Watched<Secret>,
}

impl Refs {
    pub(crate) fn new(client: Client, pods: Arc<Pods>) -> Self {
        Self { config_maps: Watched::new(client.clone(), pods.clone()), secrets: Watched::new(client, pods) }
    }

    /// The objects a pod refers to, as they are now; watched from here until [`release`](Self::release).
    pub(crate) async fn sources(&self, pod: &Pod) -> Result<Sources, ConfigError> {
        let names = Names::of(pod);
        Ok(Sources {
            config_maps: self.config_maps.all(pod, &names.config_maps).await?,
            secrets: self.secrets.all(pod, &names.secrets).await?,
            services: Vec::new(),
        })
    }

    /// The pod uses nothing any more.
    pub(crate) fn release(&self, uid: &str) {
        self.config_maps.release(uid);
        self.secrets.release(uid);
    }
}

struct Watched<K: ApiResource> {
    client: Client,
    pods: Arc<Pods>,
    entries: Arc<Mutex<HashMap<String, Entry<K>>>>,
}

struct Entry<K: ApiResource> {
    informer: Informer<K>,
    users: BTreeSet<String>,
    /// Ends the informer and the task that spreads its news.
    _stop: DropGuard,
}

impl<K: ApiResource> Watched<K> {
    fn new(client: Client, pods: Arc<Pods>) -> Self {
        Self { client, pods, entries: Arc::default() }
    }

    async fn all(&self, pod: &Pod, names: &BTreeSet<String>) -> Result<BTreeMap<String, Arc<K>>, ConfigError> {
        let mut found = BTreeMap::new();
        for name in names {
            let informer = self.acquire(pod::namespace(pod), name, pod::uid(pod));
            let synced = tokio::time::timeout(FIRST_ANSWER, informer.synced()).await;
            if !synced.unwrap_or(false) {
                let (kind, namespace) = (K::KIND.to_lowercase(), pod::namespace(pod));
                return Err(ConfigError::new(format!("the API does not answer about {kind} {namespace}/{name}")));
            }
            if let Some(object) = informer.get(&object_key(pod::namespace(pod), name)) {
                found.insert(name.clone(), object);
            }
        }
        Ok(found)
    }

    fn acquire(&self, namespace: &str, name: &str, uid: &str) -> Informer<K> {
        let key = object_key(namespace, name);
        let mut entries = self.entries.lock();
        let entry = entries.entry(key.clone()).or_insert_with(|| self.watch(namespace, name, key));
        entry.users.insert(uid.to_owned());
        entry.informer.clone()
    }

    fn watch(&self, namespace: &str, name: &str, key: String) -> Entry<K> {
        let stop = CancellationToken::new();
        let options = InformerOptions { field_selector: format!("metadata.name={name}"), ..InformerOptions::default() };
        let api: Api<K> = self.client.api(namespace);
        let informer = Informer::start(api, options, stop.clone());
        let mut changes = informer.subscribe();
        let (entries, pods, token) = (self.entries.clone(), self.pods.clone(), stop.clone());
        tokio::spawn(token.run_until_cancelled_owned(async move {
            while changes.next().await.is_some() {
                let users = entries.lock().get(&key).map(|entry| entry.users.clone()).unwrap_or_default();
                for handle in users.iter().filter_map(|uid| pods.get(uid)) {
                    handle.edit(|slot| slot.changed = true);
                }
            }
        }));
        Entry { informer, users: BTreeSet::new(), _stop: stop.drop_guard() }
    }

    fn release(&self, uid: &str) {
        self.entries.lock().retain(|_, entry| {
            entry.users.remove(uid);
            !entry.users.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_place_that_names_an_object_is_found() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"imagePullSecrets": [{"name": "s1"}],
            "initContainers": [{"name": "i", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}}]}],
            "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "c1"}}],
                "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c2", "key": "k"}}}]}],
            "volumes": [{"name": "v", "configMap": {"name": "c3"}}, {"name": "w", "secret": {"secretName": "s3"}},
                {"name": "x", "projected": {"sources": [{"secret": {"name": "s4"}}, {"configMap": {"name": "c4"}}]}}]}}))
        .unwrap();
        let names = Names::of(&pod);
        assert_eq!(names.config_maps.into_iter().collect::<Vec<_>>(), ["c1", "c2", "c3", "c4"]);
        assert_eq!(names.secrets.into_iter().collect::<Vec<_>>(), ["s1", "s2", "s3", "s4"]);
    }
}
