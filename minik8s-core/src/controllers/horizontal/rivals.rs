//! Which autoscalers lay claim to the same pods: each would undo what the other does.

use crate::api::{LabelOp, Selector};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The pods of every autoscaler that was looked at, as selectors.
#[derive(Default)]
pub(super) struct Rivals(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// By the autoscaler's key: namespace, selector, and the places it is found at.
    selectors: HashMap<String, (Selector, Vec<Place>)>,
    /// Found by a label that its pods must have, or by the namespace alone.
    places: HashMap<Place, BTreeSet<String>>,
}

/// Namespace, and a label that must be there.
type Place = (String, Option<(String, String)>);

impl Rivals {
    /// Says which pods an autoscaler is about.
    pub(super) fn put(&self, key: &str, namespace: &str, selector: &Selector) {
        let mut known = self.0.lock();
        if known.selectors.get(key).is_some_and(|(old, _)| old.to_string() == selector.to_string()) {
            return;
        }
        known.remove(key);
        let places = places(namespace, selector);
        for place in &places {
            known.places.entry(place.clone()).or_default().insert(key.to_owned());
        }
        known.selectors.insert(key.to_owned(), (selector.clone(), places));
    }

    /// Forgets an autoscaler.
    pub(super) fn remove(&self, key: &str) {
        self.0.lock().remove(key);
    }

    /// The autoscalers that are about any of these pods, in order.
    pub(super) fn of(&self, namespace: &str, pods: &[Arc<Pod>]) -> BTreeSet<String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        let known = self.0.lock();
        let mut found = BTreeSet::new();
        for pod in pods {
            let labels = pod.metadata.labels.as_ref().unwrap_or(&NONE);
            let named = labels.iter().map(|(k, v)| (namespace.to_owned(), Some((k.clone(), v.clone()))));
            for place in named.chain([(namespace.to_owned(), None)]) {
                let keys = known.places.get(&place).into_iter().flatten();
                let fits = |key: &&String| known.selectors.get(*key).is_some_and(|(s, _)| s.matches(labels));
                found.extend(keys.filter(fits).cloned());
            }
        }
        found
    }
}

impl Known {
    fn remove(&mut self, key: &str) {
        let Some((_, places)) = self.selectors.remove(key) else { return };
        for place in places {
            if let Some(keys) = self.places.get_mut(&place) {
                keys.remove(key);
                if keys.is_empty() {
                    self.places.remove(&place);
                }
            }
        }
    }
}

/// Where a selector is found from the labels of its pods.
fn places(namespace: &str, selector: &Selector) -> Vec<Place> {
    let strict = selector.requirements().iter().find(|r| matches!(r.op(), LabelOp::In | LabelOp::Equals));
    let Some(strict) = strict else { return vec![(namespace.to_owned(), None)] };
    let key = strict.key().to_owned();
    strict.values().map(|v| (namespace.to_owned(), Some((key.clone(), v.to_owned())))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn autoscalers_of_the_same_pods_are_found_by_their_labels() {
        let rivals = Rivals::default();
        let put = |key: &str, ns: &str, text: &str| rivals.put(key, ns, &Selector::parse(text).unwrap());
        put("n/a", "n", "app=web");
        put("n/b", "n", "app in (web,db),tier");
        put("n/c", "n", "tier");
        put("m/d", "m", "app=web");
        let pod = |labels| -> Vec<Arc<Pod>> {
            vec![Arc::new(serde_json::from_value(json!({"metadata": {"labels": labels}})).unwrap())]
        };
        let of = |labels| rivals.of("n", &pod(labels)).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(of(json!({"app": "web"})), "n/a");
        assert_eq!(of(json!({"app": "web", "tier": "x"})), "n/a n/b n/c");
        put("n/a", "n", "app=other");
        rivals.remove("n/c");
        assert_eq!(of(json!({"app": "web", "tier": "x"})), "n/b");
        assert_eq!(of(json!({})), "");
    }
}
