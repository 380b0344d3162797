//! What a gateway does with requests, as plain data: [`RouteSet`] is all that one must know. The kinds that say so
//! (`Ingress`, `HTTPRoute`, `Dns`) are translated into it by pure functions ([`translate`]), which also find out what
//! keeps an object from working; the controllers write that into its status, the gateways of the nodes follow the rules.

mod host;
mod pattern;
mod plan;
mod sources;
mod tally;
mod translate;

pub use host::Host;
pub(crate) use pattern::regex_complaint;
pub use pattern::{whole_regex, whole_regexes};
pub use plan::{Backend, HeaderEdits, Hold, Mirror, NewPath, Plan, Redirect, Retry, Rewrite, Speaks, Sticky, Weighted};
pub use sources::{News, Sources};
pub use tally::{CanaryTally, Tally};
pub(crate) use translate::duration;
pub use translate::{
    AttachedRoute, CONTROLLER_NAME, DEFAULT_CLASS, GATEWAY_ANNOTATION, GatewayPlace, INGRESS_CONTROLLER, Key,
    ListenerState, Problem, RouteState, Translation, World, translate,
};

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of the longest path that a rule may have, as the Gateway API has it.
pub const LONGEST_PATH: usize = 1024;
/// Annotation of an `HTTPRoute` whose second backend is a canary; its value is a
/// [`Canary`](crate::controllers::canary::Canary).
pub const CANARY_ANNOTATION: &str = "minik8s.io/canary";
/// Annotation of nodes with what their gateways have counted of canaries; its value is [`Tallies`].
pub const TALLIES_ANNOTATION: &str = "minik8s.io/canary-tallies";

/// What was counted, by `namespace/name` of the route.
pub type Tallies = BTreeMap<String, CanaryTally>;

/// Everything a gateway must know of routes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteSet {
    /// In no order that matters.
    pub rules: Vec<Rule>,
    /// Ports to listen at beside those that every gateway has, and whether they speak TLS.
    pub ports: BTreeMap<u16, bool>,
    /// Certificates, by whom they are for.
    pub certificates: Vec<Certificate>,
}

impl RouteSet {
    /// Without what holds at some ports only.
    #[must_use]
    pub fn without_ports(mut self, ports: &[u16]) -> Self {
        let stays = |at: At| !matches!(at, At::Port(port) if ports.contains(&port));
        self.rules.retain(|rule| stays(rule.at));
        self.certificates.retain(|certificate| stays(certificate.at));
        self.ports.retain(|port, _| !ports.contains(port));
        self
    }

    /// Every host that leads here and is no pattern, with the namespace that says so; patterns stand in
    /// [`RouteSet::patterns`].
    pub fn hosts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.rules.iter().filter_map(|rule| match &rule.host {
            Host::Exact(name) => Some((name.as_str(), rule.owner.namespace.as_str())),
            _ => None,
        })
    }

    /// What hosts end in that lead here: `.example.com`, whether one more label is all that may stand before it, and the
    /// namespace that says so.
    pub fn patterns(&self) -> impl Iterator<Item = (&str, bool, &str)> {
        self.rules.iter().filter_map(|rule| match &rule.host {
            Host::Below { suffix, one_label } => Some((suffix.as_str(), *one_label, rule.owner.namespace.as_str())),
            _ => None,
        })
    }
}

/// Who made a rule; decides between rules that are otherwise alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `Ingress`, `HTTPRoute`, `Dns`.
    pub kind: &'static str,
}

/// At which ports a rule holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum At {
    /// Those that every gateway has, with TLS and without.
    #[default]
    Usual,
    /// This one.
    Port(u16),
}

/// Paths that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathRule {
    /// This one.
    Exact(String),
    /// This one and all below it, by whole elements; without a slash at its end but for `/` itself.
    Prefix(String),
    /// The whole path matches.
    Regex(String),
}

impl Default for PathRule {
    fn default() -> Self {
        PathRule::Prefix("/".to_owned())
    }
}

impl PathRule {
    /// A prefix as the kinds spell it: a slash at the end means nothing.
    pub fn prefix(text: &str) -> Self {
        let text = text.trim_end_matches('/');
        PathRule::Prefix(if text.is_empty() { "/".to_owned() } else { text.to_owned() })
    }
}

/// A rule about a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wanted {
    /// It is this.
    Exact(String),
    /// All of it matches.
    Regex(String),
}

/// One kind of requests, and what is done with them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// Whose it is.
    pub owner: Owner,
    /// Its place among those of its owner.
    pub place: (usize, usize),
    /// At which ports.
    pub at: At,
    /// For which hosts.
    pub host: Host,
    /// For which paths.
    pub path: PathRule,
    /// For which method; `None` for all.
    pub method: Option<String>,
    /// With these headers; names are in lower case.
    pub headers: Vec<(String, Wanted)>,
    /// With these parameters.
    pub query: Vec<(String, Wanted)>,
    /// What is done. Shared by rules that share their backends.
    pub plan: Arc<Plan>,
}

/// A certificate, and who is to be shown it. Of two for the same host, the older owner's is shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Certificate {
    /// Who wants it.
    pub owner: Owner,
    /// At which port.
    pub at: At,
    /// For which host.
    pub host: Host,
    /// Namespace of the Secret.
    pub namespace: String,
    /// Name of the Secret.
    pub secret: String,
}
