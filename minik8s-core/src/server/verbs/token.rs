//! Continue tokens: opaque to clients; they hold the revision of the first page and the key it ended with.

use crate::api::{ApiError, ApiResult, Revision};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

const VERSION: &str = "meta.k8s.io/v1";

#[derive(Serialize, Deserialize)]
pub(crate) struct Token {
    v: String,
    /// The revision every page is read at.
    pub(crate) rv: Revision,
    /// The last key of the page before, without the resource's prefix.
    pub(crate) start: String,
    /// How many objects the pages before went past.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) passed: Option<u64>,
}

impl Token {
    pub(crate) fn new(rv: Revision, start: &str, passed: Option<u64>) -> Self {
        Self { v: VERSION.to_owned(), rv, start: start.to_owned(), passed }
    }

    pub(crate) fn encode(&self) -> ApiResult<String> {
        let json = serde_json::to_vec(self).map_err(|e| ApiError::internal(format!("continue token: {e}")))?;
        Ok(URL_SAFE_NO_PAD.encode(json))
    }

    pub(crate) fn decode(text: &str) -> ApiResult<Self> {
        let refuse = |why: String| ApiError::bad_request(format!("invalid continue token: {why}"));
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|e| refuse(format!("continue key is not valid: {e}")))?;
        let token: Self =
            serde_json::from_slice(&bytes).map_err(|e| refuse(format!("continue key is not valid: {e}")))?;
        match (token.v.as_str(), token.rv, token.start.is_empty()) {
            (VERSION, rv, false) if rv > 0 => Ok(token),
            (VERSION, _, _) => Err(refuse("revision or start is missing".to_owned())),
            (other, _, _) => Err(refuse(format!("server does not recognize this encoded version {other:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_round_trip_and_garbage_is_refused() {
        let text = Token::new(607, "default/l1", Some(1)).encode().unwrap();
        let token = Token::decode(&text).unwrap();
        assert_eq!((token.rv, token.start.as_str(), token.passed), (607, "default/l1", Some(1)));
        let none = URL_SAFE_NO_PAD.encode(br#"{"v":"meta.k8s.io/v1","rv":0,"start":""}"#);
        for garbage in ["garbage", "", "%%%", &none] {
            let error = Token::decode(garbage).map(|_| ()).unwrap_err();
            assert!(error.message.starts_with("invalid continue token: "), "{error}");
        }
    }
}
