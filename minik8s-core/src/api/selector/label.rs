//! Label selectors: requirements on the labels of an object, all of which must hold.

use super::parse;
use crate::api::{ApiError, ApiResult, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What a requirement asks of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelOp {
    /// `key=value`; also written `==`.
    Equals,
    /// `key!=value`: another value, or no such label.
    NotEquals,
    /// `key in (a,b)`
    In,
    /// `key notin (a,b)`: another value, or no such label.
    NotIn,
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key>1`: an integer above.
    GreaterThan,
    /// `key<1`: an integer below.
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    op: LabelOp,
    values: BTreeSet<String>,
}

impl Requirement {
    /// Checks key, operator and values against each other.
    ///
    /// # Errors
    /// `BadRequest` with the sentence the real server answers.
    pub fn new(key: &str, op: LabelOp, values: impl IntoIterator<Item = String>) -> ApiResult<Self> {
        let values: BTreeSet<String> = values.into_iter().collect();
        if let Some(why) = names::qualified_name(key).first() {
            return Err(ApiError::bad_request(format!("key: Invalid value: {key:?}: {why}")));
        }
        check_count(op, &values)?;
        for (index, value) in values.iter().enumerate() {
            if let Some(why) = names::label_value(value).first() {
                return Err(ApiError::bad_request(format!("values[{index}][{key}]: Invalid value: {value:?}: {why}")));
            }
        }
        Ok(Self { key: key.to_owned(), op, values })
    }

    /// The label it looks at.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What it asks.
    pub fn op(&self) -> LabelOp {
        self.op
    }

    /// The values it compares with, in order.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(String::as_str)
    }

    /// True where the labels fulfil it.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|v| self.values.contains(v));
        match self.op {
            LabelOp::Equals | LabelOp::In => listed,
            LabelOp::NotEquals | LabelOp::NotIn => !listed,
            LabelOp::Exists => value.is_some(),
            LabelOp::DoesNotExist => value.is_none(),
            LabelOp::GreaterThan => self.compare(value).is_some_and(|(has, bound)| has > bound),
            LabelOp::LessThan => self.compare(value).is_some_and(|(has, bound)| has < bound),
        }
    }

    fn compare(&self, value: Option<&String>) -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

fn check_count(op: LabelOp, values: &BTreeSet<String>) -> ApiResult<()> {
    let why = match op {
        LabelOp::In | LabelOp::NotIn if values.is_empty() => "for 'in', 'notin' operators, values set can't be empty",
        LabelOp::Equals | LabelOp::NotEquals if values.len() != 1 => {
            "exact-match compatibility requires one single value"
        }
        LabelOp::Exists | LabelOp::DoesNotExist if !values.is_empty() => {
            "values set must be empty for exists and does not exist"
        }
        LabelOp::GreaterThan | LabelOp::LessThan if values.len() != 1 => {
            "for 'Gt', 'Lt' operators, exactly one value is required"
        }
        LabelOp::GreaterThan | LabelOp::LessThan if values.iter().any(|v| v.parse::<i64>().is_err()) => {
            "for 'Gt', 'Lt' operators, the value must be an integer"
        }
        _ => return Ok(()),
    };
    let values = serde_json::json!(values);
    Err(ApiError::bad_request(format!("values: Invalid value: {values}: {why}")))
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let list = || self.values().collect::<Vec<_>>().join(",");
        match self.op {
            LabelOp::Equals => write!(f, "{key}={}", list()),
            LabelOp::NotEquals => write!(f, "{key}!={}", list()),
            LabelOp::In => write!(f, "{key} in ({})", list()),
            LabelOp::NotIn => write!(f, "{key} notin ({})", list()),
            LabelOp::Exists => write!(f, "{key}"),
            LabelOp::DoesNotExist => write!(f, "!{key}"),
            LabelOp::GreaterThan => write!(f, "{key}>{}", list()),
            LabelOp::LessThan => write!(f, "{key}<{}", list()),
        }
    }
}

/// Requirements of which all must hold; the default one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    /// Selects every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects no object: what a missing selector object means.
    pub fn nothing() -> Self {
        Self { nothing: true, ..Self::default() }
    }

    /// All of these requirements, in the order of their keys.
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Reads `app=web,tier in (a,b),!old`; the empty text selects everything.
    ///
    /// # Errors
    /// `BadRequest` that says what was found and what was expected.
    pub fn parse(text: &str) -> ApiResult<Self> {
        parse::requirements(text).map(Self::new)
    }

    /// Each label of a plain map must be there with this very value (`Service.spec.selector`). The empty map selects
    /// everything; a Service without selector is the caller's affair.
    ///
    /// # Errors
    /// `BadRequest` for keys and values that no label can have.
    pub fn from_map<'a>(map: impl IntoIterator<Item = (&'a String, &'a String)>) -> ApiResult<Self> {
        let one = |(key, value): (&String, &String)| Requirement::new(key, LabelOp::Equals, [value.clone()]);
        map.into_iter().map(one).collect::<ApiResult<_>>().map(Self::new)
    }

    /// A `LabelSelector`. `None` selects nothing, an empty one everything.
    ///
    /// # Errors
    /// `BadRequest` for an unknown operator, a missing value, or what no label can have.
    pub fn from_typed(selector: Option<&LabelSelector>) -> ApiResult<Self> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut out = Self::from_map(selector.match_labels.iter().flatten())?.requirements;
        for expression in selector.match_expressions.iter().flatten() {
            let op = expression_op(&expression.operator)?;
            out.push(Requirement::new(&expression.key, op, expression.values.clone().unwrap_or_default())?);
        }
        Ok(Self::new(out))
    }

    /// A selector as it stands in an object's JSON: a `LabelSelector` (`matchLabels`, `matchExpressions`) or a plain
    /// map of labels. `null` selects nothing.
    ///
    /// # Errors
    /// `BadRequest` where it is neither.
    pub fn from_value(value: &Value) -> ApiResult<Self> {
        let not_a_selector = |e: serde_json::Error| ApiError::bad_request(format!("not a label selector: {e}"));
        let Some(map) = value.as_object() else {
            return if value.is_null() {
                Ok(Self::nothing())
            } else {
                Err(ApiError::bad_request("not a label selector"))
            };
        };
        if map.keys().all(|key| key == "matchLabels" || key == "matchExpressions") {
            let typed: LabelSelector = serde_json::from_value(value.clone()).map_err(not_a_selector)?;
            return Self::from_typed(Some(&typed));
        }
        let plain: BTreeMap<String, String> = serde_json::from_value(value.clone()).map_err(not_a_selector)?;
        Self::from_map(&plain)
    }

    /// True where it selects every object, so that nothing needs to be matched.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// True where it can select no object.
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// True where the labels fulfil all requirements.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// The requirements, in the order of their keys.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

/// The operator of a `matchExpressions` entry.
fn expression_op(text: &str) -> ApiResult<LabelOp> {
    match text {
        "In" => Ok(LabelOp::In),
        "NotIn" => Ok(LabelOp::NotIn),
        "Exists" => Ok(LabelOp::Exists),
        "DoesNotExist" => Ok(LabelOp::DoesNotExist),
        _ => Err(ApiError::bad_request(format!("{text:?} is not a valid label selector operator"))),
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split(',').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn operators_match_as_documented() {
        let cases = [
            ("app=web", "app=web", true),
            ("app=web", "app=web2", false),
            ("app==web", "app=web", true),
            ("app!=web", "", true),
            ("app!=web", "app=web", false),
            ("app in (a, b)", "app=b", true),
            ("app in (a,b)", "", false),
            ("app notin (a,b)", "", true),
            ("app notin (a,b)", "app=a", false),
            ("app", "app=", true),
            ("app", "", false),
            ("!app", "", true),
            ("! app", "app=x", false),
            ("a=1,b=2", "a=1,b=2,c=3", true),
            ("a=1,b=2", "a=1", false),
            ("n>3", "n=4", true),
            ("n>3", "n=3", false),
            ("n<3", "n=x", false),
            ("a=", "a=", true),
            ("in in (in)", "in=in", true),
            ("a in (,x)", "a=", true),
            ("", "", true),
            ("  ", "a=b", true),
        ];
        for (selector, has, expected) in cases {
            let parsed = Selector::parse(selector).unwrap();
            assert_eq!(parsed.matches(&labels(has)), expected, "{selector} on {has}");
        }
    }

    #[test]
    fn selector_objects_and_maps() {
        let both = json!({"matchLabels": {"b": "1"}, "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "DoesNotExist"}]});
        let selector = Selector::from_value(&both).unwrap();
        assert_eq!(selector.to_string(), "a in (x,y),b=1,!c");
        assert!(selector.matches(&labels("a=x,b=1")));
        assert_eq!(Selector::from_value(&json!({"app": "g"})).unwrap().to_string(), "app=g");
        assert!(Selector::from_value(&json!({})).unwrap().is_everything());
        assert!(!Selector::from_value(&Value::Null).unwrap().matches(&labels("")));
        let odd = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
        assert_eq!(Selector::from_value(&odd).unwrap_err().message, "\"Near\" is not a valid label selector operator");
        assert!(Selector::from_value(&json!("x")).is_err());
        assert!(Selector::from_value(&json!({"matchExpressions": [{"key": "a", "operator": "In"}]})).is_err());
    }

    proptest::proptest! {
        #[test]
        fn text_form_reads_back(text in "[a-z!=<>(), ]{0,24}") {
            if let Ok(selector) = Selector::parse(&text) {
                proptest::prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
            }
        }
    }
}
