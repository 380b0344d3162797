//! `Ingress`: hosts and paths that lead to Services of its namespace.

use super::backends::{Backends, PortName};
use super::{INGRESS_CONTROLLER, Key, Problem, RouteState, Translation, World, cookie_name, key_of, owner, secret_of};
use crate::api::Quantity;
use crate::routing::{At, Backend, Certificate, Host, NewPath, Owner, PathRule, Plan, Rewrite, Rule, Sticky, Weighted};
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The class of Ingresses from before there was a field for it.
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

pub(super) fn translate(world: &World, backends: &Backends<'_>, made: &mut Translation) {
    let ours = world
        .ingress_classes
        .iter()
        .filter(|class| class.spec.as_ref().and_then(|spec| spec.controller.as_deref()) == Some(INGRESS_CONTROLLER));
    let ours: BTreeSet<&str> = ours.filter_map(|class| class.metadata.name.as_deref()).collect();
    for ingress in &world.ingresses {
        if class_of(ingress).is_some_and(|class| ours.contains(class)) {
            let state = one(world, ingress, backends, made);
            made.ingresses.insert(key_of(&ingress.metadata), state);
        }
    }
}

fn class_of(ingress: &Ingress) -> Option<&str> {
    let said = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
    said.or_else(|| ingress.metadata.annotations.as_ref()?.get(OLD_CLASS).map(String::as_str))
}

fn one(world: &World, ingress: &Ingress, backends: &Backends<'_>, made: &mut Translation) -> RouteState {
    let empty = IngressSpec::default();
    let spec = ingress.spec.as_ref().unwrap_or(&empty);
    let mut maker = Maker {
        owner: owner("Ingress", &ingress.metadata),
        secret: secret_of(&ingress.metadata),
        options: Options::of(ingress.metadata.annotations.as_ref()),
        backends,
        state: RouteState::default(),
    };
    for (number, rule) in spec.rules.iter().flatten().enumerate() {
        let host = Host::parse(rule.host.as_deref().unwrap_or_default(), true);
        for (index, path) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
            made.routes.rules.push(maker.rule((number, index), host.clone(), path));
        }
    }
    if let Some(backend) = &spec.default_backend {
        let place = (usize::MAX, 0);
        let plan = maker.plan(place, backend);
        made.routes.rules.push(maker.bare(place, Host::Any, PathRule::default(), plan));
    }
    for tls in spec.tls.iter().flatten() {
        let Some(secret) = tls.secret_name.clone().filter(|name| !name.is_empty()) else { continue };
        let hosts: Vec<Host> = tls.hosts.iter().flatten().map(|host| Host::parse(host, true)).collect();
        let hosts = if hosts.is_empty() { vec![Host::Any] } else { hosts };
        let key = (maker.owner.namespace.clone(), secret.clone());
        maker.state.problems.extend(bad_certificate(world, &key));
        let owner = maker.owner.clone();
        made.routes.certificates.extend(hosts.into_iter().map(|host| Certificate {
            owner: owner.clone(),
            at: At::Usual,
            host,
            namespace: owner.namespace.clone(),
            secret: secret.clone(),
        }));
    }
    maker.state.problems.extend(std::mem::take(&mut maker.options.problems));
    maker.state
}

/// What is wrong with the Secret of a certificate.
fn bad_certificate(world: &World, key: &Key) -> Option<Problem> {
    let found = world.certificates.as_ref()?.get(key);
    let (namespace, name) = key;
    let why = match found {
        None => format!("there is no Secret {namespace}/{name}"),
        Some(Err(why)) => format!("Secret {namespace}/{name}: {why}"),
        Some(Ok(())) => return None,
    };
    Some(Problem::new("InvalidCertificateRef", why))
}

struct Maker<'a> {
    owner: Owner,
    /// What clients cannot know.
    secret: String,
    options: Options,
    backends: &'a Backends<'a>,
    state: RouteState,
}

