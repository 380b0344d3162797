//! Patches as pure functions: JSON patch (RFC 6902), merge patch (RFC 7396), strategic merge patch by the schema table.
//! Server-side apply will stand beside them; until then [`Schemas::patch`] refuses it.

mod json;
mod lists;
mod strategic;

pub use json::json;

use super::decode::{self, Checked, Decoded};
use super::{ApiError, ApiResult, Cause, Details, Reason, Schemas};
use crate::client::{FieldValidation, PatchType, Payload};
use serde_json::Value;

/// Why a patch cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// Not a patch of its type.
    #[error("invalid patch: {0}")]
    Malformed(String),
    /// Too many operations.
    #[error("the allowed maximum operations in a JSON patch is {max}, got {0}", max = json::MAX_OPERATIONS)]
    TooLong(usize),
    /// Copies and moves of a JSON patch come to too much.
    #[error("the JSON patch copies and moves more than {} values", json::MAX_MOVED)]
    TooLarge,
    /// A JSON patch puts a value too deep.
    #[error("the JSON patch nests values deeper than {} levels", json::MAX_DEPTH)]
    TooDeep,
    /// A JSON patch does not fit the object: a `test` failed, a path is missing.
    #[error("the server rejected our request due to an error in our request")]
    DoesNotFit(#[source] json_patch::PatchError),
    /// A directive of a strategic merge patch is not understood.
    #[error("{0}")]
    Directive(String),
}

impl From<PatchError> for ApiError {
    fn from(error: PatchError) -> Self {
        let reason = match &error {
            PatchError::Malformed(_) | PatchError::Directive(_) => Reason::BadRequest,
            PatchError::TooLong(_) | PatchError::TooLarge | PatchError::TooDeep => Reason::RequestEntityTooLarge,
            PatchError::DoesNotFit(_) => Reason::Invalid,
        };
        ApiError::new(reason, error.to_string())
    }
}

/// Applies an RFC 7396 patch.
///
/// # Errors
/// [`PatchError::Malformed`] where it is no object.
pub fn merge(mut target: Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed("a merge patch is an object".into()));
    }
    json_patch::merge(&mut target, patch);
    Ok(target)
}

/// Applies a strategic merge patch to an object of the type `type_name`. Types the table does not know merge as objects
/// and replace lists.
///
/// # Errors
/// [`PatchError`] for a patch that is no object, an unknown directive, or a list item without its merge key.
pub fn strategic(schemas: &Schemas, type_name: &str, target: Value, patch: Value) -> Result<Value, PatchError> {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            let merger = strategic::Merger { schemas };
            merger.map(target, patch, schemas.get(type_name).as_deref()).map(Value::Object)
        }
        _ => Err(PatchError::Malformed("a strategic merge patch is an object".into())),
    }
}

impl Schemas {
    /// Applies the body of a PATCH request to an object of type `type_name`, and checks the outcome like a decoded body.
    ///
    /// # Errors
    /// `BadRequest` for a body that is no such patch; `Invalid` for one that does not fit the object, or whose outcome
    /// has values of the wrong type or (strictly) unknown fields; `UnsupportedMediaType` for server-side apply.
    pub fn patch(
        &self,
        type_name: &str,
        kind: PatchType,
        current: Value,
        body: &Payload,
        validation: FieldValidation,
    ) -> ApiResult<Decoded> {
        check_type(kind)?;
        let (patch, mut problems) = decode::parse_patch(body)?;
        let patched = match kind {
            PatchType::Json => {
                problems.clear();
                json(current, patch)?
            }
            PatchType::Merge => merge(current, &patch)?,
            PatchType::StrategicMerge | PatchType::Apply { .. } => strategic(self, type_name, current, patch)?,
        };
        let checked = self.check(type_name, patched).map_err(|why| refused(&why))?;
        let Checked { value, problems: unknown } = checked;
        problems.extend(unknown);
        if validation == FieldValidation::Strict && !problems.is_empty() {
            return Err(refused(&decode::strict_error(&problems)));
        }
        let warnings = if validation == FieldValidation::Warn { problems } else { Vec::new() };
        Ok(Decoded { value, warnings })
    }
}

/// Refuses the patch types that are not served.
///
/// # Errors
/// `UnsupportedMediaType` for server-side apply.
pub fn check_type(kind: PatchType) -> ApiResult<()> {
    if let PatchType::Apply { .. } = kind {
        let message = "server-side apply is not served by this version; use a merge, strategic merge or JSON patch";
        return Err(ApiError::new(Reason::UnsupportedMediaType, message));
    }
    Ok(())
}

/// The outcome of a patch is no object of its kind. The patch itself is not shown: it may hold secrets.
fn refused(why: &str) -> ApiError {
    let message = format!("Invalid value: {why}");
    let cause = Cause { reason: "FieldValueInvalid".into(), field: "patch".into(), message: message.clone() };
    let details = Details { causes: vec![cause], ..Details::default() };
    let message = format!(" \"\" is invalid: patch: {message}");
    ApiError { reason: Reason::Invalid, message, details: Box::new(details) }
}

#[cfg(test)]
mod tests;
