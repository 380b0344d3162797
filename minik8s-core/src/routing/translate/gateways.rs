//! `Gateway`: which of its listeners are served.

use super::backends::Backends;
use super::{CONTROLLER_NAME, Problem, Translation, World, key_of, owner};
use crate::api::gateway::{GATEWAY_GROUP, Gateway, Listener, SecretReference};
use crate::routing::{At, Certificate, Host, Owner};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What became of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerState {
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// It speaks TLS.
    pub tls: bool,
    /// Why it is not served at all.
    pub refused: Option<Problem>,
    /// With which other listener it does not go together.
    pub conflict: Option<Problem>,
    /// References that lead nowhere, and kinds of routes that are not served.
    pub unresolved: Option<Problem>,
    /// How many routes attached.
    pub attached: usize,
}

impl ListenerState {
    /// It takes requests.
    pub fn works(&self) -> bool {
        self.refused.is_none() && self.conflict.is_none()
    }
}

/// True where the Gateway's class is served here.
pub(super) fn is_ours(world: &World, gateway: &Gateway) -> bool {
    let name = Some(gateway.spec.gateway_class_name.as_str());
    let class = world.gateway_classes.iter().find(|class| class.metadata.name.as_deref() == name);
    class.is_some_and(|class| class.spec.controller_name == CONTROLLER_NAME)
}

pub(super) fn translate(world: &World, backends: &Backends<'_>, made: &mut Translation) {
    let mut ours: Vec<&Arc<Gateway>> = world.gateways.iter().filter(|gateway| is_ours(world, gateway)).collect();
    // The older one has the port.
    ours.sort_by_key(|gateway| owner("Gateway", &gateway.metadata));
    let mut speaks: BTreeMap<u16, (bool, String)> = BTreeMap::new();
    for gateway in ours {
        let key = key_of(&gateway.metadata);
        let mut states: Vec<ListenerState> = gateway.spec.listeners.iter().map(plain_state).collect();
        conflicts(&gateway.spec.listeners, &mut states);
        for (listener, state) in gateway.spec.listeners.iter().zip(&mut states) {
            let tls = listener.protocol == "HTTPS";
            if let Some((other, name)) = speaks.get(&state.port).filter(|(other, _)| *other != tls && state.works()) {
                let speaks = if *other { "HTTPS" } else { "HTTP" };
                let why = format!("port {} speaks {speaks} already, for Gateway {name}", state.port);
                state.conflict = Some(Problem::new("ProtocolConflict", why));
            }
            if state.works() {
                speaks.entry(state.port).or_insert_with(|| (tls, format!("{}/{}", key.0, key.1)));
                made.routes.ports.insert(state.port, tls);
            }
            if tls {
                let owner = owner("Gateway", &gateway.metadata);
                certificates(world, backends, &owner, listener, state, made);
            }
        }
        made.gateways.insert(key, states);
    }
}

/// What a listener alone says.
fn plain_state(listener: &Listener) -> ListenerState {
    let refused = match listener.protocol.as_str() {
        "HTTP" | "HTTPS" => None,
        other => Some(Problem::new("UnsupportedProtocol", format!("protocol {other} is not served here"))),
    };
    let mode = listener.tls.as_ref().and_then(|tls| tls.mode.as_deref()).unwrap_or("Terminate");
    let passed = (listener.protocol == "HTTPS" && mode != "Terminate")
        .then(|| Problem::new("UnsupportedValue", format!("TLS mode {mode} is not served here")));
    let kinds = listener.allowed_routes.iter().flat_map(|allowed| &allowed.kinds);
    let foreign = kinds
        .filter(|kind| kind.kind != "HTTPRoute" || kind.group.as_deref().unwrap_or(GATEWAY_GROUP) != GATEWAY_GROUP);
    let unresolved = foreign
        .map(|kind| Problem::new("InvalidRouteKinds", format!("routes of kind {} are not served here", kind.kind)))
        .next();
    ListenerState {
        name: listener.name.clone(),
        port: u16::try_from(listener.port).unwrap_or_default(),
        tls: listener.protocol == "HTTPS",
        refused: refused.or(passed),
        conflict: None,
        unresolved,
        attached: 0,
    }
}

/// Listeners of one Gateway that do not go together: each is told.
fn conflicts(listeners: &[Listener], states: &mut [ListenerState]) {
    for (a, one) in listeners.iter().enumerate() {
        for (b, other) in listeners.iter().enumerate().filter(|(b, other)| *b != a && other.port == one.port) {
            let why = |what: &str| format!("listener {} has the same port and {what}", other.name);
            let _ = b;
            if one.protocol != other.protocol {
                states[a].conflict = Some(Problem::new("ProtocolConflict", why("another protocol")));
            } else if one.hostname == other.hostname {
                states[a].conflict = Some(Problem::new("HostnameConflict", why("the same hostname")));
            }
        }
    }
}

fn certificates(
    world: &World,
    backends: &Backends<'_>,
    owner: &Owner,
    listener: &Listener,
    state: &mut ListenerState,
    made: &mut Translation,
) {
    let references: Vec<&SecretReference> = listener.tls.iter().flat_map(|tls| &tls.certificate_refs).collect();
    let mut fine = BTreeSet::new();
    for reference in &references {
        match certificate(world, backends, &owner.namespace, reference) {
            Ok(key) => drop(fine.insert(key)),
            Err(problem) => drop(state.unresolved.get_or_insert(problem)),
        }
    }
    if references.is_empty() {
        let why = format!("listener {} names no certificate", listener.name);
        state.unresolved.get_or_insert(Problem::new("InvalidCertificateRef", why));
    }
    let host = Host::parse(listener.hostname.as_deref().unwrap_or_default(), false);
    for (namespace, secret) in fine.into_iter().filter(|_| state.works()) {
        let (owner, at, host) = (owner.clone(), At::Port(state.port), host.clone());
        made.routes.certificates.push(Certificate { owner, at, host, namespace, secret });
    }
}

fn certificate(
    world: &World,
    backends: &Backends<'_>,
    home: &str,
    reference: &SecretReference,
) -> Result<super::Key, Problem> {
    let (group, kind) = (reference.group.as_deref().unwrap_or(""), reference.kind.as_deref().unwrap_or("Secret"));
    let (namespace, name) = (reference.namespace.as_deref().unwrap_or(home), reference.name.as_str());
    if (group, kind) != ("", "Secret") {
        return Err(Problem::new("InvalidCertificateRef", format!("{kind} {namespace}/{name} is no Secret")));
    }
    if !backends.may_refer((GATEWAY_GROUP, "Gateway", home), namespace, ("", "Secret"), name) {
        let why = format!("no ReferenceGrant in {namespace} lets Gateways of {home} refer to Secret {name}");
        return Err(Problem::new("RefNotPermitted", why));
    }
    let key = (namespace.to_owned(), name.to_owned());
    match world.certificates.as_ref().map(|known| known.get(&key)) {
        Some(None) => Err(Problem::new("InvalidCertificateRef", format!("there is no Secret {namespace}/{name}"))),
        Some(Some(Err(why))) => Err(Problem::new("InvalidCertificateRef", format!("Secret {namespace}/{name}: {why}"))),
        None | Some(Some(Ok(()))) => Ok(key),
    }
}
