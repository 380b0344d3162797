//! nftables over netlink: what the service rules need of it, and no more.
//!
//! Bottom up: [`wire`] lays out messages and attributes, [`expr`] the expressions of a rule, [`batch`] tables, chains,
//! sets and elements in one transaction, [`socket`] exchanges them with the kernel. Nothing here knows of services.

pub(crate) mod batch;
pub(crate) mod expr;
pub(crate) mod socket;
pub(crate) mod wire;

pub(crate) use batch::{BaseChain, Batch, Rule, SetSpec};
pub(crate) use expr::{Data, Expr, Reg, Value};
pub(crate) use socket::{NftError, NftSocket};
