//! What is handed to a machine that is to join: a bootstrap token, and the pin of the authority that it may trust.

use crate::random;
use crate::server::auth::{TOKEN_NAMESPACE, TOKEN_PREFIX, TOKEN_TYPE, is_token};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use std::fmt;
use std::str::FromStr;

/// A token with the pin of its cluster: `abcdef.0123456789abcdef@sha256:…`. The part before the `@` is a bootstrap
/// token as kubeadm has them; the part behind it is the digest of the CA's public key, as kubeadm pins it. `Debug`
/// hides the secret; [`reveal`](Self::reveal) does not.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    id: String,
    secret: String,
    pin: String,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}.hidden@{})", self.id, self.pin)
    }
}

/// Why a text is no token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The pin is missing.
    #[error("the token has no pin: it ends in @sha256: and 64 digits, as `minik8s token create` prints it")]
    NoPin,
    /// The first part is no bootstrap token.
    #[error("the part of the token before the @ is no token such as abcdef.0123456789abcdef")]
    Token,
    /// The second part is no digest.
    #[error("the part of the token behind the @ is no digest: sha256: and 64 hexadecimal digits")]
    Pin,
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (token, pin) = text.trim().split_once('@').ok_or(TokenError::NoPin)?;
        let (id, secret) = token.split_once('.').filter(|_| is_token(token)).ok_or(TokenError::Token)?;
        let digits = pin.strip_prefix("sha256:").ok_or(TokenError::Pin)?;
        if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(TokenError::Pin);
        }
        Ok(Self { id: id.to_owned(), secret: secret.to_owned(), pin: pin.to_owned() })
    }
}

impl JoinToken {
    /// A new token for the cluster whose authority has this pin.
    pub fn generate(pin: &str) -> Self {
        Self { id: random::word(6), secret: random::word(16), pin: pin.to_owned() }
    }

    /// Its public name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The pin of the authority.
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// The text that a machine needs to join. Holds the secret.
    pub fn reveal(&self) -> String {
        format!("{}@{}", self.bearer(), self.pin)
    }

    /// What is shown to the server.
    pub(crate) fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }

    /// The Secret that makes a cluster know the token, until `end`, or for ever.
    pub fn secret(&self, end: Option<Timestamp>, description: &str) -> Secret {
        let mut data = json!({
            "token-id": self.id,
            "token-secret": self.secret,
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:minik8s:node",
        });
        if let Some(end) = end {
            data["expiration"] = crate::clock::rfc3339(end).into();
        }
        if !description.is_empty() {
            data["description"] = description.into();
        }
        let name = format!("{TOKEN_PREFIX}{}", self.id);
        let metadata = json!({"name": name, "namespace": TOKEN_NAMESPACE});
        let value = json!({"metadata": metadata, "type": TOKEN_TYPE, "stringData": data});
        serde_json::from_value(value).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_back_and_told_apart() {
        let pin = format!("sha256:{}", "0a".repeat(32));
        let token = JoinToken::generate(&pin);
        assert_eq!(token.reveal().parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains(&token.secret));
        let bearer = token.bearer();
        let why = |text: &str| text.parse::<JoinToken>().unwrap_err();
        assert_eq!(why(&bearer), TokenError::NoPin);
        assert_eq!(why(&format!("abc@{pin}")), TokenError::Token);
        assert_eq!(why(&format!("{bearer}@sha256:00")), TokenError::Pin);
        assert_eq!(why(&format!("{bearer}@{}", "g".repeat(64))), TokenError::Pin);
    }
}
