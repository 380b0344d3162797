//! Label and field selectors: their grammar, their text form, and matching.

mod field;
mod label;
mod parse;

pub use field::{FieldOp, FieldSelector, FieldTerm};
pub use label::{LabelOp, Requirement, Selector};
