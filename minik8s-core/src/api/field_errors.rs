//! What is wrong with an object, field by field, in the sentences clients know.

use super::{ApiError, ApiResult, Cause, Details, Reason, names::Complaints};
use serde_json::Value;

/// Collects what is wrong with an object, field by field.
#[derive(Debug, Default)]
pub struct FieldErrors(pub Vec<Cause>);

impl FieldErrors {
    fn push(&mut self, reason: &str, field: impl Into<String>, message: String) {
        self.0.push(Cause { reason: reason.to_owned(), message, field: field.into() });
    }

    /// `Required value`, with a hint where it is not empty.
    pub fn required(&mut self, field: impl Into<String>, hint: &str) {
        let message = if hint.is_empty() { "Required value".into() } else { format!("Required value: {hint}") };
        self.push("FieldValueRequired", field, message);
    }

    /// `Invalid value: <value>: <why>`; the value is shown as JSON.
    pub fn invalid(&mut self, field: impl Into<String>, value: &Value, why: &str) {
        self.push("FieldValueInvalid", field, format!("Invalid value: {value}: {why}"));
    }

    /// As [`invalid`](Self::invalid), for values that are not shown as JSON.
    pub fn invalid_shown(&mut self, field: impl Into<String>, shown: &str, why: &str) {
        self.push("FieldValueInvalid", field, format!("Invalid value: {shown}: {why}"));
    }

    /// One `Invalid value` per complaint about a text.
    pub fn complaints(&mut self, field: &str, value: &str, complaints: Complaints) {
        for why in complaints {
            self.invalid(field, &Value::from(value), &why);
        }
    }

    /// `Unsupported value: <value>: supported values: …`
    pub fn unsupported(&mut self, field: impl Into<String>, value: &str, supported: &[&str]) {
        let list = supported.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
        self.push("FieldValueNotSupported", field, format!("Unsupported value: {value:?}: supported values: {list}"));
    }

    /// `Forbidden: <why>`
    pub fn forbidden(&mut self, field: impl Into<String>, why: &str) {
        self.push("FieldValueForbidden", field, format!("Forbidden: {why}"));
    }

    /// `Duplicate value: <value>`
    pub fn duplicate(&mut self, field: impl Into<String>, value: &Value) {
        self.push("FieldValueDuplicate", field, format!("Duplicate value: {value}"));
    }

    /// `Not found: <value>`: it refers to something that is not there.
    pub fn not_found(&mut self, field: impl Into<String>, value: &str) {
        self.push("FieldValueNotFound", field, format!("Not found: {value:?}"));
    }

    /// `Too long: may not be more than <max> bytes`
    pub fn too_long(&mut self, field: impl Into<String>, max: usize) {
        self.push("FieldValueTooLong", field, format!("Too long: may not be more than {max} bytes"));
    }

    /// `Invalid value: <value>: field is immutable` where the two differ.
    pub fn immutable(&mut self, field: impl Into<String>, new: &Value, old: &Value) {
        if new != old {
            self.invalid(field, new, "field is immutable");
        }
    }

    /// True where nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The refusal of the object, if anything is wrong: `Pod "bad" is invalid: [spec.containers: Required value, …]`.
    ///
    /// # Errors
    /// `Invalid`, with the causes.
    pub fn into_result(self, group: &str, kind: &str, name: &str) -> ApiResult<()> {
        if self.0.is_empty() { Ok(()) } else { Err(self.into_error(group, kind, name)) }
    }

    /// The refusal, whether or not anything is wrong. What is wrong twice is said once.
    pub fn into_error(self, group: &str, kind: &str, name: &str) -> ApiError {
        let mut sentences: Vec<String> = Vec::new();
        for cause in &self.0 {
            let sentence = format!("{}: {}", cause.field, cause.message);
            if !sentences.contains(&sentence) {
                sentences.push(sentence);
            }
        }
        let all = if sentences.len() == 1 { sentences.concat() } else { format!("[{}]", sentences.join(", ")) };
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let details =
            Details { name: name.into(), group: group.into(), kind: kind.into(), causes: self.0, ..Details::default() };
        let message = format!("{qualified} {name:?} is invalid: {all}");
        ApiError { reason: Reason::Invalid, message, details: Box::new(details) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn refusals_read_like_the_real_ones() {
        let mut errors = FieldErrors::default();
        errors.required("spec.containers[0].image", "");
        errors.unsupported("spec.restartPolicy", "Foo", &["Always", "OnFailure", "Never"]);
        let error = errors.into_result("", "Pod", "bad").unwrap_err();
        assert_eq!(
            error.message,
            "Pod \"bad\" is invalid: [spec.containers[0].image: Required value, spec.restartPolicy: Unsupported value: \
             \"Foo\": supported values: \"Always\", \"OnFailure\", \"Never\"]"
        );
        assert_eq!(error.details.causes.len(), 2);
        let mut errors = FieldErrors::default();
        errors.immutable("metadata.uid", &json!("abc"), &json!("d"));
        errors.immutable("metadata.uid", &json!("abc"), &json!("d"));
        errors.immutable("metadata.name", &json!("a"), &json!("a"));
        let error = errors.into_result("apps", "Deployment", "d").unwrap_err();
        assert_eq!(
            error.message,
            "Deployment.apps \"d\" is invalid: metadata.uid: Invalid value: \"abc\": field is immutable"
        );
        assert_eq!((error.details.causes.len(), error.details.kind.as_str()), (2, "Deployment"));
        assert!(FieldErrors::default().into_result("", "Pod", "p").is_ok());
    }
}
