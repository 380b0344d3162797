//! What fields of both kinds may hold. Everything that reaches a command line or a file elsewhere is checked here by name,
//! and quoted there nevertheless.

use minik8s_core::server::FieldErrors;
use serde_json::Value;

/// Letters, digits and a few signs, none of them a dash in front: words of a batch system.
pub(super) fn word(field: &str, value: &str, also: &str, errors: &mut FieldErrors) {
    let known = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c) || also.contains(c);
    if value.is_empty() || value.len() > 128 || value.starts_with('-') || !value.chars().all(known) {
        let why = format!("must be 1 to 128 letters, digits or any of _.-{also}, and not begin with a dash");
        errors.invalid(field, &Value::from(value), &why);
    }
}

/// A name or an address of a host.
fn is_address(host: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
    !host.is_empty() && host.len() <= 253 && !host.starts_with('-') && host.chars().all(known)
}

pub(super) fn host(field: &str, value: &str, errors: &mut FieldErrors) {
    if !is_address(value) {
        errors.invalid(field, &Value::from(value), "must be the name or the address of a host");
    }
}

pub(super) fn between(field: &str, value: Option<i64>, least: i64, most: i64, errors: &mut FieldErrors) {
    if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
        errors.invalid(field, &Value::from(value), &format!("must be between {least} and {most}, inclusive"));
    }
}

/// A text that goes into a script: whatever it says, without zero bytes.
pub(super) fn script(field: &str, value: &str, errors: &mut FieldErrors) {
    const MOST: usize = 256 * 1024;
    if value.contains('\0') {
        errors.invalid_shown(field, "a text with a zero byte", "must not contain any");
    }
    if value.len() > MOST {
        errors.too_long(field, MOST);
    }
}

/// The name of an image: what registries and nodes make of it is theirs to say, but it is one word.
pub(super) fn image(field: &str, value: &str, errors: &mut FieldErrors) {
    let odd = |c: char| c.is_whitespace() || c.is_control();
    if value.is_empty() || value.len() > 1024 || value.starts_with('-') || value.chars().any(odd) {
        errors.invalid(field, &Value::from(value), "must be the name of an image");
    }
}
