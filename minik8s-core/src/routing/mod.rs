//! What a gateway does with requests, as plain data: [`RouteSet`] is all that one must know. The kinds that say so
//! (`Ingress`, `HTTPRoute`, `Dns`) are translated into it by pure functions ([`translate`]), which also find out what
//! keeps an object from working; the controllers write that into its status, the gateways of the nodes follow the rules.

mod sources;
mod translate;

pub use sources::{News, Sources};
pub(crate) use translate::duration;
pub use translate::{
    AttachedRoute, CONTROLLER_NAME, DEFAULT_CLASS, GATEWAY_ANNOTATION, GatewayPlace, INGRESS_CONTROLLER, Key,
    ListenerState, Problem, RouteState, Translation, World, translate,
};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Most that an expression may take when compiled, and how deep it may be nested.
const REGEX_SIZE: usize = 256 * 1024;
const REGEX_DEPTH: u32 = 50;

/// An expression that must match the whole of a text; refused where it does not compile, or not within bounds.
///
/// # Errors
/// Why not, as a sentence.
pub fn whole_regex(pattern: &str) -> Result<regex::Regex, String> {
    let mut builder = regex::RegexBuilder::new(&anchored(pattern));
    builder.size_limit(REGEX_SIZE).nest_limit(REGEX_DEPTH).build().map_err(|error| error.to_string())
}

/// Expressions of which each must match the whole of a text. All were compiled alone before.
pub fn whole_regexes<'a>(patterns: impl ExactSizeIterator<Item = &'a str>) -> Option<regex::RegexSet> {
    let limit = REGEX_SIZE * patterns.len().max(1);
    regex::RegexSetBuilder::new(patterns.map(anchored)).size_limit(limit).build().ok()
}

fn anchored(pattern: &str) -> String {
    format!("^(?:{pattern})$")
}

/// What is wrong with an expression.
pub(crate) fn regex_complaint(pattern: &str) -> Option<String> {
    whole_regex(pattern).err().map(|why| format!("must be a regular expression: {why}"))
}

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
    /// Every host that leads here and is no pattern; patterns stand in [`RouteSet::patterns`].
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().filter_map(|rule| match &rule.host {
            Host::Exact(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// What hosts end in that lead here: `.example.com`, and whether one more label is all that may stand before it.
    pub fn patterns(&self) -> impl Iterator<Item = (&str, bool)> {
        self.rules.iter().filter_map(|rule| match &rule.host {
            Host::Below { suffix, one_label } => Some((suffix.as_str(), *one_label)),
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

/// Hosts that a rule is about. Always in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// All.
    #[default]
    Any,
    /// This one.
    Exact(String),
    /// Those that end so.
    Below {
        /// `.example.com`
        suffix: String,
        /// Only one label stands before it, as Ingress has it.
        one_label: bool,
    },
}

impl Host {
    /// What a kind says: nothing for all, `*.example.com`, or a name.
    pub fn parse(text: &str, one_label: bool) -> Self {
        let text = text.trim_end_matches('.').to_ascii_lowercase();
        match text.strip_prefix('*') {
            Some(suffix) => Host::Below { suffix: suffix.to_owned(), one_label },
            None if text.is_empty() => Host::Any,
            None => Host::Exact(text),
        }
    }

    /// True where the rule is about this host, which is in lower case.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Host::Any => true,
            Host::Exact(name) => name == host,
            Host::Below { suffix, one_label } => host
                .strip_suffix(suffix.as_str())
                .is_some_and(|rest| !rest.is_empty() && !(*one_label && rest.contains('.'))),
        }
    }

    /// The hosts that both are about.
    pub fn and(&self, other: &Host) -> Option<Host> {
        match (self, other) {
            (Host::Any, host) | (host, Host::Any) => Some(host.clone()),
            (Host::Exact(name), pattern) | (pattern, Host::Exact(name)) => {
                pattern.matches(name).then(|| Host::Exact(name.clone()))
            }
            (Host::Below { suffix: a, .. }, Host::Below { suffix: b, .. }) => {
                let longer = if a.len() >= b.len() { (self, a, b) } else { (other, b, a) };
                longer.1.ends_with(longer.2.as_str()).then(|| longer.0.clone())
            }
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Host::Any => f.write_str("*"),
            Host::Exact(name) => f.write_str(name),
            Host::Below { suffix, .. } => write!(f, "*{suffix}"),
        }
    }
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

/// What is done with requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Changes of the request's headers.
    pub request_headers: HeaderEdits,
    /// Changes of the response's.
    pub response_headers: HeaderEdits,
    /// The answer, where it does not come from a backend.
    pub redirect: Option<Redirect>,
    /// What backends see instead of the host and path.
    pub rewrite: Rewrite,
    /// Where copies go.
    pub mirrors: Vec<Mirror>,
    /// Where requests go, by weight.
    pub backends: Vec<Weighted>,
    /// All tries together.
    pub timeout: Option<Duration>,
    /// One try.
    pub try_timeout: Option<Duration>,
    /// What is tried again, beside what never reached a backend.
    pub retry: Retry,
    /// Who stays with one endpoint.
    pub sticky: Option<Sticky>,
    /// Largest body of requests; `None` for any.
    pub max_body: Option<u64>,
}

/// Changes of headers, in this order: set, add, remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Replaced.
    pub set: Vec<(String, String)>,
    /// Added.
    pub add: Vec<(String, String)>,
    /// Taken away.
    pub remove: Vec<String>,
}

/// Another path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewPath {
    /// Instead of the whole.
    Full(String),
    /// Instead of the prefix that matched.
    Prefix(String),
}

/// An answer that sends clients elsewhere; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Host.
    pub host: Option<String>,
    /// Path.
    pub path: Option<NewPath>,
    /// Port.
    pub port: Option<u16>,
    /// Status of the answer.
    pub status: u16,
}

