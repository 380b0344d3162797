//! The pod spec, wherever it stands: in a Pod, or in the template of something that makes pods.

mod container;
mod defaults;
mod identity;
mod placement;
mod probe;
mod resources;
mod sources;
mod validate;
mod volume;

pub(crate) use defaults::default_spec;
pub(crate) use resources::qos_class;
pub(crate) use validate::{Use, validate_spec, validate_template};
