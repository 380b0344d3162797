//! Who asks, and whether they may. Requests are identified by a client certificate or a bearer token; what users may do
//! is said by an [`Authorizer`], usually the [`ClusterAuthorizer`].

mod bootstrap;
mod cluster;
mod node;
mod restriction;
mod rules;

pub use bootstrap::{BOOTSTRAPPERS, BootstrapTokens, TOKEN_NAMESPACE, TOKEN_PREFIX, TOKEN_TYPE, expiration, is_token};
pub use cluster::ClusterAuthorizer;
pub use restriction::NodeRestriction;

use crate::api::{ApiError, ApiResult, Reason, Target};
use async_trait::async_trait;
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;

/// The group whose members may do everything.
pub const MASTERS: &str = "system:masters";

/// The group of all nodes.
pub const NODES: &str = "system:nodes";

/// What the names of nodes begin with.
const NODE: &str = "system:node:";

/// Who the scheduler is, where it runs by itself.
pub const SCHEDULER: &str = "system:kube-scheduler";

/// Who the controllers are, where they run by themselves.
pub const CONTROLLERS: &str = "system:kube-controller-manager";

/// Someone who was identified.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    /// Unique name.
    pub name: String,
    /// Groups they belong to.
    pub groups: Vec<String>,
}

impl User {
    /// A user of these groups.
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        Self { name: name.into(), groups: groups.iter().map(|g| (*g).to_owned()).collect() }
    }

    /// A node, as its certificate names it.
    pub fn of_node(name: &str) -> Self {
        Self::new(format!("{NODE}{name}"), &[NODES])
    }

    /// The name of the node that this is, where it is one.
    pub fn node(&self) -> Option<&str> {
        let name = self.name.strip_prefix(NODE)?;
        (!name.is_empty() && self.groups.iter().any(|g| g == NODES)).then_some(name)
    }

    /// The one the cluster's own components act as inside the process.
    pub fn system() -> Self {
        Self::new("system:admin", &[MASTERS])
    }
}

/// Where tokens are looked up that come and go while the server runs.
#[async_trait]
pub trait TokenSource: Send + Sync + 'static {
    /// Whose token this is; `None` where it is not of the source's kind.
    ///
    /// # Errors
    /// `Unauthorized`, with the reason, for a token of its kind that is not good; other errors where it cannot tell.
    async fn owner(&self, token: &str) -> ApiResult<Option<User>>;
}

/// Identifies requests. Tokens are kept as digests only, and shown nowhere.
#[derive(Clone, Default)]
pub struct Authenticator {
    tokens: HashMap<[u8; 32], User>,
    sources: Vec<Arc<dyn TokenSource>>,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authenticator({} tokens)", self.tokens.len())
    }
}

impl Authenticator {
    /// Accepts a bearer token as this user's.
    #[must_use]
    pub fn with_token(mut self, token: &str, user: User) -> Self {
        self.tokens.insert(digest(token), user);
        self
    }

    /// Looks tokens up here too.
    #[must_use]
    pub fn with_source(mut self, source: impl TokenSource) -> Self {
        self.sources.push(Arc::new(source));
        self
    }

    /// Who sent a request with these headers over a connection of this `peer` (the owner of its client certificate).
    ///
    /// # Errors
    /// `Unauthorized` where a token is given that is not known; a wrong credential is never taken for none.
    pub async fn identify(&self, headers: &HeaderMap, peer: Option<&User>) -> ApiResult<Option<User>> {
        if let Some(peer) = peer {
            return Ok(Some(peer.clone()));
        }
        let Some(header) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
        let token =
            header.to_str().ok().and_then(|h| h.split_once(' ')).filter(|(s, _)| s.eq_ignore_ascii_case("bearer"));
        let token = token.map(|(_, token)| token.trim()).ok_or_else(unauthorized)?;
        if let Some(user) = self.tokens.get(&digest(token)) {
            return Ok(Some(user.clone()));
        }
        for source in &self.sources {
            if let Some(user) = source.owner(token).await? {
                return Ok(Some(user));
            }
        }
        Err(unauthorized())
    }
}

