//! Values that are too large for the object that they belong to, kept in records of their own. A record's name says what it
//! holds: writing it again changes nothing, and whoever crashes between a record and the object that names it has lost
//! nothing.

use super::objects::WorkflowRecord;
use super::read::REFERENCE;
use super::size::{self, is_longer};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use minik8s_core::api::{ApiError, ApiResult};
use minik8s_core::client::Client;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The largest value that stands in an event itself.
pub(super) const INLINE: usize = 4 << 10;
/// The largest part of a value in one record.
const PIECE: usize = 256 << 10;
/// The largest value at all: what steps may pass on, twice over for what stands around it.
const LARGEST: usize = 2 * size::LARGEST;

/// The records of a run, which go with it; or revisions of a workflow, which stay until no run speaks of them.
pub(super) struct Records<'a> {
    pub(super) client: &'a Client,
    pub(super) namespace: &'a str,
    /// Names of records begin with this.
    pub(super) of: &'a str,
    pub(super) owner: Option<&'a OwnerReference>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

impl Records<'_> {
    /// Keeps a value, and answers with the record's name.
    pub(super) async fn put(&self, value: &Value) -> ApiResult<String> {
        let text = value.to_string();
        if text.len() <= PIECE {
            return self.write(&text, json!({"value": value})).await;
        }
        if text.len() > LARGEST {
            let size = text.len();
            return Err(ApiError::bad_request(format!("a value of {size} bytes is larger than {LARGEST}")));
        }
        let mut pieces = Vec::new();
        for piece in cut(&text, PIECE) {
            pieces.push(self.write(piece, json!({"piece": piece})).await?);
        }
        self.write(&text, json!({"pieces": pieces})).await
    }

    async fn write(&self, text: &str, data: Value) -> ApiResult<String> {
        let kind = data.as_object().and_then(|o| o.keys().next()).cloned().unwrap_or_default();
        let name = name(self.of, &kind, text);
        let record = WorkflowRecord {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(self.namespace.to_owned()),
                annotations: self.annotations.clone(),
                owner_references: self.owner.map(|owner| vec![owner.clone()]),
                ..ObjectMeta::default()
            },
            data,
        };
        match self.client.api::<WorkflowRecord>(self.namespace).create(&record).await {
            Err(e) if !e.is_already_exists() => Err(e),
            _ => Ok(name),
        }
    }

    /// Takes large values out of an event.
    pub(super) async fn pack(&self, mut event: Value) -> ApiResult<Value> {
        for field in ["input", "output", "inputs"] {
            let Some(value) = event.get_mut(field) else { continue };
            // What looks like a reference must not be taken for one.
            let odd = value.get(REFERENCE).is_some();
            if odd || is_longer(value, INLINE) {
                let name = self.put(value).await?;
                *value = json!({ REFERENCE: name });
            }
        }
        Ok(event)
    }
}

fn name(of: &str, kind: &str, text: &str) -> String {
    let digest: String = Sha256::digest(format!("{kind}:{text}")).iter().take(10).map(|b| format!("{b:02x}")).collect();
    format!("{of}.{digest}")
}

/// The name under which [`Records::put`] keeps a value.
pub(super) fn name_of(of: &str, value: &Value) -> String {
    let text = value.to_string();
    if text.len() <= PIECE {
        return name(of, "value", &text);
    }
    name(of, "pieces", &text)
}

/// Cuts a text into parts of at most `size` bytes, between characters.
fn cut(text: &str, size: usize) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while rest.len() > size {
        let at = rest.floor_char_boundary(size);
        let (part, left) = rest.split_at(at);
        parts.push(part);
        rest = left;
    }
    parts.push(rest);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("aäöb", 2), ["a", "ä", "ö", "b"]);
        assert_eq!(cut("", 2), [""]);
        let text = "ä".repeat(1001);
        assert_eq!(cut(&text, 100).concat(), text);
    }
}
