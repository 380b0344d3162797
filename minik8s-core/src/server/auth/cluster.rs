//! Who may do what in a cluster: administrators everything, nodes what concerns them, machines that join nothing but to
//! ask for a certificate, the scheduler its work. Whoever else has a credential was given it by an administrator, and
//! may do everything until there are roles.

use super::bootstrap::{BOOTSTRAP, BOOTSTRAPPERS};
use super::rules::{self, allow, is_discovery};
use super::{Attributes, Authorizer, CONTROLLERS, MASTERS, SCHEDULER, User, forbidden, node};
use crate::api::{ApiResult, Gvr, Target};
use crate::client::Transport;
use crate::server::ApiServer;
use async_trait::async_trait;
use serde_json::Value;
use std::sync::{Arc, Weak};

pub(super) const REQUESTS: Gvr = Gvr::new("certificates.k8s.io", "v1", "certificatesigningrequests");

/// The authorizer of a cluster.
pub struct ClusterAuthorizer {
    /// Weak: the server's fronts hold the authorizer.
    server: Weak<ApiServer>,
}

/// What somebody is to the cluster.
enum Role<'a> {
    Administrator,
    Node(&'a str),
    Joining,
    Scheduler,
    /// A name of the system's that nobody gave.
    Nobody,
    Other,
}

fn role(user: &User) -> Role<'_> {
    let in_group = |group: &str| user.groups.iter().any(|g| g == group);
    match user.name.as_str() {
        _ if in_group(MASTERS) => Role::Administrator,
        CONTROLLERS => Role::Administrator,
        SCHEDULER => Role::Scheduler,
        name if name.starts_with(BOOTSTRAP) && in_group(BOOTSTRAPPERS) => Role::Joining,
        name => match user.node() {
            Some(node) => Role::Node(node),
            None if name.starts_with("system:") => Role::Nobody,
            None => Role::Other,
        },
    }
}

impl ClusterAuthorizer {
    /// An authorizer that looks at the state of this server.
    pub fn of(server: &Arc<ApiServer>) -> Self {
        Self { server: Arc::downgrade(server) }
    }

    /// True where a request for a certificate, and not another's, is asked for by its own maker.
    pub(super) async fn is_own_request(server: &ApiServer, asked: &Attributes<'_>) -> ApiResult<bool> {
        let Some(target) = asked.target else { return Ok(false) };
        let name = target.name.clone().or_else(|| one_name(asked.fields));
        let Some(name) = name.filter(|_| target.subresource.is_none()) else { return Ok(false) };
        let request = server.get(&Target::object(REQUESTS, "", name)).await?.value()?;
        let maker = request.pointer("/spec/username").and_then(Value::as_str).unwrap_or_default();
        Ok(maker == asked.user.name)
    }
}

/// The one name that a field selector leaves.
pub(super) fn one_name(fields: &str) -> Option<String> {
    fields.split(',').find_map(|term| {
        let (field, value) = term.split_once('=')?;
        (field.trim() == "metadata.name").then(|| value.trim_start_matches('=').trim().to_owned())
    })
}

#[async_trait]
impl Authorizer for ClusterAuthorizer {
    async fn authorize(&self, asked: &Attributes<'_>) -> ApiResult<()> {
        let allowed = match role(asked.user) {
            Role::Administrator | Role::Other => true,
            Role::Nobody => false,
            _ if is_discovery(asked) => true,
            Role::Scheduler => allow(&rules::SCHEDULER, asked) || allow(&rules::ELECTION, asked),
            Role::Joining => match self.server.upgrade() {
                Some(server) => joining(&server, asked).await?,
                None => false,
            },
            Role::Node(name) => match self.server.upgrade() {
                Some(server) => node::may(&server, name, asked).await?,
                None => false,
            },
        };
        if allowed { Ok(()) } else { Err(forbidden(asked)) }
    }
}

/// Machines that join ask for a certificate, and wait for it.
async fn joining(server: &ApiServer, asked: &Attributes<'_>) -> ApiResult<bool> {
    match asked.target {
        Some(target) if target.gvr == REQUESTS => match asked.verb {
            "create" => Ok(target.subresource.is_none()),
            "get" | "list" | "watch" => ClusterAuthorizer::is_own_request(server, asked).await,
            _ => Ok(false),
        },
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_system_are_nothing_without_their_group() {
        let is_nobody = |name: &str, groups: &[&str]| matches!(role(&User::new(name, groups)), Role::Nobody);
        assert!(is_nobody("system:node:n1", &[]));
        assert!(is_nobody("system:bootstrap:abcdef", &[]));
        assert!(is_nobody("system:anything", &["system:authenticated"]));
        assert!(matches!(role(&User::of_node("n1")), Role::Node("n1")));
        assert!(matches!(role(&User::new("alice", &["dev"])), Role::Other));
        assert!(matches!(role(&User::system()), Role::Administrator));
    }

    #[test]
    fn one_name_is_read_from_a_selector() {
        assert_eq!(one_name("metadata.name=a"), Some("a".into()));
        assert_eq!(one_name("x=1,metadata.name==a"), Some("a".into()));
        assert_eq!(one_name("metadata.name!=a"), None);
        assert_eq!(one_name(""), None);
    }
}
