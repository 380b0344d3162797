//! Bootstrap tokens: what a machine shows that is to become a node. Each is a Secret of the type
//! `bootstrap.kubernetes.io/token` in `kube-system`, as kubeadm makes them.

use super::{TokenSource, User, digest};
use crate::api::{ApiError, ApiResult, Gvr, Reason, Target};
use crate::client::Transport;
use crate::server::ApiServer;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;

/// The group of everyone who shows a bootstrap token.
pub const BOOTSTRAPPERS: &str = "system:bootstrappers";
/// What the names of those who show one begin with.
pub(super) const BOOTSTRAP: &str = "system:bootstrap:";
/// The type of their Secrets.
pub const TOKEN_TYPE: &str = "bootstrap.kubernetes.io/token";
/// What the names of their Secrets begin with.
pub const TOKEN_PREFIX: &str = "bootstrap-token-";
/// Where they are.
pub const TOKEN_NAMESPACE: &str = "kube-system";

/// Knows the bootstrap tokens of a cluster.
pub struct BootstrapTokens(Arc<ApiServer>);

impl BootstrapTokens {
    /// The tokens that a server holds.
    pub fn of(server: &Arc<ApiServer>) -> Self {
        Self(server.clone())
    }
}

#[async_trait]
impl TokenSource for BootstrapTokens {
    async fn owner(&self, token: &str) -> ApiResult<Option<User>> {
        let Some((id, _)) = token.split_once('.').filter(|_| is_token(token)) else { return Ok(None) };
        let secrets = Gvr::new("", "v1", "secrets");
        let target = Target::object(secrets, TOKEN_NAMESPACE, format!("{TOKEN_PREFIX}{id}"));
        match self.0.get(&target).await {
            Ok(secret) => judge(&secret.value()?, token, self.0.clock().now()).map(Some),
            Err(e) if e.is_not_found() => Err(refused(format!(
                "there is no bootstrap token {id:?}: it was revoked, or is another cluster's; `minik8s token list` shows those there are"
            ))),
            Err(e) => Err(e),
        }
    }
}

/// True for what looks like a bootstrap token: six characters, a point, sixteen characters.
pub fn is_token(text: &str) -> bool {
    let plain =
        |part: &str, length| part.len() == length && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.split_once('.').is_some_and(|(id, secret)| plain(id, 6) && plain(secret, 16))
}

fn refused(why: String) -> ApiError {
    ApiError::new(Reason::Unauthorized, why)
}

fn field(secret: &Value, name: &str) -> String {
    let data = secret.pointer("/data").and_then(|data| data.get(name)).and_then(Value::as_str).unwrap_or_default();
    String::from_utf8(STANDARD.decode(data).unwrap_or_default()).unwrap_or_default()
}

/// When the token of a Secret ends; `None` where it never does. What cannot be read has ended.
pub fn expiration(secret: &Value) -> Option<Timestamp> {
    let text = field(secret, "expiration");
    (!text.is_empty()).then(|| text.parse().unwrap_or(Timestamp::MIN))
}

/// Whose token it is, if it is the one in the Secret. Only whoever knows the token learns that it has expired.
fn judge(secret: &Value, token: &str, now: Timestamp) -> ApiResult<User> {
    let (id, held) = (field(secret, "token-id"), field(secret, "token-secret"));
    let kind = secret.get("type").and_then(Value::as_str).unwrap_or_default();
    if kind != TOKEN_TYPE || held.is_empty() || digest(&format!("{id}.{held}")) != digest(token) {
        return Err(refused("the bootstrap token is wrong".to_owned()));
    }
    if field(secret, "usage-bootstrap-authentication") != "true" {
        return Err(refused(format!("the bootstrap token {id:?} is not for authentication")));
    }
    if let Some(end) = expiration(secret).filter(|end| *end <= now) {
        let way_out = "make another with `minik8s token create`";
        return Err(refused(format!("the bootstrap token {id:?} expired at {end}; {way_out}")));
    }
    let mut groups = vec![BOOTSTRAPPERS.to_owned()];
    let extra = field(secret, "auth-extra-groups");
    groups
        .extend(extra.split(',').map(str::trim).filter(|g| g.starts_with("system:bootstrappers:")).map(str::to_owned));
    Ok(User { name: format!("{BOOTSTRAP}{id}"), groups })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens_are_told_apart_by_what_is_wrong_with_them() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let secret = |usage: &str, end: &str| {
            let text = |t: &str| STANDARD.encode(t);
            json!({"type": TOKEN_TYPE, "data": {"token-id": text("abcdef"), "token-secret": text("0123456789abcdef"),
                "usage-bootstrap-authentication": text(usage), "expiration": text(end),
                "auth-extra-groups": text("system:bootstrappers:workers,system:masters")}})
        };
        let token = "abcdef.0123456789abcdef";
        let user = judge(&secret("true", "2026-01-01T00:00:01Z"), token, now).unwrap();
        assert_eq!((user.name.as_str(), user.groups.len()), ("system:bootstrap:abcdef", 2), "{user:?}");
        let why = |secret: &Value, token: &str| judge(secret, token, now).unwrap_err().message;
        assert!(why(&secret("true", ""), "abcdef.0123456789abcdee").contains("is wrong"));
        assert!(why(&secret("true", "2026-01-01T00:00:00Z"), token).contains("expired at"));
        assert!(why(&secret("true", "soon"), token).contains("expired"));
        assert!(why(&secret("false", ""), token).contains("not for authentication"));
        assert!(why(&json!({"type": "Opaque"}), ".").contains("is wrong"));
    }

    #[test]
    fn only_tokens_are_looked_up() {
        assert!(is_token("abcdef.0123456789abcdef"));
        for other in ["", "abcdef", "abcdef.0123", "ABCDEF.0123456789abcdef", "../../.0123456789abcdef"] {
            assert!(!is_token(other), "{other}");
        }
    }
}
