//! Which objects of a resource a list or a watch is about.

use crate::api::{ApiError, ApiResult, FieldSelector, FieldTerm, Object, Selector, Target};
use crate::server::Kind;

const NAME: &str = "metadata.name";
const NAMESPACE: &str = "metadata.namespace";

/// Namespace, name, label and field conditions, all of which must hold.
#[derive(Clone)]
pub(crate) struct Filter {
    namespace: Option<String>,
    name: Option<String>,
    labels: Selector,
    fields: FieldSelector,
}

impl Filter {
    /// Reads the selectors of a request on `target`.
    pub(crate) fn new(kind: &dyn Kind, target: &Target, labels: &str, fields: &str) -> ApiResult<Self> {
        let fields = FieldSelector::parse(fields)?;
        let offered = |path: &str| path == NAME || path == NAMESPACE || kind.fields().iter().any(|f| f.path == path);
        fields.check(offered)?;
        let (namespace, name) = (target.namespace.clone(), target.name.clone());
        if let (Some(of_target), Some(asked)) = (&name, fields.exact(NAME))
            && of_target != asked
        {
            return Err(ApiError::bad_request("fieldSelector metadata.name doesn't match requested name"));
        }
        Ok(Self { namespace, name, labels: Selector::parse(labels)?, fields })
    }

    /// The namespace it is confined to.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// True where neither labels nor fields narrow it.
    pub(crate) fn is_whole(&self) -> bool {
        self.name.is_none() && self.labels.is_everything() && self.fields.is_everything()
    }

    /// True where the object is meant.
    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.namespace.as_ref().is_none_or(|n| *n == object.meta.namespace)
            && self.name.as_ref().is_none_or(|n| *n == object.meta.name)
            && (self.fields.is_everything() || self.fields.matches(|path| field(object, path)))
            && (self.labels.is_everything() || self.labels.matches(&object.meta.labels))
    }

    /// The one value that a field must have, where it must.
    pub(crate) fn exact(&self, path: &str) -> Option<&str> {
        self.fields.exact(path)
    }

    /// A field that must have one exact value: what watchers are indexed by. The most telling one.
    pub(crate) fn trigger(&self) -> Option<(&str, &str)> {
        let name = self.name.as_deref().or_else(|| self.fields.exact(NAME)).map(|n| (NAME, n));
        let exact = |t: &FieldTerm| self.fields.exact(&t.path).is_some();
        let field = || self.fields.terms().iter().find(|t| exact(t)).map(|t| (t.path.as_str(), t.value.as_str()));
        let namespace = || self.namespace.as_deref().map(|n| (NAMESPACE, n));
        name.or_else(field).or_else(namespace)
    }
}

/// The value of a selectable field.
pub(crate) fn field<'a>(object: &'a Object, path: &str) -> Option<&'a str> {
    match path {
        NAME => Some(&object.meta.name),
        NAMESPACE => Some(&object.meta.namespace),
        _ => object.fields.iter().find(|(p, _)| *p == path).map(|(_, value)| value.as_str()),
    }
}
