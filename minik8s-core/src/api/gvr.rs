//! Names of kinds and of places in the API: group, version, resource, and the target of a request.

use std::borrow::Cow;
use std::fmt;

/// A resource of the API: `apps/v1 deployments`. The core group is the empty string.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvr {
    /// API group, empty for the core group.
    pub group: Cow<'static, str>,
    /// API version, such as `v1`.
    pub version: Cow<'static, str>,
    /// Plural, lower-case resource name, such as `deployments`.
    pub resource: Cow<'static, str>,
}

impl Gvr {
    /// A resource whose names are known at compile time.
    pub const fn new(group: &'static str, version: &'static str, resource: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), version: Cow::Borrowed(version), resource: Cow::Borrowed(resource) }
    }

    /// `v1` for the core group, `group/version` for every other one.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// The name errors use: `pods`, `deployments.apps`.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.resource.to_string() } else { format!("{}.{}", self.resource, self.group) }
    }
}

impl fmt::Display for Gvr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.api_version(), self.resource)
    }
}

/// Joins group and version the way `apiVersion` fields do.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// What a request is about: a resource, in a namespace or cluster-wide, one object or all, itself or a sub-resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The resource.
    pub gvr: Gvr,
    /// The namespace; `None` for cluster-scoped resources and for requests over all namespaces.
    pub namespace: Option<String>,
    /// The object's name; `None` for requests on the collection.
    pub name: Option<String>,
    /// `status`, `scale`, `log`, …
    pub subresource: Option<String>,
}

impl Target {
    /// The whole collection, over all namespaces.
    pub fn all(gvr: Gvr) -> Self {
        Self { gvr, namespace: None, name: None, subresource: None }
    }

    /// The collection in one namespace.
    pub fn in_namespace(gvr: Gvr, namespace: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), ..Self::all(gvr) }
    }

    /// One object; an empty namespace means a cluster-scoped one.
    pub fn object(gvr: Gvr, namespace: &str, name: impl Into<String>) -> Self {
        let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
        Self { gvr, namespace, name: Some(name.into()), subresource: None }
    }

    /// The same target, at a sub-resource.
    #[allow(clippy::should_implement_trait, reason = "nothing is subtracted here")]
    pub fn sub(mut self, subresource: impl Into<String>) -> Self {
        self.subresource = Some(subresource.into());
        self
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.gvr.qualified())?;
        match (&self.namespace, &self.name) {
            (Some(ns), Some(name)) => write!(f, " {ns}/{name}")?,
            (None, Some(name)) => write!(f, " {name}")?,
            (Some(ns), None) => write!(f, " in {ns}")?,
            (None, None) => {}
        }
        self.subresource.as_ref().map_or(Ok(()), |s| write!(f, " ({s})"))
    }
}
