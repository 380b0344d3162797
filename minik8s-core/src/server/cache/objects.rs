//! The newest version of every object of a resource, in key order; how many there are in each namespace; and which of
//! them have a certain value in a field that is asked for often, so that a question about few does not cost a look at all.

use super::Filter;
use super::filter::field;
use crate::api::Object;
use crate::store::Key;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// Keys by the value of one field.
struct Index {
    path: &'static str,
    keys: HashMap<String, BTreeSet<Key>>,
}

/// Objects by key.
pub(super) struct Objects {
    all: BTreeMap<Key, Arc<Object>>,
    by_namespace: HashMap<String, usize>,
    indexes: Vec<Index>,
}

impl Objects {
    /// None yet, with these fields indexed.
    pub(super) fn new(indexed: &[&'static str]) -> Self {
        let index = |path: &&'static str| Index { path, keys: HashMap::new() };
        Self { all: BTreeMap::new(), by_namespace: HashMap::new(), indexes: indexed.iter().map(index).collect() }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<Object>> {
        self.all.get(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.all.keys()
    }

    pub(super) fn insert(&mut self, key: Key, object: Arc<Object>) -> Option<Arc<Object>> {
        let before = self.all.insert(key.clone(), object.clone());
        let value = |index: &Index, object: &Object| field(object, index.path).unwrap_or_default().to_owned();
        for index in &mut self.indexes {
            let now = value(index, &object);
            if let Some(before) = &before {
                let was = value(index, before);
                if was == now {
                    continue;
                }
                index.take(&was, &key);
            }
            index.keys.entry(now).or_default().insert(key.clone());
        }
        if before.is_none() {
            match self.by_namespace.get_mut(&object.meta.namespace) {
                Some(count) => *count += 1,
                None => drop(self.by_namespace.insert(object.meta.namespace.clone(), 1)),
            }
        }
        before
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Arc<Object>> {
        let gone = self.all.remove(key)?;
        for index in &mut self.indexes {
            index.take(field(&gone, index.path).unwrap_or_default(), key);
        }
        if let Some(count) = self.by_namespace.get_mut(&gone.meta.namespace) {
            *count -= 1;
            if *count == 0 {
                self.by_namespace.remove(&gone.meta.namespace);
            }
        }
        Some(gone)
    }

    /// How many there are in the namespace of the filter, or in all.
    pub(super) fn count(&self, filter: &Filter) -> usize {
        match filter.namespace() {
            None => self.all.len(),
            Some(namespace) => self.by_namespace.get(namespace).copied().unwrap_or_default(),
        }
    }

    /// Objects from a key on, in key order: all that the filter can mean, and others.
    pub(super) fn range<'a>(
        &'a self,
        from: Bound<&'a str>,
        filter: &Filter,
    ) -> Box<dyn Iterator<Item = (&'a Key, &'a Arc<Object>)> + 'a> {
        let bounds = (from, Bound::Unbounded);
        let indexed = self.indexes.iter().find_map(|index| Some((index, filter.exact(index.path)?)));
        match indexed {
            None => Box::new(self.all.range::<str, _>(bounds)),
            Some((index, value)) => {
                let keys = index.keys.get(value).into_iter().flat_map(move |keys| keys.range::<str, _>(bounds));
                Box::new(keys.filter_map(|key| self.all.get_key_value(key)))
            }
        }
    }
}

impl Index {
    fn take(&mut self, value: &str, key: &str) {
        if let Some(keys) = self.keys.get_mut(value) {
            keys.remove(key);
            if keys.is_empty() {
                self.keys.remove(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Gvr, Target};

    const PODS: Gvr = Gvr::new("", "v1", "pods");

    fn pod(namespace: &str, name: &str, node: &str) -> (Key, Arc<Object>) {
        let json = serde_json::json!({"metadata": {"namespace": namespace, "name": name}});
        let mut object = Object::from_json(PODS, json.to_string().into()).unwrap();
        object.fields = vec![("spec.nodeName", node.to_owned())].into();
        (format!("/registry/core/pods/{namespace}/{name}").into(), Arc::new(object))
    }

    fn filter(namespace: Option<&str>, fields: &str) -> Filter {
        let target = namespace.map_or_else(|| Target::all(PODS), |ns| Target::in_namespace(PODS, ns));
        Filter::new(&crate::server::kinds::pod::PodKind::new(), &target, "", fields).unwrap()
    }

    fn names(objects: &Objects, filter: &Filter) -> Vec<String> {
        let found = objects.range(Bound::Included("/registry/core/pods/"), filter);
        found.filter(|(_, o)| filter.matches(o)).map(|(_, o)| o.meta.name.clone()).collect()
    }

    #[test]
    fn the_index_follows_moves_and_says_what_a_scan_would_say() {
        let (mut indexed, mut plain) = (Objects::new(&["spec.nodeName"]), Objects::new(&[]));
        let steps =
            [("a", "x", ""), ("a", "y", "n1"), ("b", "z", "n1"), ("a", "x", "n1"), ("a", "y", "n2"), ("b", "z", "n1")];
        for (namespace, name, node) in steps {
            for objects in [&mut indexed, &mut plain] {
                let (key, object) = pod(namespace, name, node);
                objects.insert(key, object);
            }
            for (namespace, fields) in [
                (None, "spec.nodeName=n1"),
                (Some("a"), "spec.nodeName=n1"),
                (None, "spec.nodeName="),
                (None, "spec.nodeName!=n1"),
                (None, "spec.nodeName=n1,metadata.name=z"),
                (None, ""),
            ] {
                let filter = filter(namespace, fields);
                assert_eq!(names(&indexed, &filter), names(&plain, &filter), "{fields}");
            }
        }
        assert_eq!(names(&indexed, &filter(None, "spec.nodeName=n1")), ["x", "z"]);
        for (namespace, name) in [("a", "x"), ("a", "y"), ("b", "z")] {
            assert!(indexed.remove(&pod(namespace, name, "").0).is_some());
        }
        assert!(indexed.indexes[0].keys.is_empty() && indexed.by_namespace.is_empty());
    }

    #[test]
    fn objects_are_counted_by_namespace() {
        let mut objects = Objects::new(&[]);
        for (namespace, name) in [("a", "x"), ("a", "x"), ("a", "y"), ("b", "z")] {
            let (key, object) = pod(namespace, name, "");
            objects.insert(key, object);
        }
        let count = |namespace| objects.count(&filter(namespace, ""));
        assert_eq!([count(None), count(Some("a")), count(Some("b")), count(Some("c"))], [3, 2, 1, 0]);
    }
}
