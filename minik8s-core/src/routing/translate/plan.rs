//! What a rule of an `HTTPRoute` does, but for the requests it is about.

use super::backends::{Backends, PortName};
use super::{Problem, cookie_name};
use crate::api::gateway::{
    BackendRef, GATEWAY_GROUP, HeaderModifier, HttpRouteFilter, HttpRouteRule, MirrorFilter, PathModifier, RetrySpec,
    SessionPersistence,
};
use crate::routing::{Backend, HeaderEdits, Mirror, NewPath, Owner, Plan, Redirect, Retry, Rewrite, Sticky, Weighted};
use std::time::Duration;

/// Most tries after the first that a route may ask for, and the longest wait between them.
const MOST_TRIES: u32 = 10;
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

impl Weighted {
    /// A backend that gets everything.
    pub(super) fn whole(backend: Backend) -> Self {
        Self { backend, weight: 1, request_headers: HeaderEdits::default(), response_headers: HeaderEdits::default() }
    }
}

/// Makes plans, and notes what is wrong with references and values.
pub(super) struct Planner<'a> {
    pub(super) backends: &'a Backends<'a>,
    pub(super) namespace: &'a str,
    pub(super) owner: &'a Owner,
    /// What clients cannot know.
    pub(super) secret: &'a str,
    /// References that lead nowhere.
    pub(super) unresolved: Vec<Problem>,
    /// What is not served here.
    pub(super) unsupported: Vec<Problem>,
    /// What is served in another way than it says.
    pub(super) limited: Vec<Problem>,
}

impl Planner<'_> {
    pub(super) fn plan(&mut self, number: usize, rule: &HttpRouteRule) -> Plan {
        let mut plan = Plan::default();
        for filter in &rule.filters {
            self.filter(filter, &mut plan);
        }
        plan.backends = rule.backend_refs.iter().map(|backend| self.weighted(backend)).collect();
        if !plan.backends.is_empty() && plan.backends.iter().all(|backend| backend.weight == 0) {
            let why = format!("rule {number} has no backend with a weight above 0: requests are answered with 500");
            self.limited.push(Problem::new("NoTraffic", why));
        }
        if let Some(timeouts) = &rule.timeouts {
            let [whole, one] = [&timeouts.request, &timeouts.backend_request].map(|d| d.as_deref().and_then(duration));
            plan.timeout = whole.filter(|limit| !limit.is_zero());
            // Who wants no limit for the whole wants none for its parts.
            plan.try_timeout = one.or(whole.filter(Duration::is_zero));
        }
        plan.retry = rule.retry.as_ref().map_or_else(Retry::default, |wanted| self.retry(number, wanted));
        let named = || cookie_name(self.owner, (number, 0));
        plan.sticky = rule.session_persistence.as_ref().map(|session| sticky(session, named, self.secret));
        plan
    }

    /// Tries that go on for ever take the place of other requests.
    fn retry(&mut self, number: usize, wanted: &RetrySpec) -> Retry {
        let attempts = wanted.attempts.and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
        let backoff = wanted.backoff.as_deref().and_then(duration).unwrap_or_default();
        if attempts > MOST_TRIES {
            let why = format!("rule {number}: retry.attempts {attempts} is more than {MOST_TRIES}, which are made");
            self.limited.push(Problem::new("Limited", why));
        }
        if backoff > LONGEST_BACKOFF {
            let why =
                format!("rule {number}: retry.backoff {backoff:?} is more than {LONGEST_BACKOFF:?}, which is kept");
            self.limited.push(Problem::new("Limited", why));
        }
        Retry {
            codes: wanted.codes.iter().filter_map(|code| u16::try_from(*code).ok()).collect(),
            attempts: attempts.min(MOST_TRIES),
            backoff: backoff.min(LONGEST_BACKOFF),
        }
    }

    fn filter(&mut self, filter: &HttpRouteFilter, plan: &mut Plan) {
        match filter.type_.as_str() {
            "RequestHeaderModifier" => plan.request_headers = edits(filter.request_header_modifier.as_ref()),
            "ResponseHeaderModifier" => plan.response_headers = edits(filter.response_header_modifier.as_ref()),
            "RequestMirror" => {
                if let Some(mirror) = &filter.request_mirror {
                    plan.mirrors.push(Mirror { backend: self.backend(&mirror.backend_ref), share: share(mirror) });
                }
            }
            "RequestRedirect" => {
                plan.redirect = filter.request_redirect.as_ref().map(|redirect| Redirect {
                    scheme: redirect.scheme.clone(),
                    host: redirect.hostname.clone(),
                    path: redirect.path.as_ref().and_then(new_path),
                    port: redirect.port.and_then(|port| u16::try_from(port).ok()),
                    status: redirect.status_code.and_then(|code| u16::try_from(code).ok()).unwrap_or(302),
                });
            }
            "URLRewrite" => {
                plan.rewrite = filter.url_rewrite.as_ref().map_or_else(Rewrite::default, |rewrite| Rewrite {
                    host: rewrite.hostname.clone(),
                    path: rewrite.path.as_ref().and_then(new_path),
                });
            }
            other => {
                let why = format!("filters of type {other} are not served here");
                self.unsupported.push(Problem::new("UnsupportedValue", why));
            }
        }
    }

    fn weighted(&mut self, reference: &BackendRef) -> Weighted {
        let mut only = Plan::default();
        for filter in &reference.filters {
            match filter.type_.as_str() {
                "RequestHeaderModifier" | "ResponseHeaderModifier" => self.filter(filter, &mut only),
                other => {
                    let why = format!("filters of type {other} are not served for a single backend");
                    self.unsupported.push(Problem::new("UnsupportedValue", why));
                }
            }
        }
        let weight = reference.weight.map_or(1, |weight| u32::try_from(weight).unwrap_or(0));
        let (request_headers, response_headers) = (only.request_headers, only.response_headers);
        Weighted { backend: self.backend(reference), weight, request_headers, response_headers }
    }

    fn backend(&mut self, reference: &BackendRef) -> Backend {
        let (group, kind) = (reference.group.as_deref().unwrap_or(""), reference.kind.as_deref().unwrap_or("Service"));
        let namespace = reference.namespace.as_deref().unwrap_or(self.namespace);
        let name = reference.name.as_str();
        let mut broken = |reason, why: String| {
            self.unresolved.push(Problem::new(reason, why.clone()));
            Backend::Broken { status: 500, why }
        };
        if (group, kind) != ("", "Service") {
            return broken("InvalidKind", format!("{kind} {namespace}/{name} is no Service"));
        }
        let from = (GATEWAY_GROUP, "HTTPRoute", self.namespace);
        if !self.backends.may_refer(from, namespace, ("", "Service"), name) {
            let why = format!("no ReferenceGrant in {namespace} lets HTTPRoutes of {} refer to {name}", self.namespace);
            return broken("RefNotPermitted", why);
        }
        let (backend, problem) = self.backends.service(namespace, name, PortName::Number(reference.port.unwrap_or(0)));
        let Some(problem) = problem else { return backend };
        // What the Gateway API wants for a reference that leads nowhere.
        let why = problem.message.clone();
        self.unresolved.push(problem);
        Backend::Broken { status: 500, why }
    }
}

