//! The statuses that objects should have, and how they differ from those that they have. Pure.

use crate::api::gateway::{
    Dns, DnsStatus, GATEWAY_GROUP, Gateway, GatewayAddress, GatewayClass, GatewayStatus, HttpRoute, HttpRouteStatus,
    ListenerStatus, RouteGroupKind, RouteParentStatus,
};
use crate::api::{PathRoute, PathRouteStatus};
use crate::client::{ApiResource, reference_of};
use crate::controllers::conditions::{Wanted, settle};
use crate::routing::{
    AttachedRoute, CONTROLLER_NAME, GATEWAY_ANNOTATION, GatewayPlace, Key, ListenerState, Owner, Problem, Translation,
    World,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use k8s_openapi::api::networking::v1::{Ingress, IngressLoadBalancerIngress, IngressLoadBalancerStatus, IngressStatus};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Addresses of nodes that run a gateway, and the ports at which they listen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<String, GatewayPlace>);

impl Places {
    /// What nodes say of themselves.
    pub fn of(nodes: &[Arc<Node>]) -> Self {
        let place = |node: &Arc<Node>| {
            let said = node.metadata.annotations.as_ref()?.get(GATEWAY_ANNOTATION)?;
            let addresses = node.status.as_ref()?.addresses.iter().flatten();
            let address = addresses.filter(|a| a.type_ == "InternalIP").map(|a| a.address.clone()).next()?;
            Some((address, serde_json::from_str(said).ok()?))
        };
        Self(nodes.iter().filter_map(place).collect())
    }

    /// Addresses of routes that name no port.
    pub fn usual(&self) -> impl Iterator<Item = &str> {
        let listens = |place: &GatewayPlace| place.http.or(place.https).is_some();
        self.0.iter().filter(move |(_, place)| listens(place)).map(|(address, _)| address.as_str())
    }

    /// Addresses at which somebody listens at a port, and speaks TLS there or not: the ports that every gateway of a node
    /// has do not speak anything else.
    pub fn at(&self, port: u16, tls: bool) -> impl Iterator<Item = &str> {
        let speaks = move |place: &GatewayPlace| {
            let other = if tls { place.http } else { place.https };
            place.ports.contains(&port) && other != Some(port)
        };
        self.0.iter().filter(move |(_, place)| speaks(place)).map(|(address, _)| address.as_str())
    }
}

/// A status to be written.
#[derive(Debug, PartialEq)]
pub(super) struct Change {
    pub(super) kind: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) status: Value,
}

/// What is to be written, and said.
#[derive(Debug, Default)]
pub(super) struct Statuses {
    pub(super) changes: Vec<Change>,
    pub(super) events: Vec<(ObjectReference, String)>,
}

impl Statuses {
    fn add<K: ApiResource, S: serde::Serialize + PartialEq>(&mut self, object: &K, before: Option<&S>, after: &S) {
        if before == Some(after) {
            return;
        }
        let meta = object.metadata();
        self.changes.push(Change {
            kind: K::KIND,
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            status: serde_json::to_value(after).unwrap_or_default(),
        });
    }
}

/// What everything around an object says.
struct Look<'a> {
    translation: &'a Translation,
    places: &'a Places,
    now: Timestamp,
}

/// The statuses that differ from what they should be.
pub(super) fn of(world: &World, translation: &Translation, places: &Places, now: Timestamp) -> Statuses {
    let look = Look { translation, places, now };
    let mut statuses = Statuses::default();
    world.ingresses.iter().for_each(|ingress| look.ingress(ingress, &mut statuses));
    world.dns.iter().for_each(|dns| look.dns(dns, &mut statuses));
    world.path_routes.iter().for_each(|route| look.path_route(route, &mut statuses));
    world.gateway_classes.iter().for_each(|class| look.class(class, &mut statuses));
    world.gateways.iter().for_each(|gateway| look.gateway(gateway, &mut statuses));
    world.http_routes.iter().for_each(|route| look.route(route, &mut statuses));
    statuses
}

