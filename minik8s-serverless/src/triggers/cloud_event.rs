//! CloudEvents 1.0 over HTTP: binary mode (attributes in headers), structured mode, and batches of the latter. What says
//! nothing of being one becomes one. Pure.

use base64::Engine;
use http::HeaderMap;
use serde_json::{Map, Value, json};

/// Attributes that every event has.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];
/// Events of one request at most.
const MOST: usize = 100;

/// Why a request is no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// An attribute is missing, or is not text.
    #[error("the attribute {0} is missing, or is no text")]
    Attribute(String),
    /// The body is not what its type says.
    #[error("the body is not JSON: {0}")]
    Json(String),
    /// Another version.
    #[error("version {0:?} of CloudEvents is not known, only 1.0")]
    Version(String),
    /// Too many at once.
    #[error("a batch has at most {MOST} events")]
    TooMany,
}

/// The events of a request, as JSON; `id` names one that says nothing of itself.
///
/// # Errors
/// Where it says that it is an event and is none.
pub fn events(headers: &HeaderMap, body: &[u8], id: &str) -> Result<Vec<Value>, EventError> {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = header("content-type").split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = || serde_json::from_slice::<Value>(body).map_err(|e| EventError::Json(e.to_string()));
    match kind.as_str() {
        "application/cloudevents+json" => Ok(vec![checked(json()?)?]),
        "application/cloudevents-batch+json" => {
            let Value::Array(events) = json()? else { return Err(EventError::Json("a batch is a list".to_owned())) };
            if events.len() > MOST {
                return Err(EventError::TooMany);
            }
            events.into_iter().map(checked).collect()
        }
        _ => {
            let mut event = Map::new();
            for (name, value) in headers {
                if let (Some(attribute), Ok(text)) = (name.as_str().strip_prefix("ce-"), value.to_str()) {
                    event.insert(attribute.to_owned(), decode(text).into());
                }
            }
            if event.is_empty() {
                event = [
                    ("specversion", "1.0"),
                    ("id", id),
                    ("source", "minik8s.io/webhook"),
                    ("type", "io.minik8s.webhook"),
                ]
                .into_iter()
                .map(|(name, value)| (name.to_owned(), Value::from(value)))
                .collect();
            }
            data(&mut event, &kind, body)?;
            Ok(vec![checked(Value::Object(event))?])
        }
    }
}

/// Puts a body into an event, as its type says.
fn data(event: &mut Map<String, Value>, kind: &str, body: &[u8]) -> Result<(), EventError> {
    if !kind.is_empty() {
        event.insert("datacontenttype".to_owned(), kind.into());
    }
    if body.is_empty() {
        return Ok(());
    }
    let is_json = kind.is_empty() || kind == "application/json" || kind.ends_with("+json");
    match (serde_json::from_slice::<Value>(body), std::str::from_utf8(body)) {
        (Ok(value), _) if is_json => event.insert("data".to_owned(), value),
        (Err(e), _) if is_json && !kind.is_empty() => return Err(EventError::Json(e.to_string())),
        (_, Ok(text)) => event.insert("data".to_owned(), text.into()),
        (_, Err(_)) => {
            event.insert("data_base64".to_owned(), base64::engine::general_purpose::STANDARD.encode(body).into())
        }
    };
    Ok(())
}

fn checked(event: Value) -> Result<Value, EventError> {
    for name in REQUIRED {
        if event[name].as_str().is_none_or(str::is_empty) {
            return Err(EventError::Attribute(name.to_owned()));
        }
    }
    match event["specversion"].as_str() {
        Some("1.0") => Ok(event),
        other => Err(EventError::Version(other.unwrap_or_default().to_owned())),
    }
}

/// Headers carry what is not plain text percent-encoded.
fn decode(text: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let hex = after
            .get(..2)
            .and_then(|two| std::str::from_utf8(two).ok())
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = &after[2..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// An event of this project.
pub(super) fn event(kind: &str, source: &str, id: &str, time: &str, data: Value) -> Value {
    json!({"specversion": "1.0", "id": id, "source": source, "type": kind, "time": time, "datacontenttype": "application/json", "data": data})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&str, &str)], body: &str) -> Result<Vec<Value>, EventError> {
        let headers =
            headers.iter().map(|(n, v)| (n.parse::<http::HeaderName>().unwrap(), v.parse().unwrap())).collect();
        events(&headers, body.as_bytes(), "own")
    }

    #[test]
    fn both_modes_mean_the_same() {
        let binary = [
            ("ce-specversion", "1.0"),
            ("ce-id", "7"),
            ("ce-source", "/shop"),
            ("ce-type", "order"),
            ("ce-subject", "caf%C3%A9"),
            ("content-type", "application/json"),
        ];
        let structured = json!({"specversion": "1.0", "id": "7", "source": "/shop", "type": "order", "subject": "café", "datacontenttype": "application/json", "data": {"n": 1}});
        let kind = [("content-type", "application/cloudevents+json; charset=utf-8")];
        assert_eq!(read(&binary, "{\"n\": 1}"), Ok(vec![structured.clone()]));
        assert_eq!(read(&kind, &structured.to_string()), Ok(vec![structured.clone()]));
        let batch = json!([structured, structured]).to_string();
        assert_eq!(read(&[("content-type", "application/cloudevents-batch+json")], &batch).unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_event_becomes_one_and_what_is_a_bad_one_is_refused() {
        let plain = read(&[("content-type", "application/json")], "{\"a\": 1}").unwrap().remove(0);
        assert_eq!((&plain["id"], &plain["data"]), (&json!("own"), &json!({"a": 1})));
        assert_eq!(read(&[], "hello").unwrap()[0]["data"], "hello");
        assert_eq!(read(&[("content-type", "text/plain")], "1").unwrap()[0]["data"], "1");
        let kind = [("content-type", "application/cloudevents+json")];
        assert!(matches!(read(&kind, "x"), Err(EventError::Json(_))));
        assert_eq!(
            read(&kind, "{\"specversion\": \"1.0\", \"id\": \"1\", \"source\": \"s\"}"),
            Err(EventError::Attribute("type".into()))
        );
        assert_eq!(read(&kind, "[]"), Err(EventError::Attribute("specversion".into())));
        assert!(matches!(read(&[("ce-id", "1")], ""), Err(EventError::Attribute(_))));
        let old = [("ce-specversion", "0.3"), ("ce-id", "7"), ("ce-source", "/s"), ("ce-type", "t")];
        assert_eq!(read(&old, ""), Err(EventError::Version("0.3".into())));
        assert!(matches!(read(&[("content-type", "application/json")], "{"), Err(EventError::Json(_))));
        let batch = serde_json::to_string(&vec![json!({}); 101]).unwrap();
        assert_eq!(read(&[("content-type", "application/cloudevents-batch+json")], &batch), Err(EventError::TooMany));
        let bytes = events(&HeaderMap::new(), &[0xff, 0xfe], "i").unwrap();
        assert_eq!(bytes[0]["data_base64"], "//4=");
    }
}
