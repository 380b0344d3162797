//! What an informer knows: objects by key, with indexes. Pure; the driver feeds it.

use super::Change;
use crate::api::Revision;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// One object in the cache.
pub(super) struct Entry<K> {
    pub(super) value: Arc<K>,
    pub(super) uid: String,
    pub(super) revision: Revision,
}

/// A change, and the key of the object that changed.
pub(super) type Told<K> = (Arc<str>, Change<K>);

/// Which index keys an object stands under.
pub(super) type IndexFn<K> = Arc<dyn Fn(&K) -> Vec<String> + Send + Sync>;

struct Index<K> {
    keys: IndexFn<K>,
    objects: HashMap<String, BTreeSet<Arc<str>>>,
}

/// Objects by `namespace/name`, in key order.
pub(super) struct Cache<K> {
    objects: BTreeMap<Arc<str>, Entry<K>>,
    indexes: HashMap<&'static str, Index<K>>,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), indexes: HashMap::new() }
    }
}

impl<K> Cache<K> {
    pub(super) fn get(&self, key: &str) -> Option<Arc<K>> {
        self.objects.get(key).map(|e| e.value.clone())
    }

    /// The cached value, where it is of this very version.
    pub(super) fn at_revision(&self, key: &str, revision: Revision) -> Option<Arc<K>> {
        self.objects.get(key).filter(|e| e.revision == revision).map(|e| e.value.clone())
    }

    pub(super) fn list(&self) -> Vec<Arc<K>> {
        self.objects.values().map(|e| e.value.clone()).collect()
    }

