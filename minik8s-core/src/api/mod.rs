//! The plain data of the API: names, objects, errors, selectors, quantities, schemas. No I/O here.

pub mod decode;
mod demand;
mod error;
mod field_errors;
pub mod gateway;
mod gvr;
pub mod human;
pub mod metadata;
pub mod names;
mod object;
pub mod patch;
mod path_route;
pub mod protobuf;
mod quantity;
pub mod schema;
mod selector;
mod version;

pub use decode::{Decoded, Expect};
pub use demand::{BackendDemand, Demand, DemandSpec};
pub use error::{ApiError, ApiResult, Cause, Details, Reason};
pub use field_errors::FieldErrors;
pub use gvr::{Gvr, Target, api_version};
pub use names::{NODE_LEASES, NODE_NOT_READY, NameRule};
pub use object::{Meta, Object, ObjectList, OwnerReference, Revision, WatchEvent, WatchEventType};
pub use path_route::{FOR_ALL_NAMESPACES, Hold, PathBackend, PathRoute, PathRouteSpec, PathRouteStatus};
pub use quantity::{Quantity, QuantityError, QuantityFormat};
pub use schema::Schemas;
pub use selector::{FieldOp, FieldSelector, FieldTerm, LabelOp, Requirement, Selector};
pub use version::git_version;
pub(crate) use version::{minor_version, version_info};