/// Comparing digests instead of tokens leaves nothing to measure.
fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The answer to a request without credentials.
pub(crate) fn unauthorized() -> ApiError {
    ApiError::new(Reason::Unauthorized, "Unauthorized")
}

/// What someone wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who.
    pub user: &'a User,
    /// `get`, `list`, `watch`, `create`, …; the HTTP method in lower case where there is no target.
    pub verb: &'a str,
    /// With what; `None` for paths that are no objects.
    pub target: Option<&'a Target>,
    /// The field selector of a list or watch; empty for none.
    pub fields: &'a str,
    /// The path.
    pub path: &'a str,
}

/// Decides what users may do.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// Says yes by returning.
    ///
    /// # Errors
    /// [`forbidden`] where the user may not; other errors where no decision can be made.
    async fn authorize(&self, attributes: &Attributes<'_>) -> ApiResult<()>;
}

/// A shared authorizer.
pub type SharedAuthorizer = Arc<dyn Authorizer>;

/// Whoever is known may do everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAuthenticated;

#[async_trait]
impl Authorizer for AllowAuthenticated {
    async fn authorize(&self, _: &Attributes<'_>) -> ApiResult<()> {
        Ok(())
    }
}

/// The refusal a client of Kubernetes expects.
pub fn forbidden(attributes: &Attributes<'_>) -> ApiError {
    let (user, verb) = (&attributes.user.name, attributes.verb);
    let Some(target) = attributes.target else {
        return ApiError::new(
            Reason::Forbidden,
            format!("forbidden: User {user:?} cannot {verb} path {:?}", attributes.path),
        );
    };
    let sub = target.subresource.as_ref().map(|s| format!("/{s}")).unwrap_or_default();
    let place = match &target.namespace {
        Some(namespace) => format!(" in the namespace {namespace:?}"),
        None => " at the cluster scope".to_owned(),
    };
    let gvr = &target.gvr;
    let name = target.name.as_ref().map(|n| format!(" {n:?}")).unwrap_or_default();
    let message = format!(
        "{}{name} is forbidden: User {user:?} cannot {verb} resource \"{}{sub}\" in API group {:?}{place}",
        gvr.qualified(),
        gvr.resource,
        gvr.group
    );
    let mut error = ApiError::new(Reason::Forbidden, message);
    error.details.name = target.name.clone().unwrap_or_default();
    error.details.group = gvr.group.to_string();
    error.details.kind = gvr.resource.to_string();
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Gvr;

    fn bearer(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        headers
    }

    #[tokio::test]
    async fn requests_are_identified_by_certificate_or_token() {
        let alice = User::new("alice", &["dev"]);
        let auth = Authenticator::default().with_token("s3cret", alice.clone());
        assert_eq!(auth.identify(&HeaderMap::new(), None).await.unwrap(), None);
        assert_eq!(auth.identify(&bearer("s3cret"), None).await.unwrap(), Some(alice));
        assert_eq!(auth.identify(&bearer("wrong"), None).await.unwrap_err().reason, Reason::Unauthorized);
        let peer = User::system();
        assert_eq!(auth.identify(&HeaderMap::new(), Some(&peer)).await.unwrap(), Some(peer));
        assert!(!format!("{auth:?}").contains("s3cret"));
    }

    #[test]
    fn refusals_read_as_kubernetes_writes_them() {
        let user = User::new("alice", &[]);
        let target = Target::in_namespace(Gvr::new("", "v1", "pods"), "default");
        let attributes = Attributes { user: &user, verb: "list", target: Some(&target), fields: "", path: "/" };
        assert_eq!(
            forbidden(&attributes).message,
            "pods is forbidden: User \"alice\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
        );
    }
}
