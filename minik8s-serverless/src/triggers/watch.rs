//! Objects that come, change and go.
//!
//! What is promised: the last state of each object is told at least once. Changes that nobody has taken yet are told as one.
//! While somebody looks, this holds for those that go too, even where the informer lags so far behind that it forgets what
//! happened; after a pause it is known what came and what changed, but not what went.

use super::cloud_event::event;
use super::news::{Known, News};
use super::objects::{ObjectSource, TriggerStatus};
use super::sources::{Broken, Source};
use jiff::Timestamp;
use minik8s_core::api::{Gvr, Object, Revision, Selector, Target};
use minik8s_core::client::{Change, Informer, ListOptions};
use serde_json::{Value, json};
use std::sync::Arc;

/// How far a trigger has looked is written after so many changes that it did not want.
const CHECKPOINT: u64 = 200;
/// The clock by which objects were made may differ so many seconds from the one here.
const SKEW: i64 = 10;

pub(super) async fn run(source: &Source, spec: &ObjectSource) -> Result<(), Broken> {
    let (informer, selector) = prepare(source, spec).await?;
    let mut changes = informer.subscribe();
    if !informer.synced().await {
        return Ok(());
    }
    let status = source.status().await?;
    let told = changes.told();
    let all: Vec<_> = informer.list().into_iter().filter(|object| source.is_near(object)).collect();
    let mut watcher =
        Watcher { source, spec, selector, seen: status.revision, unsaved: 0, known: Known::of(all.clone()) };
    if status.revision == 0 {
        // What is there already is not news.
        watcher.checkpoint(told.max(1)).await;
    }
    source.say("True", "Watching", String::new()).await;
    if status.revision != 0 {
        watcher.catch_up(all, &status).await;
    }
    loop {
        // Whatever was told before this and is not found below was dealt with.
        let told = changes.told();
        let change = match changes.try_next() {
            Some(change) => change,
            None => {
                watcher.reached(told).await;
                let Some(change) = changes.next().await else { return Ok(()) };
                change
            }
        };
        watcher.take(change, &informer).await;
    }
}

async fn prepare(source: &Source, spec: &ObjectSource) -> Result<(Informer<Object>, Option<Selector>), Broken> {
    let (group, version) = spec.api_version.split_once('/').unwrap_or(("", &spec.api_version));
    let gvr = Gvr {
        group: group.to_owned().into(),
        version: version.to_owned().into(),
        resource: spec.resource.clone().into(),
    };
    let options = ListOptions { limit: 1, ..ListOptions::default() };
    if let Err(e) = source.emitter.client.transport().list(&Target::all(gvr.clone()), &options).await {
        return Err(Broken { reason: "NoSuchResource", message: format!("{gvr} cannot be watched: {e}") });
    }
    let selector = spec.selector.as_ref().and_then(|s| serde_json::to_value(s).ok()).map(|s| Selector::from_value(&s));
    match selector.transpose() {
        Ok(selector) => Ok((source.ctx.informers.objects(gvr), selector)),
        Err(e) => Err(Broken { reason: "BadSelector", message: e.to_string() }),
    }
}

struct Watcher<'a> {
    source: &'a Source,
    spec: &'a ObjectSource,
    selector: Option<Selector>,
    /// Changes up to this version were dealt with, as the trigger's status says.
    seen: Revision,
    /// Changes since.
    unsaved: u64,
    known: Known,
}

