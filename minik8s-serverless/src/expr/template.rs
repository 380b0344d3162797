//! JSON in which texts of the form `${CEL}` stand for what the expression comes to; within a longer text, for its text.

use super::{Expr, ExprError};
use serde_json::{Map, Value};

/// A compiled template.
#[derive(Clone, Debug, PartialEq)]
pub enum Template {
    /// As it is.
    Plain(Value),
    /// The value of an expression.
    Value(Expr),
    /// Texts and the texts of expressions, in turn.
    Text(Vec<Piece>),
    /// A list with expressions in it.
    List(Vec<Template>),
    /// An object with expressions in it.
    Object(Vec<(String, Template)>),
}

/// Part of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// As it is.
    Plain(String),
    /// What the expression comes to.
    Expr(Expr),
}

impl Template {
    /// Compiles a template; errors name the place below `field`.
    ///
    /// # Errors
    /// The first place whose expression is none, with the text that stands there.
    pub fn compile(field: &str, value: &Value, variables: &[&str]) -> Result<Self, (String, String, ExprError)> {
        match value {
            Value::String(text) if text.contains("${") => {
                let pieces = pieces(text, variables).map_err(|e| (field.to_owned(), text.clone(), e))?;
                Ok(match pieces.as_slice() {
                    [Piece::Expr(expr)] => Self::Value(expr.clone()),
                    _ => Self::Text(pieces),
                })
            }
            Value::Array(items) => {
                let each = |(i, item)| Self::compile(&format!("{field}[{i}]"), item, variables);
                Ok(Self::simpler(Self::List(items.iter().enumerate().map(each).collect::<Result<_, _>>()?)))
            }
            Value::Object(fields) => {
                let each = |(name, item): (&String, &Value)| {
                    Ok((name.clone(), Self::compile(&format!("{field}.{name}"), item, variables)?))
                };
                Ok(Self::simpler(Self::Object(fields.iter().map(each).collect::<Result<_, _>>()?)))
            }
            plain => Ok(Self::Plain(plain.clone())),
        }
    }

    fn simpler(self) -> Self {
        let plain = |t: &Template| if let Self::Plain(v) = t { Some(v.clone()) } else { None };
        let value = match &self {
            Self::List(items) => items.iter().map(plain).collect::<Option<Vec<_>>>().map(Value::Array),
            Self::Object(fields) => {
                let fields: Option<Map<_, _>> = fields.iter().map(|(k, t)| Some((k.clone(), plain(t)?))).collect();
                fields.map(Value::Object)
            }
            _ => None,
        };
        value.map_or(self, Self::Plain)
    }

    /// The template with its expressions filled in.
    ///
    /// # Errors
    /// The expression that came to nothing, and why.
    pub fn fill(&self, variables: &[(&str, &Value)]) -> Result<Value, (String, ExprError)> {
        let evaluate = |expr: &Expr| expr.evaluate(variables).map_err(|e| (expr.source().to_owned(), e));
        Ok(match self {
            Self::Plain(value) => value.clone(),
            Self::Value(expr) => evaluate(expr)?,
            Self::Text(pieces) => {
                let mut text = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Plain(plain) => text.push_str(plain),
                        Piece::Expr(expr) => match evaluate(expr)? {
                            Value::String(inner) => text.push_str(&inner),
                            other => text.push_str(&other.to_string()),
                        },
                    }
                }
                Value::String(text)
            }
            Self::List(items) => items.iter().map(|t| t.fill(variables)).collect::<Result<_, _>>()?,
            Self::Object(fields) => {
                let each = |(name, t): &(String, Template)| Ok((name.clone(), t.fill(variables)?));
                Value::Object(fields.iter().map(each).collect::<Result<_, _>>()?)
            }
        })
    }
}

/// Cuts a text at its `${…}`, whose braces and quotes may nest.
fn pieces(text: &str, variables: &[&str]) -> Result<Vec<Piece>, ExprError> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(start) = rest.find("${") {
        if start > 0 {
            pieces.push(Piece::Plain(rest[..start].to_owned()));
        }
        let inside = &rest[start + 2..];
        let end = closing(inside).ok_or_else(|| ExprError::Syntax("a ${ is never closed".to_owned()))?;
        pieces.push(Piece::Expr(Expr::compile(inside[..end].trim(), variables)?));
        rest = &inside[end + 1..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Plain(rest.to_owned()));
    }
    Ok(pieces)
}

fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote, mut escaped) = (0_u32, None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '{') => depth += 1,
            (None, '}') if depth == 0 => return Some(at),
            (None, '}') => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expressions_are_filled_in_wherever_they_stand() {
        let input = json!({"x": 2, "who": "me"});
        let table = [
            (json!({"a": 1}), json!({"a": 1})),
            (json!("${input.x + 1}"), json!(3)),
            (json!({"a": ["${input.who}", "hi ${input.who}, ${input.x}!"]}), json!({"a": ["me", "hi me, 2!"]})),
            (json!("${ {'k': '}'} }"), json!({"k": "}"})),
            (json!("$x {} $ {"), json!("$x {} $ {")),
        ];
        for (template, want) in table {
            let compiled = Template::compile("f", &template, &["input"]).unwrap();
            assert_eq!(compiled.fill(&[("input", &input)]), Ok(want), "{template}");
        }
    }

    #[test]
    fn errors_name_the_place() {
        let fails = |value: Value| Template::compile("spec.p", &value, &["input"]).unwrap_err().0;
        assert_eq!(fails(json!({"a": [1, "${input.}"]})), "spec.p.a[1]");
        assert_eq!(fails(json!("${input.x")), "spec.p");
        assert_eq!(fails(json!({"a": "${nobody}"})), "spec.p.a");
    }
}
