//! `Dns`: a host whose paths lead to Services.

use super::backends::{Backends, PortName};
use super::{RouteState, Translation, World, key_of, owner};
use crate::routing::{Host, PathRule, Plan, Rule, Weighted};
use std::sync::Arc;

pub(super) fn translate(world: &World, backends: &Backends<'_>, made: &mut Translation) {
    for dns in &world.dns {
        let owner = owner("Dns", &dns.metadata);
        let mut state = RouteState::default();
        for (index, path) in dns.spec.paths.iter().enumerate() {
            let port = PortName::Number(path.service_port);
            let (backend, problem) = backends.service(&owner.namespace, &path.service_name, port);
            state.problems.extend(problem);
            let backends = vec![Weighted::whole(backend)];
            made.routes.rules.push(Rule {
                owner: owner.clone(),
                place: (index, 0),
                host: Host::parse(&dns.spec.host, false),
                path: PathRule::prefix(&path.path),
                plan: Arc::new(Plan { backends, ..Plan::default() }),
                ..Rule::default()
            });
        }
        made.dns.insert(key_of(&dns.metadata), state);
    }
}