impl Maker<'_> {
    fn rule(&mut self, place: (usize, usize), host: Host, path: &HTTPIngressPath) -> Rule {
        let text = path.path.as_deref().unwrap_or("/");
        let rule = match path.path_type.as_str() {
            "Exact" => PathRule::Exact(text.to_owned()),
            "ImplementationSpecific" if self.options.regex => PathRule::Regex(text.to_owned()),
            _ => PathRule::prefix(text),
        };
        let plan = self.plan(place, &path.backend);
        self.bare(place, host, rule, plan)
    }

    fn bare(&self, place: (usize, usize), host: Host, path: PathRule, plan: Plan) -> Rule {
        Rule { owner: self.owner.clone(), place, host, path, plan: Arc::new(plan), ..Rule::default() }
    }

    fn sticky(&self, session: &Session, place: (usize, usize)) -> Sticky {
        match session {
            Session::Cookie(name) => Sticky::Cookie {
                name: name.clone().unwrap_or_else(|| cookie_name(&self.owner, place)),
                seconds: None,
                key: self.secret.clone(),
            },
            Session::Header(name) => Sticky::Header { name: name.clone() },
        }
    }

    fn plan(&mut self, place: (usize, usize), backend: &IngressBackend) -> Plan {
        let (backend, problem) = self.backend(backend);
        self.state.problems.extend(problem);
        let options = &self.options;
        Plan {
            backends: vec![Weighted::whole(backend)],
            sticky: options.sticky.as_ref().map(|session| self.sticky(session, place)),
            max_body: options.max_body,
            timeout: options.timeout,
            rewrite: Rewrite { host: None, path: options.prefix.clone().map(NewPath::Prefix) },
            ..Plan::default()
        }
    }

    fn backend(&self, backend: &IngressBackend) -> (Backend, Option<Problem>) {
        let Some(service) = &backend.service else {
            let why = "a backend that is a resource and not a Service is not served here".to_owned();
            return (Backend::Broken { status: 500, why: why.clone() }, Some(Problem::new("UnsupportedValue", why)));
        };
        let port = service.port.as_ref();
        let port = match port.map(|port| (port.number, port.name.as_deref())) {
            Some((Some(number), _)) => PortName::Number(number),
            Some((None, Some(name))) => PortName::Name(name),
            _ => PortName::Number(0),
        };
        self.backends.service(&self.owner.namespace, &service.name, port)
    }
}

/// Who stays with one endpoint.
enum Session {
    Cookie(Option<String>),
    Header(String),
}

/// What annotations ask for, beyond the fields.
#[derive(Default)]
struct Options {
    regex: bool,
    sticky: Option<Session>,
    max_body: Option<u64>,
    timeout: Option<std::time::Duration>,
    prefix: Option<String>,
    problems: Vec<Problem>,
}

impl Options {
    fn of(annotations: Option<&BTreeMap<String, String>>) -> Self {
        let mut options = Self::default();
        let ours = annotations.into_iter().flatten().filter_map(|(k, v)| Some((k.strip_prefix("minik8s.io/")?, v)));
        for (name, value) in ours {
            options.take(name, value.trim());
        }
        options
    }

    fn take(&mut self, name: &str, value: &str) {
        let known = match name {
            "use-regex" => value.parse().map(|on| self.regex = on).is_ok(),
            "session-affinity" => {
                self.sticky = match value.split_once('=') {
                    None if value == "cookie" => Some(Session::Cookie(None)),
                    Some(("cookie", name)) => Some(Session::Cookie(Some(name.to_owned()))),
                    Some(("header", name)) => Some(Session::Header(name.to_ascii_lowercase())),
                    _ => None,
                };
                self.sticky.is_some()
            }
            "max-body-size" => {
                let bytes = value.parse::<Quantity>().ok().and_then(|q| u64::try_from(q.value()).ok());
                self.max_body = bytes;
                bytes.is_some()
            }
            "timeout" => {
                self.timeout = super::plan::duration(value);
                self.timeout.is_some()
            }
            "rewrite-prefix" => {
                self.prefix = Some(value.to_owned());
                value.starts_with('/')
            }
            _ => true,
        };
        if !known {
            let why = format!("annotation minik8s.io/{name} has a value that means nothing: {value:?}");
            self.problems.push(Problem::new("InvalidAnnotation", why));
        }
    }
}
