//! The twelve checks: numbers and texts, each equal, not equal, greater, less, at least, at most.

use serde_json::Value;
use std::cmp::Ordering;

/// How two values of one type are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The same.
    Equal,
    /// Not the same.
    NotEqual,
    /// More than.
    Greater,
    /// Less than.
    Less,
    /// More than or the same.
    AtLeast,
    /// Less than or the same.
    AtMost,
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Greater => order.is_gt(),
            Self::Less => order.is_lt(),
            Self::AtLeast => order.is_ge(),
            Self::AtMost => order.is_le(),
        }
    }
}

/// What a value is compared with, and so what type it must have.
#[derive(Clone, Debug, PartialEq)]
enum Operand {
    /// A number.
    Number(serde_json::Number),
    /// A text.
    Text(String),
}

/// One of the twelve checks.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    name: &'static str,
    comparison: Comparison,
    operand: Operand,
}

/// Names of the checks, and how the short shape calls them.
const NAMES: [(&str, &str, bool, Comparison); 12] = [
    ("NumberEqual", "numEqual", true, Comparison::Equal),
    ("NumberNotEqual", "numNotEqual", true, Comparison::NotEqual),
    ("NumberGreater", "numGreaterThan", true, Comparison::Greater),
    ("NumberLess", "numLessThan", true, Comparison::Less),
    ("NumberAtLeast", "numGreaterAndEqualThan", true, Comparison::AtLeast),
    ("NumberAtMost", "numLessAndEqualThan", true, Comparison::AtMost),
    ("StringEqual", "strEqual", false, Comparison::Equal),
    ("StringNotEqual", "strNotEqual", false, Comparison::NotEqual),
    ("StringGreater", "strGreaterThan", false, Comparison::Greater),
    ("StringLess", "strLessThan", false, Comparison::Less),
    ("StringAtLeast", "strGreaterAndEqualThan", false, Comparison::AtLeast),
    ("StringAtMost", "strLessAndEqualThan", false, Comparison::AtMost),
];

/// Why there is no such check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckError {
    /// No check is called so; these are.
    Unknown(Vec<&'static str>),
    /// The value is not of the check's type.
    Value(&'static str),
}

impl Check {
    /// The check of this name, in either spelling, against this value. A number may stand in quotes.
    ///
    /// # Errors
    /// Where there is no such check, or the value is not of its type.
    pub fn new(name: &str, value: &Value) -> Result<Self, CheckError> {
        let found = NAMES.iter().find(|(full, short, ..)| *full == name || *short == name);
        let Some(&(name, _, number, comparison)) = found else {
            let short = name.starts_with("num") || name.starts_with("str");
            return Err(CheckError::Unknown(
                NAMES.iter().map(|(full, old, ..)| if short { *old } else { full }).collect(),
            ));
        };
        let operand = match (number, value) {
            (true, Value::Number(number)) => Operand::Number(number.clone()),
            (true, Value::String(text)) => {
                let number = text.trim().parse().map_err(|_| CheckError::Value("must be a number"))?;
                Operand::Number(number)
            }
            (false, Value::String(text)) => Operand::Text(text.clone()),
            (true, _) => return Err(CheckError::Value("must be a number")),
            (false, _) => return Err(CheckError::Value("must be text")),
        };
        Ok(Self { name, comparison, operand })
    }

    /// Whether it holds of a value.
    ///
    /// # Errors
    /// A sentence, where the value is of another type.
    pub fn holds(&self, value: &Value) -> Result<bool, String> {
        let order = match (&self.operand, value) {
            (Operand::Number(with), Value::Number(number)) => compare(number, with),
            (Operand::Text(with), Value::String(text)) => Some(text.as_str().cmp(with)),
            _ => {
                let wanted = if matches!(self.operand, Operand::Number(_)) { "numbers" } else { "texts" };
                return Err(format!("is {}, and {} compares {wanted}", described(value), self.name));
            }
        };
        Ok(order.map_or(self.comparison == Comparison::NotEqual, |order| self.comparison.holds(order)))
    }

    /// As people read it: `> 0`.
    pub fn shown(&self) -> String {
        let sign = match self.comparison {
            Comparison::Equal => "=",
            Comparison::NotEqual => "≠",
            Comparison::Greater => ">",
            Comparison::Less => "<",
            Comparison::AtLeast => "≥",
            Comparison::AtMost => "≤",
        };
        match &self.operand {
            Operand::Number(number) => format!("{sign} {number}"),
            Operand::Text(text) => format!("{sign} {text:?}"),
        }
    }
}

/// Whole numbers are compared as they are, others as floating point.
fn compare(a: &serde_json::Number, b: &serde_json::Number) -> Option<Ordering> {
    let whole = |n: &serde_json::Number| n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from));
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

