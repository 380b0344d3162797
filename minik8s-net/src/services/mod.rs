//! Service rules: what the table of services means in chains and maps, and how a change of it reaches the kernel.
//!
//! [`plan`] decides, from data to data; [`rules`], [`picks`] and [`base`] put decisions into the words of nftables;
//! [`program`] finds what changed; [`drift`] compares with what the kernel has; [`table`] acts.

mod base;
mod drift;
mod flows;
mod picks;
mod plan;
mod program;
mod rules;
mod table;

pub(crate) use base::Surroundings;
pub(crate) use program::PodRules;
pub(crate) use table::ServiceRules;
