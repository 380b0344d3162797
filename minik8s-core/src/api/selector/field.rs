//! Field selectors: `a=b,c!=d` over the few fields a kind offers.

use crate::api::{ApiError, ApiResult};
use std::fmt;

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldOp {
    /// `=` or `==`
    Equals,
    /// `!=`
    NotEquals,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// Path of the field, such as `spec.nodeName`.
    pub path: String,
    /// Comparison.
    pub op: FieldOp,
    /// The value as text.
    pub value: String,
}

/// Comparisons of which all must hold; the default one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Reads `a=b,c!=d`. In values, `,`, `=` and `\` are written with a `\` before them.
    ///
    /// # Errors
    /// `BadRequest` that shows the part which is not understood.
    pub fn parse(text: &str) -> ApiResult<Self> {
        let parts = split_terms(text).into_iter().filter(|part| !part.is_empty());
        let terms = parts.map(|part| parse_term(text, part)).collect::<ApiResult<_>>()?;
        Ok(Self { terms })
    }

    /// The comparisons.
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// True where it selects every object.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value this field must have, where the selector names one.
    pub fn exact(&self, path: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.op == FieldOp::Equals && t.path == path).map(|t| t.value.as_str())
    }

    /// Refuses fields the kind does not offer.
    ///
    /// # Errors
    /// `BadRequest`: `field label not supported: <path>`.
    pub fn check(&self, offered: impl Fn(&str) -> bool) -> ApiResult<()> {
        match self.terms.iter().find(|term| !offered(&term.path)) {
            Some(term) => Err(ApiError::bad_request(format!("field label not supported: {}", term.path))),
            None => Ok(()),
        }
    }

    /// True where all comparisons hold; `value` gives a field's text, `None` (absent) counts as empty.
    pub fn matches<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|term| {
            let equal = value(&term.path).unwrap_or_default() == term.value;
            equal == (term.op == FieldOp::Equals)
        })
    }
}

/// Splits at commas without a backslash before them.
fn split_terms(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                out.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

fn parse_term(whole: &str, part: &str) -> ApiResult<FieldTerm> {
    let at = part.find(['=', '!']);
    let split = at.and_then(|at| {
        let (path, rest) = part.split_at(at);
        let ops = [("!=", FieldOp::NotEquals), ("==", FieldOp::Equals), ("=", FieldOp::Equals)];
        ops.into_iter().find_map(|(text, op)| Some((path, op, rest.strip_prefix(text)?)))
    });
    let Some((path, op, value)) = split else {
        return Err(ApiError::bad_request(format!("invalid selector: '{whole}'; can't understand '{part}'")));
    };
    Ok(FieldTerm { path: path.to_owned(), op, value: unescape(value)? })
}

fn unescape(text: &str) -> ApiResult<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    let rest = other.map(String::from).unwrap_or_default();
                    return Err(ApiError::bad_request(format!(
                        "invalid field selector: invalid escape sequence: \\{rest}"
                    )));
                }
            },
            ',' | '=' => {
                return Err(ApiError::bad_request(format!(
                    "invalid field selector: unescaped character in value: {c}"
                )));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let op = if term.op == FieldOp::Equals { "=" } else { "!=" };
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{op}{value}", term.path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_operators_and_escapes() {
        let selector = FieldSelector::parse(r"spec.nodeName=n1,status.phase!=Failed,a==x\,y\=z\\,").unwrap();
        let terms: Vec<_> = selector.terms().iter().map(|t| (t.path.as_str(), t.op, t.value.as_str())).collect();
        assert_eq!(
            terms,
            [
                ("spec.nodeName", FieldOp::Equals, "n1"),
                ("status.phase", FieldOp::NotEquals, "Failed"),
                ("a", FieldOp::Equals, r"x,y=z\")
            ]
        );
        assert_eq!(selector.exact("spec.nodeName"), Some("n1"));
        assert_eq!(selector.exact("status.phase"), None);
        assert_eq!(FieldSelector::parse(&selector.to_string()).unwrap(), selector);
        assert!(FieldSelector::parse("").unwrap().is_everything());
    }

    #[test]
    fn matching_counts_absent_as_empty() {
        let selector = FieldSelector::parse("spec.nodeName=,status.phase!=Failed").unwrap();
        assert!(selector.matches(|_| None));
        assert!(selector.matches(|path| (path == "status.phase").then_some("Running")));
        assert!(!selector.matches(|path| (path == "status.phase").then_some("Failed")));
        assert!(!selector.matches(|path| (path == "spec.nodeName").then_some("n1")));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("a", "invalid selector: 'a'; can't understand 'a'"),
            ("a=b,c!d", "invalid selector: 'a=b,c!d'; can't understand 'c!d'"),
            (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
            ("a=b=c", "invalid field selector: unescaped character in value: ="),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap_err().message, message);
        }
        let selector = FieldSelector::parse("spec.foo=bar").unwrap();
        assert_eq!(selector.check(|_| false).unwrap_err().message, "field label not supported: spec.foo");
    }
}