/// What a value is, for messages: short, whatever it holds.
pub fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => format!("the truth value {truth}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.chars().count() <= 40 => format!("the text {text:?}"),
        Value::String(text) => format!("a text of {} bytes", text.len()),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(fields) => format!("an object of {} fields", fields.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_twelve_hold_where_they_should_in_both_spellings() {
        // For 1 against 2, 2 against 2, 3 against 2; texts "a", "b", "c" against "b".
        let table = [
            (Comparison::Equal, [false, true, false]),
            (Comparison::NotEqual, [true, false, true]),
            (Comparison::Greater, [false, false, true]),
            (Comparison::Less, [true, false, false]),
            (Comparison::AtLeast, [false, true, true]),
            (Comparison::AtMost, [true, true, false]),
        ];
        for (full, short, number, comparison) in NAMES {
            let want = table.iter().find(|(c, _)| *c == comparison).unwrap().1;
            let with = if number { json!(2) } else { json!("b") };
            let values = if number { [json!(1), json!(2.0), json!(3)] } else { [json!("a"), json!("b"), json!("c")] };
            for name in [full, short] {
                let check = Check::new(name, &with).unwrap();
                let got: Vec<_> = values.iter().map(|value| check.holds(value).unwrap()).collect();
                assert_eq!(got, want, "{name}");
            }
        }
    }

    #[test]
    fn all_twelve_refuse_what_is_of_another_type() {
        for (full, _, number, _) in NAMES {
            let (with, wrong) = if number {
                (json!(0), [json!("0"), json!(null), json!([0])])
            } else {
                (json!("0"), [json!(0), json!(true), json!({})])
            };
            let check = Check::new(full, &with).unwrap();
            for value in wrong {
                let why = check.holds(&value).unwrap_err();
                assert!(why.contains(full) && why.contains("compares"), "{why}");
            }
        }
    }

    #[test]
    fn what_a_check_compares_with_must_fit_it() {
        assert!(Check::new("numEqual", &json!("12.5")).is_ok(), "a number may stand in quotes");
        for (name, value) in
            [("numEqual", json!("x")), ("NumberLess", json!(null)), ("StringLess", json!(1)), ("strEqual", json!([]))]
        {
            assert!(matches!(Check::new(name, &value), Err(CheckError::Value(_))), "{name} {value}");
        }
        let Err(CheckError::Unknown(names)) = Check::new("numBigger", &json!(1)) else { panic!() };
        assert!(names.contains(&"numGreaterThan"));
        let Err(CheckError::Unknown(names)) = Check::new("Bigger", &json!(1)) else { panic!() };
        assert!(names.contains(&"NumberGreater"));
    }

    #[test]
    fn whole_numbers_are_compared_exactly() {
        let big = u64::MAX;
        let check = Check::new("NumberLess", &json!(big)).unwrap();
        assert!(check.holds(&json!(big - 1)).unwrap(), "floating point would not tell them apart");
        assert!(check.holds(&json!(-1)).unwrap());
        assert!(check.holds(&json!(0.5)).unwrap());
    }
}