fn key<K: ApiResource>(object: &K) -> Key {
    let meta = object.metadata();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn sentences(problems: &[Problem]) -> String {
    problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("; ")
}

impl Look<'_> {
    fn conflicts(&self, kind: &'static str, key: &Key) -> Vec<Problem> {
        let mut all = self.translation.conflicts.iter();
        let found =
            all.find(|(Owner { namespace, name, kind: k, .. }, _)| *k == kind && (namespace, name) == (&key.0, &key.1));
        found.map(|(_, problems)| problems.clone()).unwrap_or_default()
    }

    fn ingress(&self, ingress: &Ingress, statuses: &mut Statuses) {
        let key = key(ingress);
        let Some(state) = self.translation.ingresses.get(&key) else { return };
        let point = |ip: &str| IngressLoadBalancerIngress { ip: Some(ip.to_owned()), ..Default::default() };
        let points: Vec<_> = self.places.usual().map(point).collect();
        let ingress_points = (!points.is_empty()).then_some(points);
        let status = IngressStatus { load_balancer: Some(IngressLoadBalancerStatus { ingress: ingress_points }) };
        statuses.add(ingress, ingress.status.as_ref(), &status);
        // Ingresses have no conditions: events say what is wrong.
        for problem in state.problems.iter().chain(&self.conflicts("Ingress", &key)) {
            statuses.events.push((reference_of(ingress), problem.message.clone()));
        }
    }

    fn dns(&self, dns: &Dns, statuses: &mut Statuses) {
        let key = key(dns);
        let Some(state) = self.translation.dns.get(&key) else { return };
        let mut problems = state.problems.clone();
        problems.extend(self.conflicts("Dns", &key));
        let addresses: Vec<String> = self.places.usual().map(str::to_owned).collect();
        let ready = match problems.first() {
            None if addresses.is_empty() => Wanted::no("Ready", "NoGateway", "no node runs a gateway"),
            None => Wanted::yes("Ready", "Ready", ""),
            Some(first) => Wanted::no("Ready", first.reason, sentences(&problems)),
        };
        let before = dns.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        let conditions = settle(before, vec![ready], dns.metadata.generation.unwrap_or(0), self.now);
        statuses.add(dns, dns.status.as_ref(), &DnsStatus { addresses, conditions });
    }

    /// Most have nothing wrong with them, and there are many: they are not written to.
    fn path_route(&self, route: &PathRoute, statuses: &mut Statuses) {
        let key = key(route);
        let state = self.translation.path_routes.get(&key);
        let mut problems = state.map(|state| state.problems.clone()).unwrap_or_default();
        problems.extend(self.conflicts("PathRoute", &key));
        let before = route.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        let accepted = match problems.first() {
            None if before.is_empty() => return,
            None => Wanted::yes("Accepted", "Accepted", ""),
            Some(first) => Wanted::no("Accepted", first.reason, sentences(&problems)),
        };
        let conditions = settle(before, vec![accepted], route.metadata.generation.unwrap_or(0), self.now);
        statuses.add(route, route.status.as_ref(), &PathRouteStatus { conditions });
    }

    fn class(&self, class: &GatewayClass, statuses: &mut Statuses) {
        if class.spec.controller_name != CONTROLLER_NAME {
            return;
        }
        let before = class.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        let accepted = vec![Wanted::yes("Accepted", "Accepted", "")];
        let conditions = settle(before, accepted, class.metadata.generation.unwrap_or(0), self.now);
        statuses.add(class, class.status.as_ref(), &crate::api::gateway::GatewayClassStatus { conditions });
    }

    fn gateway(&self, gateway: &Gateway, statuses: &mut Statuses) {
        let Some(states) = self.translation.gateways.get(&key(gateway)) else { return };
        let before = gateway.status.clone().unwrap_or_default();
        let generation = gateway.metadata.generation.unwrap_or(0);
        let listeners = states.iter().map(|state| {
            let known = before.listeners.iter().find(|l| l.name == state.name);
            let known = known.map(|l| l.conditions.as_slice()).unwrap_or_default();
            ListenerStatus {
                name: state.name.clone(),
                supported_kinds: vec![RouteGroupKind { group: Some(GATEWAY_GROUP.into()), kind: "HTTPRoute".into() }],
                attached_routes: i32::try_from(state.attached).unwrap_or(i32::MAX),
                conditions: settle(known, self.listener(state), generation, self.now),
            }
        });
        let listeners = listeners.collect();
        let mut addresses: Vec<&str> =
            states.iter().filter(|s| s.works()).flat_map(|s| self.places.at(s.port, s.tls)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let address = |ip: &str| GatewayAddress { type_: "IPAddress".into(), value: ip.to_owned() };
        let conditions = settle(&before.conditions, self.whole(states), generation, self.now);
        let status = GatewayStatus { addresses: addresses.into_iter().map(address).collect(), conditions, listeners };
        statuses.add(gateway, gateway.status.as_ref(), &status);
    }

    fn whole(&self, states: &[ListenerState]) -> Vec<Wanted> {
        let bad = states.iter().filter(|state| !state.works()).count();
        let accepted = match bad {
            0 => Wanted::yes("Accepted", "Accepted", ""),
            _ if bad == states.len() => Wanted::no("Accepted", "ListenersNotValid", "no listener can be served"),
            _ => Wanted::yes("Accepted", "ListenersNotValid", format!("{bad} listeners cannot be served")),
        };
        let works = accepted.holds;
        let silent = states.iter().find(|s| s.works() && self.places.at(s.port, s.tls).next().is_none());
        let programmed = match silent {
            _ if !works => Wanted::no("Programmed", "Invalid", "no listener can be served"),
            None => Wanted::yes("Programmed", "Programmed", ""),
            Some(state) => Wanted::no("Programmed", "AddressNotAssigned", nobody_listens(state.port)),
        };
        vec![accepted, programmed]
    }

    fn listener(&self, state: &ListenerState) -> Vec<Wanted> {
        let problem = state.refused.as_ref().or(state.conflict.as_ref());
        let accepted = match problem {
            None => Wanted::yes("Accepted", "Accepted", ""),
            Some(problem) => Wanted::no("Accepted", problem.reason, problem.message.clone()),
        };
        let conflicted = match &state.conflict {
            None => Wanted::no("Conflicted", "NoConflicts", ""),
            Some(problem) => Wanted::yes("Conflicted", problem.reason, problem.message.clone()),
        };
        let programmed = match (problem, self.places.at(state.port, state.tls).next()) {
            (None, Some(_)) => Wanted::yes("Programmed", "Programmed", ""),
            (None, None) => Wanted::no("Programmed", "Pending", nobody_listens(state.port)),
            (Some(problem), _) => Wanted::no("Programmed", "Invalid", problem.message.clone()),
        };
        vec![accepted, conflicted, programmed, resolved(state.unresolved.as_ref())]
    }

    fn route(&self, route: &HttpRoute, statuses: &mut Statuses) {
        let key = key(route);
        let empty = Vec::new();
        let ours = self.translation.http_routes.get(&key).unwrap_or(&empty);
        let before = route.status.clone().unwrap_or_default();
        let conflicts = self.conflicts("HTTPRoute", &key);
        // What other controllers say stays.
        let others = before.parents.iter().filter(|parent| parent.controller_name != CONTROLLER_NAME).cloned();
        let own = ours.iter().map(|attached| {
            let known =
                before.parents.iter().find(|p| p.parent_ref == attached.parent && p.controller_name == CONTROLLER_NAME);
            let known = known.map(|p| p.conditions.as_slice()).unwrap_or_default();
            let wanted = parent(attached, &conflicts);
            let generation = route.metadata.generation.unwrap_or(0);
            RouteParentStatus {
                parent_ref: attached.parent.clone(),
                controller_name: CONTROLLER_NAME.to_owned(),
                conditions: settle(known, wanted, generation, self.now),
            }
        });
        let parents: Vec<RouteParentStatus> = others.chain(own).collect();
        if parents != before.parents {
            statuses.add(route, None, &HttpRouteStatus { parents });
        }
    }
}

fn nobody_listens(port: u16) -> String {
    format!("no node listens at port {port}: no gateway runs, or the port is taken or speaks something else")
}

fn resolved(problem: Option<&Problem>) -> Wanted {
    match problem {
        None => Wanted::yes("ResolvedRefs", "ResolvedRefs", ""),
        Some(problem) => Wanted::no("ResolvedRefs", problem.reason, problem.message.clone()),
    }
}

fn parent(attached: &AttachedRoute, conflicts: &[Problem]) -> Vec<Wanted> {
    let accepted = match &attached.refused {
        None => Wanted::yes("Accepted", "Accepted", sentences(&attached.limited)),
        Some(problem) => Wanted::no("Accepted", problem.reason, problem.message.clone()),
    };
    let mut all = vec![accepted, resolved(attached.unresolved.as_ref())];
    if !conflicts.is_empty() {
        all.push(Wanted::yes("minik8s.io/Conflicted", "OlderRoute", sentences(conflicts)));
    }
    all
}
