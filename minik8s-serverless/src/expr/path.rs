//! JSONPath for reading, and the plain part of it (`$.a.b[0]`) for saying where a value goes.

use jsonpath_rust::parser::model::JpQuery;
use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::js_path_process;
use serde_json::{Map, Value};
use std::sync::Arc;

const MAX_LENGTH: usize = 1024;

/// Why a path cannot be used, or leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is no JSONPath.
    #[error("is not a JSONPath: {0}")]
    Syntax(String),
    /// It could be several places, or is none.
    #[error("must name one place, such as $.a.b")]
    NotAPlace,
    /// There is nothing there.
    #[error("{0} leads to nothing in the input")]
    Nothing(String),
    /// There is something in the way.
    #[error("{path}: {what} has no fields")]
    InTheWay {
        /// The path.
        path: String,
        /// What is there.
        what: String,
    },
}

/// A compiled JSONPath. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Path {
    source: Arc<str>,
    query: Arc<JpQuery>,
    /// Leads to one value at most; others come to a list.
    single: bool,
}

impl PartialEq for Path {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Path {
    /// Compiles a path.
    ///
    /// # Errors
    /// Where it is none.
    pub fn compile(source: &str) -> Result<Self, PathError> {
        let short = |text: String| text.lines().next().unwrap_or_default().chars().take(200).collect();
        // The library's parser recurses.
        let nesting = source.chars().filter(|c| matches!(c, '(' | '[' | '!')).count();
        if source.len() > MAX_LENGTH || nesting > 64 {
            return Err(PathError::Syntax("it is too long".to_owned()));
        }
        let query = parse_json_path(source).map_err(|e| PathError::Syntax(short(e.to_string())))?;
        let single = !["..", "*", "?", ",", ":"].iter().any(|several| source.contains(several));
        Ok(Self { source: source.into(), query: Arc::new(query), single })
    }

    /// What was compiled.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The value it leads to; a list, for paths that may lead to several.
    ///
    /// # Errors
    /// Where a path to one value leads to nothing.
    pub fn find(&self, value: &Value) -> Result<Value, PathError> {
        if &*self.source == "$" {
            return Ok(value.clone());
        }
        let found = js_path_process(&self.query, value).map_err(|e| PathError::Syntax(e.to_string()))?;
        let mut found = found.into_iter().map(|found| found.val().clone());
        if !self.single {
            return Ok(Value::Array(found.collect()));
        }
        found.next().ok_or_else(|| PathError::Nothing(self.source.to_string()))
    }
}

/// Where a value goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is dropped.
    Nowhere,
    /// Under these fields; under none, it replaces everything.
    At(Vec<String>),
}

impl Place {
    /// `$`, `$.a.b`, `$['a b']`, or `none`.
    ///
    /// # Errors
    /// For anything else.
    pub fn parse(source: &str) -> Result<Self, PathError> {
        if source == "none" {
            return Ok(Self::Nowhere);
        }
        let mut rest = source.strip_prefix('$').filter(|_| source.len() <= MAX_LENGTH).ok_or(PathError::NotAPlace)?;
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let (field, left) = if let Some(after) = rest.strip_prefix('.') {
                after.split_at(after.find(['.', '[']).unwrap_or(after.len()))
            } else {
                let after = rest.strip_prefix("['").ok_or(PathError::NotAPlace)?;
                after.split_once("']").ok_or(PathError::NotAPlace)?
            };
            let plain = !field.is_empty() && field.chars().all(|c| c.is_alphanumeric() || "_- /".contains(c));
            if !plain || fields.len() >= 16 {
                return Err(PathError::NotAPlace);
            }
            fields.push(field.to_owned());
            rest = left;
        }
        Ok(Self::At(fields))
    }

    /// `into` with `value` at this place.
    ///
    /// # Errors
    /// Where something stands in the way that has no fields.
    pub fn put(&self, mut into: Value, value: Value) -> Result<Value, PathError> {
        let Self::At(fields) = self else { return Ok(into) };
        let mut at = &mut into;
        for (index, field) in fields.iter().enumerate() {
            if at.is_null() {
                *at = Value::Object(Map::new());
            }
            if !at.is_object() {
                let path = format!("$.{}", fields[..=index].join("."));
                return Err(PathError::InTheWay { path, what: crate::workflow::described(at) });
            }
            at = &mut at[field.as_str()];
        }
        *at = value;
        Ok(into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_to_one_value_or_to_a_list() {
        let value = json!({"a": {"b": [1, 2, {"c": 3}]}, "l": [{"n": 1}, {"n": 5}]});
        let table = [
            ("$", value.clone()),
            ("$.a.b[0]", json!(1)),
            ("$.a.b[-1].c", json!(3)),
            ("$['a']", value["a"].clone()),
            ("$.l[*].n", json!([1, 5])),
            ("$.l[?(@.n > 2)].n", json!([5])),
            ("$..c", json!([3])),
            ("$.none[*]", json!([])),
        ];
        for (path, want) in table {
            assert_eq!(Path::compile(path).unwrap().find(&value), Ok(want), "{path}");
        }
        assert_eq!(Path::compile("$.x").unwrap().find(&value), Err(PathError::Nothing("$.x".into())));
        for bad in ["", "a.b", "$.", "$[", "$.a[?(]", &format!("${}", "[0]".repeat(200))] {
            assert!(Path::compile(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_go_where_a_place_says() {
        let put = |place: &str, into: Value| Place::parse(place).unwrap().put(into, json!(7));
        assert_eq!(put("$", json!({"a": 1})), Ok(json!(7)));
        assert_eq!(put("none", json!({"a": 1})), Ok(json!({"a": 1})));
        assert_eq!(put("$.b", json!({"a": 1})), Ok(json!({"a": 1, "b": 7})));
        assert_eq!(put("$.a.b", json!({})), Ok(json!({"a": {"b": 7}})));
        assert_eq!(put("$['a b'].c", json!(null)), Ok(json!({"a b": {"c": 7}})));
        assert!(matches!(put("$.a.b", json!({"a": 1})), Err(PathError::InTheWay { .. })));
        assert!(matches!(put("$.a", json!([1])), Err(PathError::InTheWay { .. })));
        for bad in ["", "a", "$.", "$..a", "$.a[0]", "$.*", "$.a[?(@.x)]", "$['a", &format!("${}", ".a".repeat(40))] {
            assert_eq!(Place::parse(bad), Err(PathError::NotAPlace), "{bad}");
        }
    }
}
