//! Talking to a cluster: the connection, what kinds it has, and generic requests.

mod conn;
mod resources;
mod select;

pub(crate) use conn::{Conn, MERGE, STRATEGIC, explain, is_not_found};
pub(crate) use resources::{Resource, Resources};
pub(crate) use select::{Selected, parse_what};
