//! Scalars with a form of their own: numbers, times, quantities, base64.

use crate::api::Quantity;
use crate::api::schema::FieldType;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

/// Why a scalar is refused: it is of another type (the caller names the field), or its text is not of the form.
pub(super) enum Mismatch {
    Type,
    Form(String),
}

/// The canonical form of a scalar of type `ty`.
pub(super) fn convert(value: Value, ty: &FieldType) -> Result<Value, Mismatch> {
    let ok = match ty {
        FieldType::String => value.is_string(),
        FieldType::Bool => value.is_boolean(),
        FieldType::Int32 => int32(&value),
        FieldType::Int64 => value.as_i64().is_some(),
        FieldType::Float => value.is_number(),
        FieldType::IntOrString => value.is_string() || int32(&value),
        FieldType::Time => return time(value, false),
        FieldType::MicroTime => return time(value, true),
        FieldType::Duration => value.is_string(),
        FieldType::Quantity => return quantity(&value),
        FieldType::Bytes => return base64_text(value),
        FieldType::Any => true,
        FieldType::Strings | FieldType::Message(_) | FieldType::List(_) | FieldType::Map(_) => false,
    };
    if ok { Ok(value) } else { Err(Mismatch::Type) }
}

fn int32(value: &Value) -> bool {
    value.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
}

fn quantity(value: &Value) -> Result<Value, Mismatch> {
    if !value.is_string() && !value.is_number() {
        return Err(Mismatch::Type);
    }
    match Quantity::from_value(value) {
        Ok(quantity) => Ok(quantity.to_string().into()),
        Err(e) => Err(Mismatch::Form(e.to_string())),
    }
}

fn base64_text(value: Value) -> Result<Value, Mismatch> {
    let text = value.as_str().ok_or(Mismatch::Type)?;
    match STANDARD.decode(text) {
        Ok(_) => Ok(value),
        Err(e) => Err(Mismatch::Form(format!("illegal base64 data: {e}"))),
    }
}

fn time(value: Value, micro: bool) -> Result<Value, Mismatch> {
    let text = value.as_str().ok_or(Mismatch::Type)?;
    if text.is_empty() {
        return Ok(Value::Null);
    }
    match text.parse::<Timestamp>() {
        Ok(at) => Ok(format_time(at, micro).into()),
        Err(_) => {
            Err(Mismatch::Form(format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse it")))
        }
    }
}

/// RFC 3339 in UTC, with whole seconds or with microseconds.
pub(in crate::api) fn format_time(at: Timestamp, micro: bool) -> String {
    if micro { format!("{at:.6}") } else { format!("{:.0}", Timestamp::from_second(at.as_second()).unwrap_or(at)) }
}
