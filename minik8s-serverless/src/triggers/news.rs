//! What is news about objects to somebody who was told of some of their states. Pure.
//!
//! What was told is remembered for each object by itself: an informer folds what nobody has taken yet by object, so that
//! changes do not come in the order of their versions.

use minik8s_core::api::Object;
use minik8s_core::client::Change;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// One thing that is news.
#[derive(Clone, Debug)]
pub(super) struct News {
    /// `Added`, `Modified` or `Deleted`.
    pub(super) kind: &'static str,
    /// The state that was known before.
    pub(super) old: Option<Arc<Object>>,
    /// The state now; of what went, the last one that is known.
    pub(super) object: Arc<Object>,
}

/// The last state of each object that was told.
#[derive(Default)]
pub(super) struct Known(HashMap<String, Arc<Object>>);

impl Known {
    /// What is known from the start.
    pub(super) fn of(objects: impl IntoIterator<Item = Arc<Object>>) -> Self {
        Self(objects.into_iter().map(|object| (object.key(), object)).collect())
    }

    /// Takes a change in. `now` tells all objects there are, where the change says that some were missed.
    pub(super) fn take(&mut self, change: Change<Object>, now: impl FnOnce() -> Vec<Arc<Object>>) -> Vec<News> {
        match change {
            Change::Applied { new, .. } => self.applied(new),
            Change::Deleted(last) => self.deleted(last),
            Change::Resync => self.compare(now()),
        }
    }

    fn applied(&mut self, new: Arc<Object>) -> Vec<News> {
        let mut news = Vec::new();
        match self.0.get(&new.key()).cloned() {
            Some(old) if old.meta.uid != new.meta.uid => news.extend(self.deleted(old)),
            // The list may have shown it already.
            Some(old) if old.revision == new.revision => return news,
            _ => {}
        }
        let old = self.0.insert(new.key(), new.clone());
        let kind = if old.is_some() { "Modified" } else { "Added" };
        news.push(News { kind, old, object: new });
        news
    }

    fn deleted(&mut self, last: Arc<Object>) -> Vec<News> {
        if self.0.get(&last.key()).is_some_and(|known| known.meta.uid == last.meta.uid) {
            self.0.remove(&last.key());
        }
        vec![News { kind: "Deleted", old: None, object: last }]
    }

    fn compare(&mut self, mut all: Vec<Arc<Object>>) -> Vec<News> {
        let there: HashSet<String> = all.iter().map(|object| object.key()).collect();
        let gone: Vec<_> = self.0.iter().filter(|(key, _)| !there.contains(*key)).map(|(_, o)| o.clone()).collect();
        all.sort_by_key(|object| object.revision);
        let mut news: Vec<News> = gone.into_iter().flat_map(|last| self.deleted(last)).collect();
        news.extend(all.into_iter().flat_map(|object| self.applied(object)));
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik8s_core::api::Gvr;
    use serde_json::json;

    fn object(name: &str, uid: &str, revision: u64) -> Arc<Object> {
        let json = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": "ns", "uid": uid,
            "resourceVersion": revision.to_string()}});
        Arc::new(
            Object::from_json(Gvr::new("", "v1", "configmaps"), serde_json::to_vec(&json).unwrap().into()).unwrap(),
        )
    }

    fn applied(name: &str, uid: &str, revision: u64) -> Change<Object> {
        Change::Applied { old: None, new: object(name, uid, revision) }
    }

    fn told(known: &mut Known, change: Change<Object>, now: &[Arc<Object>]) -> Vec<String> {
        let tell = |news: News| format!("{} {}@{}", news.kind, news.object.meta.name, news.object.revision);
        known.take(change, || now.to_vec()).into_iter().map(tell).collect()
    }

    #[test]
    fn an_older_change_of_another_object_is_news_too() {
        let mut known = Known::of([object("a", "1", 5), object("b", "2", 6)]);
        // What waits is folded by object: the newest state of the first comes before an older one of the second.
        assert_eq!(told(&mut known, applied("a", "1", 12), &[]), ["Modified a@12"]);
        assert_eq!(told(&mut known, applied("b", "2", 11), &[]), ["Modified b@11"]);
        assert_eq!(told(&mut known, applied("c", "3", 10), &[]), ["Added c@10"]);
        assert!(told(&mut known, applied("c", "3", 10), &[]).is_empty(), "known");
        assert_eq!(told(&mut known, applied("c", "4", 14), &[]), ["Deleted c@10", "Added c@14"]);
        assert_eq!(told(&mut known, Change::Deleted(object("b", "2", 11)), &[]), ["Deleted b@11"]);
        assert_eq!(told(&mut known, Change::Deleted(object("brief", "9", 15)), &[]), ["Deleted brief@15"]);
    }

    #[test]
    fn a_look_at_everything_finds_what_came_changed_and_went() {
        let mut known = Known::of([object("a", "1", 5), object("b", "2", 6), object("c", "3", 7), object("d", "4", 8)]);
        let now = [object("a", "1", 5), object("b", "2", 20), object("d", "5", 19), object("e", "6", 18)];
        let news = told(&mut known, Change::Resync, &now);
        assert_eq!(news, ["Deleted c@7", "Added e@18", "Deleted d@8", "Added d@19", "Modified b@20"]);
        assert!(told(&mut known, Change::Resync, &now).is_empty());
    }
}
