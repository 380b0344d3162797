//! Rules of metadata that kinds apply to metadata elsewhere, such as that of pod templates.

use crate::api::metadata;
use crate::server::FieldErrors;
use serde_json::Value;

/// Labels, wherever they stand.
pub(crate) fn labels_at(path: &str, labels: Option<&Value>, errors: &mut FieldErrors) {
    if let Some(labels) = labels {
        metadata::labels(labels, path, errors);
    }
}
