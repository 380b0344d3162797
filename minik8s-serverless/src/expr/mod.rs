//! Expressions over JSON: CEL with a limit on what it may cost, templates with CEL in them, and JSONPath. Workflows and
//! triggers share them. Pure.

mod cost;
mod path;
mod template;

pub use path::{Path, PathError, Place};
pub use template::Template;

use cel::{Context, Program};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// The longest expression.
const MAX_LENGTH: usize = 4096;
/// What one evaluation may cost, about a node looked at each.
const MAX_COST: f64 = 200_000.0;

/// How deep an expression may nest: evaluating recurses.
const MAX_DEPTH: usize = 64;
/// The library's parser recurses with many large frames.
const PARSER_STACK: usize = 64 << 20;

/// Why an expression cannot be used, or did not come to a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExprError {
    /// It is too long.
    #[error("is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// It nests too deeply.
    #[error("nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// It is not CEL.
    #[error("is not an expression: {0}")]
    Syntax(String),
    /// It uses a name that nobody gives a value.
    #[error("uses {name}, which is not known here: there are {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// It could take too long.
    #[error("could cost {cost} of at most {MAX_COST} steps on this input")]
    TooCostly {
        /// About how much.
        cost: u64,
    },
    /// It came to no value.
    #[error("{0}")]
    Failed(String),
    /// It came to a value of the wrong type.
    #[error("comes to {0}, not to true or false")]
    NotBoolean(String),
}

/// A compiled expression. Cheap to clone.
#[derive(Clone)]
pub struct Expr {
    source: Arc<str>,
    program: Arc<Program>,
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl std::fmt::Debug for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expr({:?})", self.source)
    }
}

impl Expr {
    /// Compiles CEL that may use these variables.
    ///
    /// # Errors
    /// Where it is no CEL, is too long, or uses other names.
    pub fn compile(source: &str, variables: &[&str]) -> Result<Self, ExprError> {
        if source.len() > MAX_LENGTH {
            return Err(ExprError::TooLong);
        }
        let program = parse(source)?;
        if let Some(name) = cost::unknown_name(program.expression(), variables) {
            let known = variables.join(", ");
            return Err(ExprError::Unknown { name, known });
        }
        Ok(Self { source: source.into(), program: Arc::new(program) })
    }

    /// What was compiled.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What it comes to.
    ///
    /// # Errors
    /// Where it could cost too much, or comes to nothing.
    pub fn evaluate(&self, variables: &[(&str, &Value)]) -> Result<Value, ExprError> {
        let cost = cost::estimate(self.program.expression(), variables);
        if cost > MAX_COST {
            return Err(ExprError::TooCostly { cost: cost.min(1e18) as u64 });
        }
        let mut context = Context::default();
        for (name, value) in variables {
            context.add_variable_from_value(*name, to_cel(value));
        }
        let value = self.program.execute(&context).map_err(|e| ExprError::Failed(first_line(&e.to_string())))?;
        value.json().map_err(|e| ExprError::Failed(first_line(&e.to_string())))
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate), and where it comes to anything but true or false.
    pub fn holds(&self, variables: &[(&str, &Value)]) -> Result<bool, ExprError> {
        match self.evaluate(variables)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(ExprError::NotBoolean(crate::workflow::described(&other))),
        }
    }
}

/// Whole numbers are `int`, as literals are: the library would make `uint` of positive ones, which do not add up with them.
fn to_cel(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(truth) => cel::Value::Bool(*truth),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => cel::Value::Int(whole),
            (None, Some(whole)) => cel::Value::UInt(whole),
            (None, None) => cel::Value::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => cel::Value::String(Arc::new(text.clone())),
        Value::Array(items) => cel::Value::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Object(fields) => {
            let fields: HashMap<String, cel::Value> = fields.iter().map(|(k, v)| (k.clone(), to_cel(v))).collect();
            fields.into()
        }
    }
}

