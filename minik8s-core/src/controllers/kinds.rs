//! The kinds of the cluster, for controllers that are about all of them.

use crate::api::Gvr;
use crate::server::{Kind, KindNames, Registry};
use std::sync::Arc;

/// One kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindRef {
    /// Its resource.
    pub gvr: Gvr,
    /// Its name, such as `Pod`.
    pub kind: String,
    /// Objects live in namespaces.
    pub namespaced: bool,
}

impl KindRef {
    /// True for events: many, short-lived, owned by nobody.
    pub fn is_event(&self) -> bool {
        self.gvr.resource == "events"
    }
}

impl From<&KindNames> for KindRef {
    fn from(names: &KindNames) -> Self {
        Self { gvr: names.gvr.clone(), kind: names.kind.to_string(), namespaced: names.namespaced }
    }
}

/// Where the list of kinds comes from. Kinds may come and go while the cluster runs.
pub trait KindDirectory: Send + Sync + 'static {
    /// The kinds now, each storage once: a kind that is another's alias, or is not stored, is left out.
    fn kinds(&self) -> Vec<KindRef>;

    /// The kind that a reference means: of its version, or else of any version of its group.
    fn find(&self, api_version: &str, kind: &str) -> Option<KindRef> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let mut all = self.kinds();
        all.retain(|k| k.gvr.group == group && k.kind == kind);
        let exact = all.iter().position(|k| k.gvr.version == version).unwrap_or_default();
        (!all.is_empty()).then(|| all.swap_remove(exact))
    }
}

impl KindDirectory for Vec<KindRef> {
    fn kinds(&self) -> Vec<KindRef> {
        self.clone()
    }
}

impl KindDirectory for Registry {
    fn kinds(&self) -> Vec<KindRef> {
        let table = self.snapshot();
        table
            .kinds()
            .filter(|kind| kind.stored_as().is_none() && kind.computed().is_none())
            .map(|kind| kind.names().into())
            .collect()
    }

    /// Without a list of all.
    fn find(&self, api_version: &str, kind: &str) -> Option<KindRef> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let table = self.snapshot();
        let served = |k: &&Arc<dyn Kind>| {
            k.stored_as().is_none() && k.computed().is_none() && k.names().gvr.group == group && k.names().kind == kind
        };
        let exact = table.by_kind(group, version, kind).filter(served);
        exact.or_else(|| table.kinds().find(served)).map(|kind| kind.names().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_finds_what_its_list_has() {
        let registry = Registry::builtin();
        let list = registry.kinds();
        let found = |version: &str, kind: &str| {
            let found = registry.find(version, kind);
            assert_eq!(found, list.find(version, kind), "{version} {kind}");
            found.map(|kind| kind.gvr.api_version())
        };
        assert_eq!(found("apps/v1", "Deployment").as_deref(), Some("apps/v1"));
        assert_eq!(found("apps/v9", "Deployment").as_deref(), Some("apps/v1"), "of another version of its group");
        assert_eq!(found("autoscaling/v1", "HorizontalPodAutoscaler").as_deref(), Some("autoscaling/v2"), "as stored");
        for (version, kind) in [("v1", "Deployment"), ("metrics.k8s.io/v1beta1", "PodMetrics"), ("", "")] {
            assert_eq!(found(version, kind), None);
        }
    }
}
