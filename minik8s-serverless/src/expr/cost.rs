//! What an expression may cost at most, worked out from its tree and the size of what it is given, before it runs.
//!
//! A list of total size `S` whose items are bound in turn costs most either where all of `S` is in one item, or where
//! there are `S` items of size one: costs are sums of products of sizes, hence convex. Both are added up.

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr};
use serde_json::Value;
use std::collections::HashMap;

/// Deeper nesting of comprehensions is refused: each level doubles the work of the estimate itself.
const MAX_NESTING: u32 = 5;

/// What a part costs, and how large its value can be.
#[derive(Clone, Copy)]
struct Bound {
    cost: f64,
    size: f64,
}

type Sizes<'a> = HashMap<&'a str, f64>;

/// What evaluating costs at most.
pub(super) fn estimate(expression: &IdedExpr, variables: &[(&str, &Value)]) -> f64 {
    let mut sizes: HashMap<&str, f64> = variables.iter().map(|(name, value)| (*name, size(value))).collect();
    bound(&expression.expr, &mut sizes, 0).cost
}

/// Nodes of a value; long texts count by their length.
fn size(value: &Value) -> f64 {
    match value {
        Value::Array(items) => 1.0 + items.iter().map(size).sum::<f64>(),
        Value::Object(fields) => {
            1.0 + fields.iter().map(|(key, value)| key.len() as f64 / 16.0 + size(value)).sum::<f64>()
        }
        Value::String(text) => 1.0 + text.len() as f64 / 16.0,
        _ => 1.0,
    }
}

fn bound<'a>(expr: &'a Expr, sizes: &mut Sizes<'a>, nesting: u32) -> Bound {
    let all = |sizes: &mut Sizes<'a>| {
        children(expr).into_iter().fold(Bound { cost: 1.0, size: 1.0 }, |sum, part| {
            let part = bound(&part.expr, sizes, nesting);
            Bound { cost: sum.cost + part.cost, size: sum.size + part.size }
        })
    };
    match expr {
        Expr::Unspecified => Bound { cost: 1.0, size: 1.0 },
        Expr::Literal(literal) => {
            let length =
                if let cel::common::ast::LiteralValue::String(text) = literal { text.inner().len() } else { 0 };
            Bound { cost: 1.0, size: 1.0 + length as f64 / 16.0 }
        }
        Expr::Ident(name) => Bound { cost: 1.0, size: sizes.get(name.as_str()).copied().unwrap_or(1.0) },
        Expr::Select(select) => {
            let operand = bound(&select.operand.expr, sizes, nesting);
            Bound { cost: operand.cost + 1.0, size: operand.size }
        }
        Expr::Call(call) => {
            let sum = all(sizes);
            // Any call may have to look at all it is given.
            let looks = if is_cheap(&call.func_name) { 1.0 } else { sum.size };
            Bound { cost: sum.cost + looks, size: sum.size }
        }
        Expr::List(_) | Expr::Map(_) | Expr::Struct(_) => all(sizes),
        Expr::Comprehension(_) if nesting >= MAX_NESTING => Bound { cost: f64::INFINITY, size: f64::INFINITY },
        Expr::Comprehension(over) => {
            let range = bound(&over.iter_range.expr, sizes, nesting);
            let start = bound(&over.accu_init.expr, sizes, nesting);
            let each = |item: f64| {
                let names = [Some(&over.iter_var), over.iter_var2.as_ref()].into_iter().flatten();
                let mut inner = sizes.clone();
                inner.extend(names.map(|name| (name.as_str(), item)));
                inner.insert(over.accu_var.as_str(), 0.0);
                let (go, step) = (
                    bound(&over.loop_cond.expr, &mut inner, nesting + 1),
                    bound(&over.loop_step.expr, &mut inner, nesting + 1),
                );
                Bound { cost: go.cost + step.cost, size: step.size }
            };
            let (small, whole) = (each(1.0), each(range.size));
            let size = start.size + range.size * small.size + whole.size;
            Bound { cost: range.cost + start.cost + range.size * small.cost + whole.cost, size }
        }
    }
}

/// Operators that look at no more than a few bytes of what they are given.
fn is_cheap(function: &str) -> bool {
    matches!(
        function,
        "_&&_" | "_||_" | "!_" | "_?_:_" | "_[_]" | "size" | "@not_strictly_false" | "_-_" | "_*_" | "_/_" | "_%_"
    )
}

fn entries(entries: &[cel::common::ast::IdedEntryExpr]) -> Vec<&IdedExpr> {
    let parts = entries.iter().flat_map(|entry| match &entry.expr {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    });
    parts.collect()
}

/// True where the tree has more levels than that.
pub(super) fn is_deeper(expression: &IdedExpr, most: usize) -> bool {
    most == 0 || children(&expression.expr).into_iter().any(|child| is_deeper(child, most - 1))
}

fn children(expr: &Expr) -> Vec<&IdedExpr> {
    match expr {
        Expr::Select(select) => vec![&select.operand],
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => entries(&map.entries),
        Expr::Struct(made) => entries(&made.entries),
        Expr::Comprehension(over) => {
            vec![&over.iter_range, &over.accu_init, &over.loop_cond, &over.loop_step, &over.result]
        }
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => Vec::new(),
    }
}

/// The first name that is neither one of these nor bound by the expression itself.
pub(super) fn unknown_name(expression: &IdedExpr, known: &[&str]) -> Option<String> {
    let mut bound: Vec<&str> = known.to_vec();
    // Types are names too: `type(x) == int`.
    bound.extend(["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"]);
    free(&expression.expr, &mut bound)
}

fn free<'a>(expr: &'a Expr, bound: &mut Vec<&'a str>) -> Option<String> {
    match expr {
        Expr::Ident(name) => (!bound.contains(&name.as_str())).then(|| name.clone()),
        Expr::Comprehension(over) => {
            let outside = [&over.iter_range.expr, &over.accu_init.expr].into_iter().find_map(|e| free(e, bound));
            let depth = bound.len();
            bound.extend([over.iter_var.as_str(), over.accu_var.as_str()]);
            bound.extend(over.iter_var2.as_deref());
            let parts = [&over.loop_cond.expr, &over.loop_step.expr, &over.result.expr];
            let inside = parts.into_iter().find_map(|e| free(e, bound));
            bound.truncate(depth);
            outside.or(inside)
        }
        other => children(other).into_iter().find_map(|child| free(&child.expr, bound)),
    }
}
