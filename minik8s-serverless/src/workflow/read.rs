//! Reading what stands in records, whoever fetches them.

use super::compile;
use super::machine::Event;
use super::objects::History;
use super::program::Workflow;
use super::spec::WorkflowSpec;
use futures::future::BoxFuture;
use serde_json::Value;

/// The longest chain of records that is followed.
const LONGEST: usize = 100_000;
/// What stands where a value was taken out: an object with this one field.
pub(super) const REFERENCE: &str = "$record";

/// Gets the `data` of a record by its name.
pub type Fetch<'a, E> = dyn Fn(String) -> BoxFuture<'a, Result<Value, E>> + Send + Sync + 'a;

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E> {
    /// It cannot be fetched.
    #[error(transparent)]
    Fetch(E),
    /// It holds something else.
    #[error("record {name} is broken: {why}")]
    Broken {
        /// The record.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// The value of a record.
///
/// # Errors
/// Where it, or a piece of it, cannot be read.
pub async fn value<E>(name: &str, fetch: &Fetch<'_, E>) -> Result<Value, ReadError<E>> {
    let mut data = fetch(name.to_owned()).await.map_err(ReadError::Fetch)?;
    let Some(pieces) = data["pieces"].as_array() else { return Ok(data["value"].take()) };
    let mut text = String::new();
    for piece in pieces.iter().filter_map(Value::as_str) {
        let piece = fetch(piece.to_owned()).await.map_err(ReadError::Fetch)?;
        text.push_str(piece["piece"].as_str().unwrap_or_default());
    }
    serde_json::from_str(&text).map_err(|e| ReadError::Broken { name: name.to_owned(), why: e.to_string() })
}

/// Puts a large value back where its record is named.
///
/// # Errors
/// Where the record cannot be read.
pub async fn unpack<E>(value: &mut Value, fetch: &Fetch<'_, E>) -> Result<(), ReadError<E>> {
    if let Some(name) = value.get(REFERENCE).and_then(Value::as_str).map(str::to_owned) {
        *value = self::value(&name, fetch).await?;
    }
    Ok(())
}

/// Everything that happened in a run.
///
/// # Errors
/// Where a record cannot be read, or is no history.
pub async fn events<E>(history: &History, fetch: &Fetch<'_, E>) -> Result<Vec<Event>, ReadError<E>> {
    let mut parts = vec![history.tail.clone()];
    let mut sealed = history.sealed.clone();
    while !sealed.is_empty() && parts.len() < LONGEST {
        let mut part = value(&sealed, fetch).await?;
        sealed = part["before"].as_str().unwrap_or_default().to_owned();
        parts.push(part["events"].as_array_mut().map(std::mem::take).unwrap_or_default());
    }
    let mut events = Vec::new();
    for mut event in parts.into_iter().rev().flatten() {
        for field in ["input", "output", "inputs"] {
            if let Some(value) = event.get_mut(field) {
                unpack(value, fetch).await?;
            }
        }
        let broken = |e: serde_json::Error| ReadError::Broken { name: history.sealed.clone(), why: e.to_string() };
        events.push(serde_json::from_value(event).map_err(broken)?);
    }
    Ok(events)
}

/// The workflow of a revision, compiled.
///
/// # Errors
/// Where the record cannot be read, or does not compile any more.
pub async fn revision<E>(name: &str, fetch: &Fetch<'_, E>) -> Result<Workflow, ReadError<E>> {
    let mut kept = value(name, fetch).await?;
    let broken = |why: String| ReadError::Broken { name: name.to_owned(), why };
    let spec = serde_json::from_value::<WorkflowSpec>(kept["spec"].take()).map_err(|e| broken(e.to_string()))?;
    compile(&spec).map_err(|e| broken(e.into_error("minik8s.io", "Workflow", name).message))
}