/// Parses on a thread with a stack of its own: what others write must not end the process.
fn parse(source: &str) -> Result<Program, ExprError> {
    let brackets = source.chars().scan(0_usize, |depth, c| {
        match c {
            '(' | '[' | '{' => *depth += 1,
            ')' | ']' | '}' => *depth = depth.saturating_sub(1),
            _ => {}
        }
        Some(*depth)
    });
    if brackets.max().unwrap_or_default() > MAX_DEPTH {
        return Err(ExprError::TooDeep);
    }
    let work = || {
        let program = Program::compile(source).map_err(|e| ExprError::Syntax(first_line(&e.to_string())))?;
        if cost::is_deeper(program.expression(), MAX_DEPTH) { Err(ExprError::TooDeep) } else { Ok(program) }
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(PARSER_STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|e| ExprError::Failed(format!("cannot be parsed now: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(ExprError::Syntax("the parser gave up on it".to_owned())))
    })
}

/// Messages of the library may carry a picture of the source, or a whole value.
fn first_line(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let mut short: String = line.chars().take(300).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn eval(source: &str, input: &Value) -> Result<Value, ExprError> {
        Expr::compile(source, &["input", "run"])?.evaluate(&[("input", input), ("run", &json!({"name": "r"}))])
    }

    #[test]
    fn json_comes_in_and_goes_out() {
        let input =
            json!({"y": 3, "s": "abc", "l": [1, 2, 3], "f": 1.5, "none": null, "big": 9_007_199_254_740_993_i64});
        let table = [
            ("input.y > 0", json!(true)),
            ("input.y == 3", json!(true)),
            ("input.f * 2.0", json!(3.0)),
            ("input.y + 1", json!(4)),
            ("input.big", json!(9_007_199_254_740_993_i64)),
            ("input.l.map(x, x * 2)", json!([2, 4, 6])),
            ("input.l.all(x, x > 0) && input.s.startsWith('a')", json!(true)),
            ("{'a': input.l[0], 'n': input.none}", json!({"a": 1, "n": null})),
            ("has(input.nothing)", json!(false)),
            ("run.name + '!'", json!("r!")),
            ("input.s.matches('^a.c$')", json!(true)),
        ];
        for (source, want) in table {
            assert_eq!(eval(source, &input), Ok(want), "{source}");
        }
    }

    #[test]
    fn what_cannot_work_is_told_before_it_runs() {
        assert!(matches!(Expr::compile("input.y >", &["input"]), Err(ExprError::Syntax(_))));
        assert!(matches!(Expr::compile("", &["input"]), Err(ExprError::Syntax(_))));
        let Err(ExprError::Unknown { name, .. }) = Expr::compile("inptu.y > 0", &["input"]) else { panic!() };
        assert_eq!(name, "inptu");
        assert!(Expr::compile("input.l.exists(x, x == input.y)", &["input"]).is_ok());
        assert_eq!(Expr::compile(&"a".repeat(5000), &["input"]), Err(ExprError::TooLong));
        let deep = format!("{}1{}", "(".repeat(1500), ")".repeat(1500));
        assert!(Expr::compile(&deep, &["input"]).is_err(), "deep nesting is refused, not a crash");
        let chains = ["!", "-", "1+", "true?1:", "true||", "[", "input.", "1 in "];
        for chain in chains {
            let long = format!("{}input", chain.repeat(4000 / chain.len()));
            let _ = Expr::compile(&long, &["input"]).map(|e| e.evaluate(&[("input", &json!({}))]));
        }
        assert_eq!(Expr::compile(&format!("input{}", ".a".repeat(1000)), &["input"]), Err(ExprError::TooDeep));
    }

    #[test]
    fn what_fails_says_why() {
        let input = json!({"y": "text"});
        for source in ["input.y > 0", "input.x == 1", "1 / 0", "[1][3]"] {
            assert!(matches!(eval(source, &input), Err(ExprError::Failed(_))), "{source}: {:?}", eval(source, &input));
        }
        let expr = Expr::compile("1 + 1", &[]).unwrap();
        assert_eq!(expr.holds(&[]), Err(ExprError::NotBoolean("the number 2".into())));
    }

    #[test]
    fn cost_is_bounded_by_what_comes_in() {
        let few = json!({"l": (0..100).collect::<Vec<_>>()});
        let many = json!({"l": (0..10_000).collect::<Vec<_>>()});
        let plain = "input.l.all(x, x >= 0)";
        assert_eq!(eval(plain, &few), Ok(json!(true)));
        assert_eq!(eval(plain, &many), Ok(json!(true)));
        let square = "input.l.all(x, input.l.exists(y, y == x))";
        assert_eq!(eval(square, &few), Ok(json!(true)));
        assert!(matches!(eval(square, &many), Err(ExprError::TooCostly { .. })));
        let one = json!({"l": [(0..10_000).collect::<Vec<_>>()]});
        let inner = "input.l.all(x, x.all(y, x.all(z, true)))";
        assert!(matches!(eval(inner, &one), Err(ExprError::TooCostly { .. })), "all may be in one item");
        let doubling = format!("[input.l]{}.size()", ".map(x, x + x)".repeat(40));
        assert!(matches!(eval(&doubling, &few), Err(ExprError::TooCostly { .. })));
    }
}
