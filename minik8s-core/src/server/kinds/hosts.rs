//! What kinds that are about hosts and paths check alike.

use super::util::text;
use crate::api::FieldErrors;
use crate::api::names::dns_subdomain;
use crate::routing::regex_complaint;
use serde_json::Value;

/// A host, or `*.` and one.
pub(super) fn check_host(field: &str, host: &str, errors: &mut FieldErrors) {
    if host.parse::<std::net::IpAddr>().is_ok() {
        errors.invalid(field, &host.into(), "must be a DNS name, not an IP address");
    } else if let Some(rest) = host.strip_prefix("*.") {
        errors.complaints(field, host, dns_subdomain(rest));
    } else {
        errors.complaints(field, host, dns_subdomain(host));
    }
}

/// An absolute path without what no path has.
pub(super) fn check_path(field: &str, path: &str, errors: &mut FieldErrors) {
    if path.len() > crate::routing::LONGEST_PATH {
        errors.too_long(field, crate::routing::LONGEST_PATH);
    }
    if !path.starts_with('/') {
        errors.invalid(field, &path.into(), "must be an absolute path");
    }
    for bad in ["//", "/./", "/../", "%2f", "%2F", "#"] {
        if path.contains(bad) {
            errors.invalid(field, &path.into(), &format!("must not contain '{bad}'"));
        }
    }
    for bad in ["/..", "/."] {
        if path.ends_with(bad) {
            errors.invalid(field, &path.into(), &format!("cannot end with '{bad}'"));
        }
    }
}

/// An expression that compiles, within bounds.
pub(super) fn check_regex(field: &str, pattern: &str, errors: &mut FieldErrors) {
    if let Some(why) = regex_complaint(pattern) {
        errors.invalid(field, &pattern.into(), &why);
    }
}

/// A port at which something listens.
pub(super) fn check_port(field: &str, port: Option<i64>, errors: &mut FieldErrors) {
    match port {
        None => errors.required(field, ""),
        Some(1..=65535) => {}
        Some(port) => errors.invalid(field, &port.into(), "must be between 1 and 65535, inclusive"),
    }
}

/// One of a few words, where anything is said.
pub(super) fn check_word(field: &str, value: &Value, pointer: &str, words: &[&str], errors: &mut FieldErrors) {
    let word = text(value, pointer);
    if !word.is_empty() && !words.contains(&word) {
        errors.unsupported(field, word, words);
    }
}