    pub(super) fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        let prefix = format!("{namespace}/");
        let from = self.objects.range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded));
        from.take_while(|(key, _)| key.starts_with(&prefix)).map(|(_, e)| e.value.clone()).collect()
    }

    pub(super) fn list_by(&self, index: &str, key: &str) -> Vec<Arc<K>> {
        let found = self.indexes.get(index).and_then(|i| i.objects.get(key));
        found.into_iter().flatten().filter_map(|k| self.get(k)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// Adds an index over what is there and what will come. The first of a name wins.
    pub(super) fn add_index(&mut self, name: &'static str, keys: IndexFn<K>) {
        if self.indexes.contains_key(name) {
            return;
        }
        let mut index = Index { keys, objects: HashMap::new() };
        for (key, entry) in &self.objects {
            index.put(key, &entry.value);
        }
        self.indexes.insert(name, index);
    }

    /// Takes a newer version in. An older or the same one changes nothing. Where the object was deleted and made again
    /// unseen, that is two changes.
    pub(super) fn apply(&mut self, key: &str, new: Entry<K>) -> Vec<Told<K>> {
        match self.objects.get(key) {
            Some(old) if old.revision >= new.revision => Vec::new(),
            _ => self.put(key, new),
        }
    }

    fn put(&mut self, key: &str, new: Entry<K>) -> Vec<Told<K>> {
        let mut changes = Vec::with_capacity(1);
        if self.objects.get(key).is_some_and(|old| old.uid != new.uid) {
            changes.extend(self.remove(key));
        }
        let known = self.objects.get_key_value(key).map(|(key, _)| key.clone());
        let key: Arc<str> = known.unwrap_or_else(|| Arc::from(key));
        let value = new.value.clone();
        let old = self.objects.insert(key.clone(), new).map(|e| e.value);
        for index in self.indexes.values_mut() {
            if let Some(old) = &old {
                index.take(&key, old);
            }
            index.put(&key, &value);
        }
        changes.push((key, Change::Applied { old, new: value }));
        changes
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Told<K>> {
        let (key, entry) = self.objects.remove_entry(key)?;
        for index in self.indexes.values_mut() {
            index.take(&key, &entry.value);
        }
        Some((key, Change::Deleted(entry.value)))
    }

    /// Takes a whole list in: what differs is changed, what is not in it is gone. Revisions may go back, as they do when
    /// a server with a volatile store was started anew.
    pub(super) fn replace(&mut self, list: Vec<(String, Entry<K>)>) -> Vec<Told<K>> {
        let kept: BTreeSet<&str> = list.iter().map(|(key, _)| key.as_str()).collect();
        let gone: Vec<Arc<str>> = self.objects.keys().filter(|k| !kept.contains(&***k)).cloned().collect();
        let mut changes: Vec<_> = gone.iter().filter_map(|key| self.remove(key)).collect();
        for (key, entry) in list {
            if self.at_revision(&key, entry.revision).is_none() {
                changes.extend(self.put(&key, entry));
            }
        }
        changes
    }
}

impl<K> Index<K> {
    fn put(&mut self, key: &Arc<str>, value: &K) {
        for name in (self.keys)(value) {
            self.objects.entry(name).or_default().insert(key.clone());
        }
    }

    fn take(&mut self, key: &str, value: &K) {
        for name in (self.keys)(value) {
            if let Some(set) = self.objects.get_mut(&name) {
                set.remove(key);
                if set.is_empty() {
                    self.objects.remove(&name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: &str, uid: &str, revision: Revision) -> Entry<String> {
        Entry { value: Arc::new(value.to_owned()), uid: uid.to_owned(), revision }
    }

    fn told(changes: Vec<Told<String>>) -> Vec<String> {
        let tell = |c: &Change<String>| match c {
            Change::Applied { old, new } => format!("{}>{new}", old.as_deref().map_or("", |o| o.as_str())),
            Change::Deleted(old) => format!("-{old}"),
            Change::Resync => "resync".to_owned(),
        };
        changes.iter().map(|(_, change)| tell(change)).collect()
    }

    #[test]
    fn old_and_repeated_versions_change_nothing() {
        let mut cache = Cache::default();
        assert_eq!(told(cache.apply("a", entry("1", "u", 5))), [">1"]);
        assert!(cache.apply("a", entry("0", "u", 4)).is_empty());
        assert!(cache.apply("a", entry("1", "u", 5)).is_empty());
        assert_eq!(told(cache.apply("a", entry("2", "u", 6))), ["1>2"]);
    }

    #[test]
    fn a_list_tells_the_difference_and_another_uid_is_another_object() {
        let mut cache = Cache::default();
        let first = [("a", "1", "u1", 1), ("b", "1", "u2", 2), ("c", "1", "u3", 3)];
        let second = [("a", "1", "u1", 1), ("b", "2", "u2", 7), ("c", "9", "u4", 8), ("d", "1", "u5", 9)];
        let load = |rows: &[(&str, &str, &str, u64)]| {
            rows.iter().map(|(k, v, u, r)| ((*k).to_owned(), entry(v, u, *r))).collect::<Vec<_>>()
        };
        cache.replace(load(&first));
        assert_eq!(told(cache.replace(load(&second))), ["1>2", "-1", ">9", ">1"]);
        assert_eq!(told(cache.replace(load(&second[3..]))), ["-1", "-2", "-9"]);
    }

    #[test]
    fn a_list_wins_even_when_revisions_went_back() {
        let mut cache = Cache::default();
        cache.apply("a", entry("1", "u", 50));
        assert_eq!(told(cache.replace(vec![("a".into(), entry("2", "u", 7))])), ["1>2"]);
    }

    #[test]
    fn indexes_follow_changes_and_can_be_added_late() {
        let mut cache = Cache::default();
        cache.apply("a", entry("red", "u1", 1));
        cache.add_index("colour", Arc::new(|v: &String| vec![v.clone()]));
        cache.apply("b", entry("red", "u2", 2));
        assert_eq!(cache.list_by("colour", "red").len(), 2);
        cache.apply("a", entry("blue", "u1", 3));
        cache.remove("b");
        assert!(cache.list_by("colour", "red").is_empty());
        assert_eq!(cache.list_by("colour", "blue").len(), 1);
        assert!(cache.list_by("size", "red").is_empty());
    }

    #[test]
    fn a_namespace_is_not_the_prefix_of_another() {
        let mut cache = Cache::default();
        for (i, key) in ["team/a", "team-2/a", "team2/a", "tea/m", "team"].iter().enumerate() {
            cache.apply(key, entry(key, key, i as u64 + 1));
        }
        let names: Vec<_> = cache.list_in("team").iter().map(|v| v.to_string()).collect();
        assert_eq!(names, ["team/a"]);
    }
}
