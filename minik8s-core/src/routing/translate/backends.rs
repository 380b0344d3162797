//! What references to Services lead to.

use super::{Key, Problem, World, key_of};
use crate::api::gateway::ReferenceGrant;
use crate::routing::{Backend, Speaks};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use std::collections::HashMap;
use std::sync::Arc;

/// Services by name, and who may refer to those of other namespaces.
pub(super) struct Backends<'a> {
    services: HashMap<Key, &'a Service>,
    grants: &'a [Arc<ReferenceGrant>],
}

/// A port as references name it.
#[derive(Clone, Copy)]
pub(super) enum PortName<'a> {
    Number(i32),
    Name(&'a str),
}

impl<'a> Backends<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        let services = world.services.iter().map(|s| (key_of(&s.metadata), &**s)).collect();
        Self { services, grants: &world.grants }
    }

    /// The backend, and what is wrong with it: requests are told then.
    pub(super) fn service(&self, namespace: &str, name: &str, port: PortName<'_>) -> (Backend, Option<Problem>) {
        let broken = |status: u16, reason, why: String| {
            (Backend::Broken { status, why: why.clone() }, Some(Problem::new(reason, why)))
        };
        let key = (namespace.to_owned(), name.to_owned());
        let Some(service) = self.services.get(&key) else {
            return broken(503, "BackendNotFound", format!("there is no Service {namespace}/{name}"));
        };
        let spec = service.spec.as_ref();
        if spec.and_then(|s| s.type_.as_deref()) == Some("ExternalName") {
            let why = format!("Service {namespace}/{name} is a name for something outside; it has no endpoints");
            return broken(503, "UnsupportedValue", why);
        }
        let mut ports = spec.iter().flat_map(|s| s.ports.iter().flatten());
        let tcp = |p: &&ServicePort| p.protocol.as_deref().unwrap_or("TCP") == "TCP";
        let found = ports.find(|p| {
            tcp(p)
                && match port {
                    PortName::Number(number) => p.port == number,
                    PortName::Name(name) => p.name.as_deref() == Some(name),
                }
        });
        let Some((found, number)) = found.and_then(|p| Some((p, u16::try_from(p.port).ok()?))) else {
            let port = match port {
                PortName::Number(number) => number.to_string(),
                PortName::Name(name) => format!("{name:?}"),
            };
            return broken(503, "BackendNotFound", format!("Service {namespace}/{name} has no port {port}"));
        };
        let speaks = match found.app_protocol.as_deref() {
            Some("kubernetes.io/h2c") => Speaks::H2c,
            _ => Speaks::Http,
        };
        (Backend::Service { namespace: key.0, name: key.1, port: number, speaks }, None)
    }

    /// True where an object of a kind may refer to something in another namespace.
    pub(super) fn may_refer(&self, from: (&str, &str, &str), namespace: &str, to: (&str, &str), name: &str) -> bool {
        let (group, kind, home) = from;
        home == namespace
            || self.grants.iter().filter(|g| g.metadata.namespace.as_deref() == Some(namespace)).any(|grant| {
                let spec = &grant.spec;
                spec.from.iter().any(|f| f.group == group && f.kind == kind && f.namespace == home)
                    && spec
                        .to
                        .iter()
                        .any(|t| t.group == to.0 && t.kind == to.1 && t.name.as_deref().is_none_or(|only| only == name))
            })
    }
}
