//! How long values are as text, without writing them. Pure.

use serde_json::Value;

/// The largest value that a step may be given, answer with or pass on, as text. It stands in records of pieces.
pub(crate) const LARGEST: usize = 8 << 20;

/// How long a value's text is; of fractions, how long it may be.
pub(crate) fn length(value: &Value) -> usize {
    usize::MAX - left(value, usize::MAX).unwrap_or_default()
}

/// True where the value's text is longer; does not look at more of it than that.
pub(crate) fn is_longer(value: &Value, most: usize) -> bool {
    left(value, most).is_none()
}

/// What is left of `most` after the text of a value.
fn left(value: &Value, most: usize) -> Option<usize> {
    match value {
        Value::Array(items) => {
            let most = most.checked_sub(2 + items.len().saturating_sub(1))?;
            items.iter().try_fold(most, |most, item| left(item, most))
        }
        Value::Object(fields) => {
            let most = most.checked_sub(2 + fields.len().saturating_sub(1))?;
            fields.iter().try_fold(most, |most, (key, item)| left(item, text(key, most)?.checked_sub(1)?))
        }
        Value::String(string) => text(string, most),
        Value::Number(number) => most.checked_sub(digits(number)),
        Value::Bool(false) => most.checked_sub(5),
        Value::Bool(true) | Value::Null => most.checked_sub(4),
    }
}

/// What is left after a text in quotes, which is longer than itself where it is escaped.
fn text(string: &str, most: usize) -> Option<usize> {
    let most = most.checked_sub(2)?.checked_sub(string.len())?;
    let more = |byte: u8| match byte {
        b'"' | b'\\' | 8 | 9 | 10 | 12 | 13 => 1,
        0..=0x1f => 5,
        _ => 0,
    };
    most.checked_sub(string.bytes().map(more).sum())
}

fn digits(number: &serde_json::Number) -> usize {
    match (number.as_u64(), number.as_i64()) {
        (Some(number), _) => number.checked_ilog10().unwrap_or(0) as usize + 1,
        (None, Some(number)) => number.unsigned_abs().ilog10() as usize + 2,
        // The longest there are.
        (None, None) => 24,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_length_is_that_of_the_text() {
        let table = [
            json!(null),
            json!([true, false, null, [], {}]),
            json!([0, 7, 10, -1, -10, u64::MAX, i64::MIN]),
            json!({"a": [1, 2, 3], "ä\"\\\n\u{1}\u{8}\u{7f}": "x\ty\u{1f}"}),
            json!("x".repeat(1000)),
        ];
        for value in table {
            let text = value.to_string();
            assert_eq!(length(&value), text.len(), "{text}");
            assert!(!is_longer(&value, text.len()) && is_longer(&value, text.len() - 1), "{text}");
        }
        for fraction in [json!(0.1), json!(-1.797_693_134_862_315_7e308), json!(5e-324), json!(1.0)] {
            assert!(length(&fraction) >= fraction.to_string().len(), "{fraction}");
        }
    }
}
