//! Functions: code in, URL out, and nothing running while nobody calls.
//!
//! A `Function` has immutable revisions, each a ReplicaSet and a Service without an address. Its calls come through a
//! `PathRoute` whose requests are held where nobody can take them; gateways tell what waits in `Demand`, and the
//! controller makes as many instances as that asks for.

pub mod api;
pub mod build;
mod builder;
mod controller;
mod demands;
mod invocation;
mod keeper;
mod kind;
mod metrics;
pub mod objects;
pub mod plan;
pub mod revision;
pub mod scale;
mod status;
mod unneeded;
mod unpack;
mod writes;

pub(crate) use invocation::{belongs_to, function_of, is_over};
pub(crate) use keeper::{Keeper, Neighbours};
pub(crate) use kind::{LARGEST_BODY, LONGEST_KEY};
pub use metrics::FunctionMetrics;
pub use unpack::Unpacker;

use crate::registry::Registry;
use crate::workflow::Invoker;
use minik8s_core::controllers::Controller;
use minik8s_core::server::Kind;
use std::sync::Arc;

/// Types of the kinds, for the server.
pub(crate) const SCHEMAS: &str = include_str!("schema.txt");

/// How functions are built and scaled.
#[derive(Clone, Debug, Default)]
pub struct FunctionsConfig {
    /// Where it is counted.
    pub metrics: FunctionMetrics,
    /// Where images of functions are kept; without it, functions are images from elsewhere.
    pub registry: Option<Registry>,
    /// Who makes calls that nobody waits for; a gateway of the cluster's nodes where nobody is named.
    pub invoker: InvokerChoice,
}

/// Who makes calls that nobody waits for.
#[derive(Clone, Default)]
pub struct InvokerChoice(pub Option<Arc<dyn Invoker>>);

impl std::fmt::Debug for InvokerChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "InvokerChoice(Some)" } else { "InvokerChoice(None)" })
    }
}

pub(crate) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![
        Arc::new(kind::FunctionKind::new()),
        Arc::new(kind::RevisionKind::new()),
        Arc::new(kind::InvocationKind::new()),
    ]
}

/// The loops behind functions.
pub(crate) fn controllers(config: &FunctionsConfig) -> Vec<Arc<dyn Controller>> {
    let functions = controller::FunctionController { config: config.clone() };
    let mut all: Vec<Arc<dyn Controller>> = vec![Arc::new(functions)];
    let invoker = config.invoker.clone();
    all.push(Arc::new(invocation::InvocationController { invoker }));
    if let Some(registry) = config.registry.clone() {
        all.push(Arc::new(builder::BuildController { registry }));
    }
    all
}