impl Watcher<'_> {
    async fn take(&mut self, change: Change<Object>, informer: &Informer<Object>) {
        if let Change::Applied { new: object, .. } | Change::Deleted(object) = &change
            && !self.source.is_near(object)
        {
            self.unsaved += 1;
            return;
        }
        let near = || informer.list().into_iter().filter(|object| self.source.is_near(object)).collect();
        for news in self.known.take(change, near) {
            let wanted = self.wants(news.kind);
            self.tell(wanted, news).await;
        }
    }

    /// Tells what came and changed while nobody looked.
    async fn catch_up(&mut self, mut all: Vec<Arc<Object>>, status: &TriggerStatus) {
        let since = status.seen_at.as_ref().and_then(|at| at.parse::<Timestamp>().ok());
        all.retain(|object| object.revision > status.revision);
        all.sort_by_key(|object| object.revision);
        for object in all {
            let kinds = kinds(&object, since);
            let kind = kinds.iter().copied().find(|kind| self.wants(kind));
            self.tell(kind.is_some(), News { kind: kind.unwrap_or("Modified"), old: None, object }).await;
        }
    }

    fn wants(&self, kind: &str) -> bool {
        self.spec.events.is_empty() || self.spec.events.iter().any(|event| event == kind)
    }

    async fn tell(&mut self, wanted: bool, News { kind, old, object }: News) {
        let picked = self.selector.as_ref().is_none_or(|selector| selector.matches(&object.meta.labels));
        if !(wanted && picked) {
            self.unsaved += 1;
            return;
        }
        let value = |object: &Object| object.value().unwrap_or(Value::Null);
        let path = format!("/{}/{}/{}", self.spec.api_version, self.spec.resource, object.key());
        // One state has one name, whatever it is called; and nothing goes twice.
        let state = if kind == "Deleted" { "Deleted".to_owned() } else { object.revision.to_string() };
        let id = format!("{}-{state}", object.meta.uid);
        let data = json!({"event": kind, "object": value(&object), "old": old.map(|old| value(&old))});
        let now = self.source.ctx.clock.now().to_string();
        let told = event(&format!("io.minik8s.object.{}", kind.to_lowercase()), &path, &id, &now, data);
        self.source.emit(told).await;
        self.unsaved = CHECKPOINT;
    }

    /// Everything up to this version was dealt with.
    async fn reached(&mut self, told: Revision) {
        if self.unsaved >= CHECKPOINT {
            self.checkpoint(told).await;
        }
    }

    /// Writes how far this is, so that the next one goes on from here. Where that fails, the next one tells some of it again.
    async fn checkpoint(&mut self, told: Revision) {
        self.unsaved = 0;
        if told == self.seen {
            return;
        }
        let seen_at = self.source.ctx.clock.now().to_string();
        match self.source.patch(json!({"revision": told, "seenAt": seen_at})).await {
            Ok(()) => self.seen = told,
            Err(error) => tracing::debug!(%error, "how far a trigger is cannot be written"),
        }
    }
}

/// What may have happened to an object that is of a newer version than what was seen last, the likelier first: it was made
/// after that, or changed. Objects tell whole seconds, by another clock.
fn kinds(object: &Object, since: Option<Timestamp>) -> &'static [&'static str] {
    let made = object.meta.creation_timestamp.as_ref().and_then(|t| t.parse::<Timestamp>().ok());
    match (made, since) {
        (Some(made), Some(since)) if made.as_second() > since.as_second() + SKEW => &["Added"],
        (Some(made), Some(since)) if made.as_second() < since.as_second() - SKEW => &["Modified"],
        _ => &["Added", "Modified"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_happened_follows_from_when_it_was_made() {
        let since = "2026-01-01T00:01:00Z".parse().ok();
        let object = |made: &str| {
            let json = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "resourceVersion": "1", "creationTimestamp": made}});
            Object::from_json(Gvr::new("", "v1", "configmaps"), serde_json::to_vec(&json).unwrap().into()).unwrap()
        };
        assert_eq!(kinds(&object("2026-01-01T00:02:00Z"), since), ["Added"]);
        assert_eq!(kinds(&object("2026-01-01T00:00:00Z"), since), ["Modified"]);
        assert_eq!(kinds(&object("2026-01-01T00:00:55Z"), since), ["Added", "Modified"], "clocks differ");
        assert_eq!(kinds(&object("2026-01-01T00:00:00Z"), None), ["Added", "Modified"]);
    }
}
