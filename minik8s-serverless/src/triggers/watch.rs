//! Objects that come, change and go.

use super::cloud_event::event;
use super::objects::ObjectSource;
use super::sources::{Broken, Source};
use jiff::Timestamp;
use minik8s_core::api::{Gvr, Object, Selector, Target};
use minik8s_core::client::{Change, ListOptions};
use serde_json::{Value, json};
use std::sync::Arc;

/// How far a trigger has looked is written after so many changes that it did not want.
const CHECKPOINT: u64 = 200;

pub(super) async fn run(source: &Source, spec: &ObjectSource) -> Result<(), Broken> {
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
    let selector = match selector.transpose() {
        Ok(selector) => selector,
        Err(e) => return Err(Broken { reason: "BadSelector", message: e.to_string() }),
    };
    let informer = source.ctx.informers.objects(gvr);
    let mut changes = informer.subscribe();
    if !informer.synced().await {
        return Ok(());
    }
    let status = source.trigger.status.clone().unwrap_or_default();
    let mut watcher =
        Watcher { source, spec, selector, seen: status.revision, skipped: 0, since: source.ctx.clock.now() };
    if watcher.seen == 0 {
        // What is there already is not news.
        watcher.seen = informer.revision().max(1);
        watcher.checkpoint().await;
    } else if let Some(at) = status.seen_at.and_then(|at| at.parse().ok()) {
        watcher.since = at;
    }
    source.say("True", "Watching", String::new()).await;
    let mut missed: Vec<Arc<Object>> = informer.list().into_iter().filter(|o| o.revision > watcher.seen).collect();
    missed.sort_by_key(|object| object.revision);
    for object in missed {
        let kind = if watcher.is_new(&object) { "Added" } else { "Modified" };
        watcher.tell(kind, None, &object).await;
    }
    while let Some(change) = changes.next().await {
        match change {
            Change::Applied { old: None, new } => watcher.tell("Added", None, &new).await,
            Change::Applied { old: Some(old), new } => watcher.tell("Modified", Some(&old), &new).await,
            Change::Deleted(old) => watcher.tell("Deleted", None, &old).await,
            Change::Resync => {}
        }
    }
    Ok(())
}

struct Watcher<'a> {
    source: &'a Source,
    spec: &'a ObjectSource,
    selector: Option<Selector>,
    /// Changes up to this version were dealt with.
    seen: u64,
    skipped: u64,
    /// What was made after this was not there when somebody looked last.
    since: Timestamp,
}

impl Watcher<'_> {
    fn is_new(&self, object: &Object) -> bool {
        let made = object.meta.creation_timestamp.as_ref().and_then(|t| t.parse::<Timestamp>().ok());
        // Objects tell whole seconds.
        made.is_some_and(|made| made.as_second() >= self.since.as_second())
    }

    async fn tell(&mut self, kind: &str, old: Option<&Arc<Object>>, object: &Arc<Object>) {
        // A deletion has no version of its own in the last state that is known.
        if kind != "Deleted" && object.revision <= self.seen {
            return;
        }
        self.seen = self.seen.max(object.revision);
        let of_trigger = self.source.trigger.metadata.namespace.as_deref();
        let near = object.meta.namespace.is_empty() || Some(object.meta.namespace.as_str()) == of_trigger;
        let wanted = self.spec.events.is_empty() || self.spec.events.iter().any(|event| event == kind);
        let picked = self.selector.as_ref().is_none_or(|selector| selector.matches(&object.meta.labels));
        if !(near && wanted && picked) {
            self.skipped += 1;
            if self.skipped >= CHECKPOINT {
                self.checkpoint().await;
            }
            return;
        }
        let value = |object: &Object| object.value().unwrap_or(Value::Null);
        let path = format!("/{}/{}/{}", self.spec.api_version, self.spec.resource, object.key());
        let id = format!("{}-{}-{kind}", object.meta.uid, object.revision);
        let data = json!({"event": kind, "object": value(object), "old": old.map(|old| value(old))});
        let now = self.source.ctx.clock.now().to_string();
        let told = event(&format!("io.minik8s.object.{}", kind.to_lowercase()), &path, &id, &now, data);
        self.source.emit(told).await;
        self.checkpoint().await;
    }

    /// Writes how far this is, so that the next one goes on from here.
    async fn checkpoint(&mut self) {
        self.skipped = 0;
        let seen_at = self.source.ctx.clock.now().to_string();
        if let Err(error) = self.source.patch(json!({"revision": self.seen, "seenAt": seen_at})).await {
            tracing::debug!(%error, "how far a trigger is cannot be written");
        }
    }
}
