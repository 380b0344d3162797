//! Values that are too large for the object that they belong to, kept in records of their own. A record's name says what it
//! holds: writing it again changes nothing, and whoever crashes between a record and the object that names it has lost
//! nothing.

use super::objects::WorkflowRecord;
use super::read::REFERENCE;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use minik8s_core::api::{ApiError, ApiResult};
use minik8s_core::client::Client;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The largest value that stands in an event itself.
pub(super) const INLINE: usize = 4 << 10;
/// The largest part of a value in one record.
const PIECE: usize = 256 << 10;
/// The largest value at all.
pub(super) const LARGEST: usize = 16 << 20;

/// The records of one owner.
pub(super) struct Records<'a> {
    pub(super) client: &'a Client,
    pub(super) namespace: &'a str,
    pub(super) owner: &'a OwnerReference,
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
        let digest: String =
            Sha256::digest(format!("{kind}:{text}")).iter().take(10).map(|b| format!("{b:02x}")).collect();
        let name = format!("{}.{digest}", self.owner.name);
        let record = WorkflowRecord {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(self.namespace.to_owned()),
                owner_references: Some(vec![self.owner.clone()]),
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

/// True where the value's text is longer; does not write more of it than that.
pub(super) fn is_longer(value: &Value, most: usize) -> bool {
    fn left(value: &Value, most: usize) -> Option<usize> {
        let most = most.checked_sub(2)?;
        match value {
            Value::Array(items) => items.iter().try_fold(most, |most, item| left(item, most)),
            Value::Object(fields) => {
                fields.iter().try_fold(most, |most, (key, item)| left(item, most.checked_sub(key.len() + 3)?))
            }
            Value::String(text) => most.checked_sub(text.len()),
            Value::Number(_) => most.checked_sub(6),
            Value::Bool(_) | Value::Null => most.checked_sub(2),
        }
    }
    left(value, most).is_none()
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

    #[test]
    fn the_length_is_found_without_writing_all() {
        assert!(!is_longer(&json!({"a": [1, 2, 3]}), 100));
        assert!(is_longer(&json!("x".repeat(101)), 100));
        assert!(is_longer(&json!(vec![json!({"k": "v"}); 100]), 500));
        assert!(!is_longer(&json!("x".repeat(90)), 100));
    }
}
