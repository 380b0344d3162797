//! The routing table: immutable, made from plain data, swapped whole. A look-up costs a hash per label of the host and
//! per element of the path, whatever the number of routes; only rules of the same host and path are tried one by one.

mod hosts;
mod paths;
mod plan;
mod route;
#[cfg(test)]
mod tests;

pub(super) use plan::{Plan, Target, To};
pub(super) use route::{Asked, Route};

use super::backend::Clusters;
use super::metrics::GatewayMetrics;
use hosts::Hosts;
use minik8s_core::routing::{At, Plan as Wanted, RouteSet};
use std::collections::HashMap;
use std::sync::Arc;

/// The ports that every gateway has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct UsualPorts {
    pub(super) http: Option<u16>,
    pub(super) https: Option<u16>,
}

impl UsualPorts {
    /// The ports at which a rule holds.
    pub(super) fn of(self, at: At) -> impl Iterator<Item = u16> {
        let (one, two) = match at {
            At::Usual => (self.http, self.https),
            At::Port(port) => (Some(port), None),
        };
        one.into_iter().chain(two)
    }
}

/// What is done with which request.
#[derive(Default)]
pub struct RoutingTable {
    ports: HashMap<u16, Hosts>,
    /// Rules that cannot be followed, and why.
    broken: Vec<String>,
}

/// What a look-up found.
pub(super) enum Found<'a> {
    /// The route.
    Route(&'a Arc<Route>),
    /// Nothing; true where the host at least is known.
    Nothing { host_known: bool },
}

impl RoutingTable {
    /// Compiles the rules; backends come from `clusters`, which keeps those alive that were there before.
    pub(super) fn compile(
        set: &RouteSet,
        usual: UsualPorts,
        clusters: &mut Clusters,
        metrics: &GatewayMetrics,
    ) -> Self {
        let mut table = Self::default();
        let mut plans: HashMap<*const Wanted, Arc<Plan>> = HashMap::new();
        let mut rules: Vec<_> = set.rules.iter().collect();
        // The first that matches wins, wherever several stand under one key.
        rules.sort_by(|a, b| route::precedence(a, b));
        for rule in rules {
            let plan = plans
                .entry(Arc::as_ptr(&rule.plan))
                .or_insert_with(|| Arc::new(Plan::new(&rule.plan, clusters, &rule.owner, metrics)));
            match Route::new(rule, plan.clone()) {
                Ok(route) => table.insert(rule, usual, &Arc::new(route)),
                Err(why) => {
                    let owner = &rule.owner;
                    table.broken.push(format!("{} {}/{}: {why}", owner.kind, owner.namespace, owner.name));
                }
            }
        }
        table.ports.values_mut().for_each(Hosts::finish);
        clusters.forget_unused();
        metrics.forget_unused();
        table
    }

    fn insert(&mut self, rule: &minik8s_core::routing::Rule, usual: UsualPorts, route: &Arc<Route>) {
        for port in usual.of(rule.at) {
            self.ports.entry(port).or_default().insert(&rule.host, route.clone());
        }
    }

    /// The route of a request that came in at `port`.
    pub(super) fn find(&self, port: u16, asked: &Asked<'_>) -> Found<'_> {
        self.ports.get(&port).map_or(Found::Nothing { host_known: false }, |hosts| hosts.find(asked))
    }

    /// Rules that cannot be followed, and why.
    pub fn broken(&self) -> &[String] {
        &self.broken
    }
}
