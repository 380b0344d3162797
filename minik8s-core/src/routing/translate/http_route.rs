//! `HTTPRoute`: where it attaches, and its rules.

use super::backends::Backends;
use super::gateways::is_ours;
use super::plan::Planner;
use super::{Key, Problem, Translation, World, key_of, owner, secret_of};
use crate::api::Selector;
use crate::api::gateway::{
    GATEWAY_GROUP, Gateway, HttpRoute, HttpRouteMatch, HttpRouteRule, Listener, NamedMatch, ParentReference,
};
use crate::routing::{At, Host, Owner, PathRule, Plan, Rule, Wanted};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What became of a route at one parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedRoute {
    /// The parent.
    pub parent: ParentReference,
    /// Why it did not attach there.
    pub refused: Option<Problem>,
    /// References that lead nowhere.
    pub unresolved: Option<Problem>,
    /// What is done in another way than it says.
    pub limited: Vec<Problem>,
}

type Places = BTreeSet<(At, Host)>;

pub(super) fn translate(world: &World, backends: &Backends<'_>, made: &mut Translation) {
    for route in &world.http_routes {
        let key = key_of(&route.metadata);
        let (owner, secret) = (owner("HTTPRoute", &route.metadata), secret_of(&route.metadata));
        let mut planner = Planner {
            backends,
            namespace: &key.0,
            owner: &owner,
            secret: &secret,
            unresolved: Vec::new(),
            unsupported: Vec::new(),
            limited: Vec::new(),
        };
        let rules_of = route.spec.rules.iter().enumerate();
        let plans: Vec<Arc<Plan>> = rules_of.map(|(number, rule)| Arc::new(planner.plan(number, rule))).collect();
        let (unresolved, unsupported) = (planner.unresolved.into_iter().next(), planner.unsupported.into_iter().next());
        let limited = planner.limited;
        let mut places = Places::new();
        let mut parents = Vec::new();
        for parent in &route.spec.parent_refs {
            let Some(gateway) = parent_of(world, &key.0, parent) else { continue };
            let found = unsupported.clone().map_or_else(|| attach(world, route, gateway, parent, made), Err);
            let refused = match found {
                Ok(found) => {
                    places.extend(found);
                    None
                }
                Err(problem) => Some(problem),
            };
            let (parent, unresolved, limited) = (parent.clone(), unresolved.clone(), limited.clone());
            parents.push(AttachedRoute { parent, refused, unresolved, limited });
        }
        for (at, host) in &places {
            for (number, (rule, plan)) in route.spec.rules.iter().zip(&plans).enumerate() {
                made.routes.rules.extend(rules(&owner, number, rule, plan).map(|r| Rule {
                    at: *at,
                    host: host.clone(),
                    ..r
                }));
            }
        }
        if !parents.is_empty() {
            made.http_routes.insert(key, parents);
        }
    }
}

/// The Gateway of a reference, where it is served here.
fn parent_of<'a>(world: &'a World, home: &str, parent: &ParentReference) -> Option<&'a Arc<Gateway>> {
    let (group, kind) = (parent.group.as_deref().unwrap_or(GATEWAY_GROUP), parent.kind.as_deref().unwrap_or("Gateway"));
    let wanted: Key = (parent.namespace.clone().unwrap_or_else(|| home.to_owned()), parent.name.clone());
    let found = world.gateways.iter().find(|gateway| key_of(&gateway.metadata) == wanted)?;
    ((group, kind) == (GATEWAY_GROUP, "Gateway") && is_ours(world, found)).then_some(found)
}

