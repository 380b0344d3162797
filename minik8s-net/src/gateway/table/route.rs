//! One compiled rule, and which of two comes first.

use super::Plan;
use crate::gateway::spelling::normal_rule;
use http::{HeaderMap, HeaderName, Method};
use minik8s_core::routing::{LONGEST_PATH, PathRule, Rule, Wanted, whole_regex};
use regex::Regex;
use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

/// What is looked at in a request.
pub(in crate::gateway) struct Asked<'a> {
    /// In lower case, without a port.
    pub(in crate::gateway) host: &'a str,
    pub(in crate::gateway) path: &'a str,
    pub(in crate::gateway) query: Option<&'a str>,
    pub(in crate::gateway) method: &'a Method,
    pub(in crate::gateway) headers: &'a HeaderMap,
}

/// A rule, ready to be compared with requests.
pub(in crate::gateway) struct Route {
    pub(in crate::gateway) path: PathRule,
    method: Option<Method>,
    headers: Vec<(HeaderName, Value)>,
    query: Vec<(String, Value)>,
    pub(in crate::gateway) plan: Arc<Plan>,
}

enum Value {
    Exact(String),
    Regex(Regex),
}

impl Value {
    fn new(wanted: &Wanted) -> Result<Self, String> {
        Ok(match wanted {
            Wanted::Exact(value) => Value::Exact(value.clone()),
            Wanted::Regex(pattern) => Value::Regex(compile(pattern)?),
        })
    }

    fn fits(&self, text: &str) -> bool {
        match self {
            Value::Exact(value) => value == text,
            Value::Regex(regex) => regex.is_match(text),
        }
    }
}

fn compile(pattern: &str) -> Result<Regex, String> {
    whole_regex(pattern).map_err(|error| format!("the expression {pattern:?} is no good: {error}"))
}

impl Route {
    pub(super) fn new(rule: &Rule, plan: Arc<Plan>) -> Result<Self, String> {
        match &rule.path {
            PathRule::Regex(pattern) => drop(compile(pattern)?),
            // A tree over the elements is as deep as the path is long.
            PathRule::Exact(path) | PathRule::Prefix(path) if path.len() > LONGEST_PATH => {
                return Err(format!("a path of {} bytes is longer than {LONGEST_PATH}", path.len()));
            }
            _ => {}
        }
        let bad = |what: &str, text: &str| format!("{text:?} is no {what}");
        let method = rule.method.as_ref().map(|m| Method::from_bytes(m.as_bytes()).map_err(|_| bad("method", m)));
        let headers = rule.headers.iter().map(|(name, wanted)| {
            let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("name of a header", name))?;
            Ok::<_, String>((parsed, Value::new(wanted)?))
        });
        let query = rule.query.iter().map(|(name, wanted)| Ok::<_, String>((name.clone(), Value::new(wanted)?)));
        Ok(Self {
            path: normal_rule(&rule.path),
            method: method.transpose()?,
            headers: headers.collect::<Result<_, _>>()?,
            query: query.collect::<Result<_, _>>()?,
            plan,
        })
    }

    /// True where everything but host and path fits, which were looked at before.
    pub(super) fn fits(&self, asked: &Asked<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method == asked.method)
            && self.headers.iter().all(|(name, value)| {
                asked.headers.get_all(name).iter().any(|found| found.to_str().is_ok_and(|found| value.fits(found)))
            })
            && self.query.iter().all(|(name, value)| {
                parameter(asked.query.unwrap_or_default(), name).is_some_and(|found| value.fits(&found))
            })
    }
}

/// The first value of a parameter.
fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| decoded(key) == name).map(|(_, value)| decoded(value))
}

/// Without the percent signs and pluses of a form.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return text.into();
    }
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[at], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned().into()
}

/// Which of two rules comes first where both match, after the Gateway API: exact paths, then expressions, then the
/// longest prefix; a method; more headers; more parameters; the older; by name; by place.
pub(super) fn precedence(a: &Rule, b: &Rule) -> Ordering {
    let key = |rule: &Rule| {
        let (class, length) = match &rule.path {
            PathRule::Exact(_) => (0, 0),
            PathRule::Regex(pattern) => (1, pattern.len()),
            PathRule::Prefix(prefix) => (2, prefix.len()),
        };
        let matches = (rule.method.is_none(), Reverse(rule.headers.len()), Reverse(rule.query.len()));
        (class, Reverse(length), matches)
    };
    key(a).cmp(&key(b)).then_with(|| a.owner.cmp(&b.owner)).then_with(|| a.place.cmp(&b.place))
}
