//! The kinds a cluster has, as its discovery tells, found by any of their names.

use super::conn::Conn;
use anyhow::{Result, bail};
use kube::core::discovery::v2::{APIGroupDiscoveryList, APIResourceDiscovery};

/// A kind of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
}

impl Resource {
    pub(crate) fn api_version(&self) -> String {
        minik8s_core::api::api_version(&self.group, &self.version)
    }

    /// `pod`, `deployment.apps`: how messages call it.
    pub(crate) fn label(&self) -> String {
        if self.group.is_empty() { self.singular.clone() } else { format!("{}.{}", self.singular, self.group) }
    }

    /// Path of the collection or of one object. An empty namespace means all of them.
    pub(crate) fn path(&self, namespace: &str, name: Option<&str>) -> String {
        let mut path = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        if self.namespaced && !namespace.is_empty() {
            path.push_str(&format!("/namespaces/{namespace}"));
        }
        path.push('/');
        path.push_str(&self.plural);
        if let Some(name) = name {
            path.push('/');
            path.push_str(name);
        }
        path
    }

    fn answers_to(&self, word: &str) -> bool {
        let qualified = format!("{}.{}", self.plural, self.group);
        [&self.plural, &self.singular, &qualified, &self.kind.to_lowercase()].iter().any(|n| n.as_str() == word)
            || self.short_names.iter().any(|s| s == word)
            || word == format!("{}.{}.{}", self.plural, self.version, self.group)
            || word == format!("{}.{}", self.singular, self.group)
    }
}

/// All kinds of the cluster.
pub(crate) struct Resources(Vec<Resource>);

impl Resources {
    /// Asks the cluster.
    pub(crate) async fn load(conn: &Conn) -> Result<Self> {
        let client = &conn.client;
        let (core, groups) =
            tokio::try_join!(client.list_core_api_versions_aggregated(), client.list_api_groups_aggregated())
                .map_err(super::explain)?;
        Ok(Self(read(core).chain(read(groups)).collect()))
    }

    /// The kind of that name, in any spelling kubectl knows.
    pub(crate) fn find(&self, word: &str) -> Result<&Resource> {
        let lower = word.to_lowercase();
        if let Some(found) = self.0.iter().find(|r| r.answers_to(&lower)) {
            return Ok(found);
        }
        match closest(&lower, self.0.iter().flat_map(|r| [&r.plural, &r.singular])) {
            Some(near) => bail!("the cluster has no kind {word:?}; did you mean {near:?}?"),
            None => bail!("the cluster has no kind {word:?}; `kubectl api-resources` lists those it has"),
        }
    }

    /// The kind a manifest names.
    pub(crate) fn find_gvk(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        self.0.iter().find(|r| r.kind == kind && r.api_version() == api_version)
    }

    /// A kind whose name differs from `kind` only a little, with the apiVersion it lives in.
    pub(crate) fn suggest(&self, kind: &str) -> Option<String> {
        let lower = kind.to_lowercase();
        let exact = self.0.iter().find(|r| r.kind.to_lowercase() == lower);
        let near = closest(&lower, self.0.iter().map(|r| &r.singular));
        let found = exact.or_else(|| self.0.iter().find(|r| Some(&r.singular) == near))?;
        Some(format!("apiVersion: {}, kind: {}", found.api_version(), found.kind))
    }

    /// The kinds of a category such as `all`.
    pub(crate) fn category(&self, name: &str) -> Vec<&Resource> {
        self.0.iter().filter(|r| r.categories.iter().any(|c| c == name)).collect()
    }
}

fn read(list: APIGroupDiscoveryList) -> impl Iterator<Item = Resource> {
    list.items.into_iter().flat_map(|group| {
        let name = group.metadata.and_then(|m| m.name).unwrap_or_default();
        group.versions.into_iter().flat_map(move |version| {
            let (name, v) = (name.clone(), version.version.unwrap_or_default());
            version.resources.into_iter().map(move |r| resource(&name, &v, r))
        })
    })
}

fn resource(group: &str, version: &str, r: APIResourceDiscovery) -> Resource {
    let kind = r.response_kind.and_then(|k| k.kind).unwrap_or_default();
    let singular = r.singular_resource.filter(|s| !s.is_empty()).unwrap_or_else(|| kind.to_lowercase());
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: r.resource.unwrap_or_default(),
        singular,
        kind,
        short_names: r.short_names,
        categories: r.categories,
        namespaced: r.scope.as_deref() == Some("Namespaced"),
    }
}

/// The candidate that can be reached with at most two typing errors.
fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    candidates.map(|c| (distance(word, c), c)).filter(|(d, _)| *d <= 2).min_by_key(|(d, _)| *d).map(|(_, c)| c)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            let best = replaced.min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], best);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_recognised() {
        for (a, b, expected) in [("pod", "pod", 0), ("pdo", "pod", 2), ("deploymnet", "deployment", 2), ("a", "", 1)] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
        let names = ["pods".to_owned(), "services".to_owned()];
        assert_eq!(closest("sevices", names.iter()).map(String::as_str), Some("services"));
        assert_eq!(closest("functions", names.iter()), None);
    }
}