/// The ports and hosts at which a route attaches to a Gateway.
fn attach(
    world: &World,
    route: &HttpRoute,
    gateway: &Gateway,
    parent: &ParentReference,
    made: &mut Translation,
) -> Result<Places, Problem> {
    let key = key_of(&gateway.metadata);
    let Some(states) = made.gateways.get_mut(&key) else { return Ok(Places::new()) };
    let named = |listener: &Listener| {
        parent.section_name.as_ref().is_none_or(|name| *name == listener.name)
            && parent.port.is_none_or(|port| port == listener.port)
    };
    let listeners: Vec<_> = gateway.spec.listeners.iter().zip(states).filter(|(listener, _)| named(listener)).collect();
    if listeners.is_empty() {
        let why = format!("Gateway {}/{} has no such listener", key.0, key.1);
        return Err(Problem::new("NoMatchingParent", why));
    }
    let mut places = Places::new();
    let mut allowed_by_one = false;
    for (listener, state) in listeners {
        if !allows(world, listener, &key.0, route.metadata.namespace.as_deref().unwrap_or_default()) {
            continue;
        }
        allowed_by_one = true;
        let hosts = hosts_at(listener, &route.spec.hostnames);
        if !hosts.is_empty() {
            state.attached += 1;
        }
        if state.works() {
            places.extend(hosts.into_iter().map(|host| (At::Port(state.port), host)));
        }
    }
    let name = format!("Gateway {}/{}", key.0, key.1);
    match (allowed_by_one, places.is_empty()) {
        (false, _) => {
            Err(Problem::new("NotAllowedByListeners", format!("no listener of {name} allows routes of this namespace")))
        }
        (true, true) => {
            let why = format!("no listener of {name} that works has a hostname in common with the route");
            Err(Problem::new("NoMatchingListenerHostname", why))
        }
        (true, false) => Ok(places),
    }
}

fn hosts_at(listener: &Listener, hostnames: &[String]) -> Vec<Host> {
    let own = Host::parse(listener.hostname.as_deref().unwrap_or_default(), false);
    if hostnames.is_empty() {
        return vec![own];
    }
    hostnames.iter().filter_map(|name| own.and(&Host::parse(name, false))).collect()
}

/// True where routes of a namespace may attach.
fn allows(world: &World, listener: &Listener, home: &str, namespace: &str) -> bool {
    let allowed = listener.allowed_routes.as_ref();
    let kinds = allowed.map(|a| a.kinds.as_slice()).unwrap_or_default();
    let kind = kinds.is_empty() || kinds.iter().any(|k| k.kind == "HTTPRoute");
    let namespaces = allowed.and_then(|a| a.namespaces.as_ref());
    kind && match namespaces.and_then(|n| n.from.as_deref()).unwrap_or("Same") {
        "All" => true,
        "Selector" => {
            let labels = world.namespaces.iter().find(|n| n.metadata.name.as_deref() == Some(namespace));
            let labels = labels.and_then(|n| n.metadata.labels.clone()).unwrap_or_default();
            let selector = namespaces.and_then(|n| n.selector.as_ref());
            selector.is_some_and(|s| Selector::from_typed(Some(s)).is_ok_and(|s| s.matches(&labels)))
        }
        _ => home == namespace,
    }
}

/// A rule for each of its matches.
fn rules<'a>(
    owner: &'a Owner,
    number: usize,
    rule: &'a HttpRouteRule,
    plan: &'a Arc<Plan>,
) -> impl Iterator<Item = Rule> + 'a {
    let all = [HttpRouteMatch::default()];
    let matches = if rule.matches.is_empty() { all.to_vec() } else { rule.matches.clone() };
    matches.into_iter().enumerate().map(move |(index, wanted)| Rule {
        owner: owner.clone(),
        place: (number, index),
        path: path(&wanted),
        method: wanted.method.clone(),
        headers: named(&wanted.headers, |name| name.to_ascii_lowercase()),
        query: named(&wanted.query_params, str::to_owned),
        plan: plan.clone(),
        ..Rule::default()
    })
}

fn path(wanted: &HttpRouteMatch) -> PathRule {
    let Some(path) = &wanted.path else { return PathRule::default() };
    let value = path.value.as_deref().unwrap_or("/");
    match path.type_.as_deref() {
        Some("Exact") => PathRule::Exact(value.to_owned()),
        Some("RegularExpression") => PathRule::Regex(value.to_owned()),
        _ => PathRule::prefix(value),
    }
}

/// Of several entries with one name, the first counts.
fn named(wanted: &[NamedMatch], spelled: impl Fn(&str) -> String) -> Vec<(String, Wanted)> {
    let mut all: Vec<(String, Wanted)> = Vec::new();
    for one in wanted {
        let name = spelled(&one.name);
        if all.iter().any(|(known, _)| *known == name) {
            continue;
        }
        let value = match one.type_.as_deref() {
            Some("RegularExpression") => Wanted::Regex(one.value.clone()),
            _ => Wanted::Exact(one.value.clone()),
        };
        all.push((name, value));
    }
    all
}