/// What backends see instead; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Host.
    pub host: Option<String>,
    /// Path.
    pub path: Option<NewPath>,
}

/// Where copies go.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// The backend.
    pub backend: Backend,
    /// How many in a hundred.
    pub percent: u32,
}

/// A backend and its share.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted {
    /// The backend.
    pub backend: Backend,
    /// Its share; 0 gets nothing.
    pub weight: u32,
    /// Changes of headers of its requests only.
    pub request_headers: HeaderEdits,
    /// Changes of headers of its responses only.
    pub response_headers: HeaderEdits,
}

/// What backends speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Speaks {
    /// HTTP/1.1; gRPC is passed on as HTTP/2 all the same.
    #[default]
    Http,
    /// HTTP/2 without TLS (`kubernetes.io/h2c`).
    H2c,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Backend {
    /// A port of a Service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The port's number.
        port: u16,
        /// What it speaks.
        speaks: Speaks,
    },
    /// Nowhere: the reference is no good. The sentence says why, for the answer (500, or 503 for what may come yet).
    Broken {
        /// Status of the answer.
        status: u16,
        /// Why.
        why: String,
    },
}

/// What is tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// Answers that are as good as none.
    pub codes: Vec<u16>,
    /// How many more tries.
    pub attempts: u32,
    /// Wait between tries.
    pub backoff: Duration,
}

/// Who stays with one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// Who carries this cookie, which answers set.
    Cookie {
        /// Its name.
        name: String,
        /// How long it is kept; `None` as long as the browser runs.
        seconds: Option<u64>,
    },
    /// Whose header has the same value.
    Header {
        /// Its name, in lower case.
        name: String,
    },
}

/// A certificate, and who is to be shown it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Certificate {
    /// At which port.
    pub at: At,
    /// For which host.
    pub host: Host,
    /// Namespace of the Secret.
    pub namespace: String,
    /// Name of the Secret.
    pub secret: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_intersect_as_the_gateway_api_says() {
        let host = |text: &str| Host::parse(text, false);
        let table = [
            ("", "a.com", Some("a.com")),
            ("a.com", "a.com", Some("a.com")),
            ("a.com", "b.com", None),
            ("*.example.com", "test.example.com", Some("test.example.com")),
            ("*.example.com", "foo.test.example.com", Some("foo.test.example.com")),
            ("*.example.com", "example.com", None),
            ("*.example.com", "*.foo.example.com", Some("*.foo.example.com")),
            ("*.example.com", "*.example.net", None),
            ("", "", Some("*")),
        ];
        for (a, b, both) in table {
            let found = host(a).and(&host(b)).map(|h| h.to_string());
            assert_eq!(found.as_deref(), both, "{a} and {b}");
            assert_eq!(host(b).and(&host(a)).map(|h| h.to_string()).as_deref(), both, "{b} and {a}");
        }
    }

    #[test]
    fn ingress_wildcards_cover_one_label() {
        // The table of the Ingress documentation.
        let ingress = Host::parse("*.foo.com", true);
        assert!(ingress.matches("bar.foo.com"));
        assert!(!ingress.matches("baz.bar.foo.com") && !ingress.matches("foo.com"));
        assert!(Host::parse("*.foo.com", false).matches("baz.bar.foo.com"));
        assert_eq!(Host::parse("Shop.Example.COM.", true), Host::Exact("shop.example.com".into()));
    }
}
