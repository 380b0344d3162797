//! What several controllers of functions ask of objects, and make of answers to their writes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use minik8s_core::api::{ApiError, ApiResult};
use minik8s_core::controllers::controller_of;

/// True where the one is controlled by the very other.
pub(super) fn is_owned_by(meta: &ObjectMeta, owner: &ObjectMeta) -> bool {
    controller_of(meta).is_some_and(|controller| Some(&controller.uid) == owner.uid.as_ref())
}

pub(super) fn unmade(error: serde_json::Error) -> ApiError {
    ApiError::internal(format!("an object of a function cannot be made: {error}"))
}

/// That it is gone already is as good.
pub(super) fn gone(result: ApiResult<()>) -> ApiResult<()> {
    result.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
}

/// That it is there already is as good: the informer will show it.
pub(super) fn there(result: ApiResult<()>) -> ApiResult<()> {
    result.or_else(|error| if error.is_already_exists() { Ok(()) } else { Err(error) })
}
