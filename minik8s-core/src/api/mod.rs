//! The plain data of the API: names, objects, errors, selectors, quantities, schemas. No I/O here.

mod error;
mod gvr;
mod object;

pub use error::{ApiError, ApiResult, Cause, Details, Reason};
pub use gvr::{Gvr, Target, api_version};
pub use object::{Meta, Object, ObjectList, OwnerReference, Revision, WatchEvent, WatchEventType};