fn edits(modifier: Option<&HeaderModifier>) -> HeaderEdits {
    let Some(modifier) = modifier else { return HeaderEdits::default() };
    let pairs = |list: &[crate::api::gateway::Header]| list.iter().map(|h| (h.name.clone(), h.value.clone())).collect();
    HeaderEdits { set: pairs(&modifier.set), add: pairs(&modifier.add), remove: modifier.remove.clone() }
}

fn new_path(path: &PathModifier) -> Option<NewPath> {
    match path.type_.as_str() {
        "ReplaceFullPath" => path.replace_full_path.clone().map(NewPath::Full),
        _ => path.replace_prefix_match.clone().map(NewPath::Prefix),
    }
}

/// Of how many requests copies are made.
fn share(mirror: &MirrorFilter) -> (u32, u32) {
    let number = |number: i32| u32::try_from(number).unwrap_or(0);
    let (some, all) = match (&mirror.fraction, mirror.percent) {
        (Some(fraction), _) => (number(fraction.numerator), fraction.denominator.map_or(100, number)),
        (None, percent) => (percent.map_or(100, number), 100),
    };
    (some.min(all), all)
}

fn sticky(session: &SessionPersistence, named: impl FnOnce() -> String, secret: &str) -> Sticky {
    let name = session.session_name.clone();
    if session.type_.as_deref() == Some("Header") {
        return Sticky::Header { name: name.unwrap_or_else(|| "x-session".to_owned()).to_ascii_lowercase() };
    }
    let permanent = session.cookie_config.as_ref().and_then(|c| c.lifetime_type.as_deref()) == Some("Permanent");
    let seconds = session.absolute_timeout.as_deref().and_then(duration).map(|d| d.as_secs()).filter(|_| permanent);
    Sticky::Cookie { name: name.unwrap_or_else(named), seconds, key: secret.to_owned() }
}

/// A duration as the Gateway API spells it: up to four numbers with a unit each, such as `1h30m` or `500ms`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut sum) = (text, Duration::ZERO);
    for _ in 0..4 {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits == 0 || digits > 5 {
            return None;
        }
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
        sum += match &rest[..unit] {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        rest = &rest[unit..];
        if rest.is_empty() {
            return Some(sum);
        }
    }
    None
}
