//! Protobuf request bodies: the envelope, and messages read by the schema table. Answers are never protobuf.

use super::Schemas;
use super::decode::{format_time, is_omitted};
use super::schema::{Field, FieldType, TypeSchema};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use prost::encoding::{WireType, decode_key, decode_varint};
use serde_json::{Map, Value};

/// What every Kubernetes protobuf body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Messages nest no deeper.
const MAX_DEPTH: usize = 64;

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ProtobufError {
    /// Not the envelope every client sends.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    /// Cut short, or not protobuf.
    #[error("proto: {0}")]
    Wire(String),
    /// The table has no such type.
    #[error("the server has no schema of {0}")]
    Unknown(String),
    /// An embedded object that is no JSON.
    #[error("{field}: embedded objects must be JSON: {source}")]
    Embedded {
        /// The field.
        field: String,
        /// The JSON error.
        source: serde_json::Error,
    },
}

/// The outside of a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Envelope {
    /// `apps/v1`, possibly empty.
    pub api_version: String,
    /// `Deployment`, possibly empty.
    pub kind: String,
    /// The encoded message.
    pub raw: Vec<u8>,
}

/// One field off the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Takes the next field off `bytes`.
fn next<'a>(bytes: &mut &'a [u8]) -> Result<(u32, Wire<'a>), ProtobufError> {
    let wire = |e: prost::DecodeError| ProtobufError::Wire(e.to_string());
    let (tag, kind) = decode_key(bytes).map_err(wire)?;
    let fixed = |bytes: &mut &'a [u8], size: usize| take(bytes, size).map(little_endian);
    let value = match kind {
        WireType::Varint => Wire::Number(decode_varint(bytes).map_err(wire)?),
        WireType::SixtyFourBit => Wire::Number(fixed(bytes, 8)?),
        WireType::ThirtyTwoBit => Wire::Number(fixed(bytes, 4)?),
        WireType::LengthDelimited => {
            let length = decode_varint(bytes).map_err(wire)?;
            Wire::Bytes(take(bytes, usize::try_from(length).unwrap_or(usize::MAX))?)
        }
        WireType::StartGroup | WireType::EndGroup => {
            return Err(ProtobufError::Wire("groups are not supported".into()));
        }
    };
    Ok((tag, value))
}

fn take<'a>(bytes: &mut &'a [u8], size: usize) -> Result<&'a [u8], ProtobufError> {
    let (head, rest) = bytes.split_at_checked(size).ok_or_else(|| ProtobufError::Wire("unexpected EOF".into()))?;
    *bytes = rest;
    Ok(head)
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn fields(mut bytes: &[u8]) -> Result<Vec<(u32, Wire<'_>)>, ProtobufError> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        out.push(next(&mut bytes)?);
    }
    Ok(out)
}

fn text(wire: &Wire<'_>) -> Result<String, ProtobufError> {
    match wire {
        Wire::Bytes(bytes) => {
            String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Wire("text is not UTF-8".into()))
        }
        Wire::Number(_) => Err(ProtobufError::Wire("a number where text is expected".into())),
    }
}

fn message<'a>(wire: &Wire<'a>) -> Result<&'a [u8], ProtobufError> {
    match wire {
        Wire::Bytes(bytes) => Ok(bytes),
        Wire::Number(_) => Err(ProtobufError::Wire("a number where a message is expected".into())),
    }
}

fn number(wire: &Wire<'_>) -> Result<u64, ProtobufError> {
    match wire {
        Wire::Number(number) => Ok(*number),
        Wire::Bytes(_) => Err(ProtobufError::Wire("bytes where a number is expected".into())),
    }
}

/// Opens the envelope of a body.
///
/// # Errors
/// [`ProtobufError`] where it is none.
pub fn envelope(bytes: &[u8]) -> Result<Envelope, ProtobufError> {
    let body = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let mut out = Envelope { api_version: String::new(), kind: String::new(), raw: Vec::new() };
    for (tag, wire) in fields(body)? {
        match tag {
            1 => {
                for (tag, wire) in fields(message(&wire)?)? {
                    match tag {
                        1 => out.api_version = text(&wire)?,
                        2 => out.kind = text(&wire)?,
                        _ => {}
                    }
                }
            }
            2 => out.raw = message(&wire)?.to_vec(),
            _ => {}
        }
    }
    Ok(out)
}

/// Reads a message of type `type_name`. Fields the table does not know are skipped, and so are empty values of plain
/// fields, which clients always send.
///
/// # Errors
/// [`ProtobufError`] where it is not such a message.
pub fn decode(schemas: &Schemas, type_name: &str, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let schema = schemas.get(type_name).ok_or_else(|| ProtobufError::Unknown(type_name.to_owned()))?;
    let mut out = Map::new();
    Decoder { schemas }.merge(&schema, bytes, &mut out, 0)?;
    Ok(Value::Object(out))
}

struct Decoder<'a> {
    schemas: &'a Schemas,
}

impl Decoder<'_> {
    fn schema(&self, name: &str) -> Result<std::sync::Arc<TypeSchema>, ProtobufError> {
        self.schemas.get(name).ok_or_else(|| ProtobufError::Unknown(name.to_owned()))
    }

    fn merge(
        &self,
        schema: &TypeSchema,
        bytes: &[u8],
        out: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        if depth > MAX_DEPTH {
            return Err(ProtobufError::Wire("messages are nested too deeply".into()));
        }
        for (tag, wire) in fields(bytes)? {
            if let Some((_, inlined)) = schema.inlined.iter().find(|(t, _)| *t == tag) {
                self.merge(&*self.schema(inlined)?, message(&wire)?, out, depth + 1)?;
            } else if let Some(field) = schema.field_by_tag(tag) {
                self.field(field, &wire, out, depth)?;
            }
        }
        out.retain(|name, value| schema.field(name).is_none_or(|field| !is_unset(field, value)));
        Ok(())
    }

    fn field(
        &self,
        field: &Field,
        wire: &Wire<'_>,
        out: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        match &field.ty {
            FieldType::List(item) => {
                let slot = out.entry(&field.name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(items) = slot else { return Ok(()) };
                self.items(field, item, wire, items, depth)
            }
            FieldType::Map(item) => {
                let (key, value) = self.map_entry(field, item, message(wire)?, depth)?;
                let slot = out.entry(&field.name).or_insert_with(|| Value::Object(Map::new()));
                slot[key] = value;
                Ok(())
            }
            ty => {
                out.insert(field.name.clone(), self.value(field, ty, wire, depth)?);
                Ok(())
            }
        }
    }

    /// One item, or several packed numbers.
    fn items(
        &self,
        field: &Field,
        item: &FieldType,
        wire: &Wire<'_>,
        out: &mut Vec<Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        let packable = matches!(item, FieldType::Int32 | FieldType::Int64 | FieldType::Bool);
        if let (&Wire::Bytes(mut packed), true) = (wire, packable) {
            while !packed.is_empty() {
                let number = decode_varint(&mut packed).map_err(|e| ProtobufError::Wire(e.to_string()))?;
                out.push(self.value(field, item, &Wire::Number(number), depth)?);
            }
            return Ok(());
        }
        out.push(self.value(field, item, wire, depth)?);
        Ok(())
    }

    fn map_entry(
        &self,
        field: &Field,
        item: &FieldType,
        bytes: &[u8],
        depth: usize,
    ) -> Result<(String, Value), ProtobufError> {
        let (mut key, mut value) = (String::new(), None);
        for (tag, wire) in fields(bytes)? {
            match tag {
                1 => key = text(&wire)?,
                2 => value = Some(self.value(field, item, &wire, depth)?),
                _ => {}
            }
        }
        let value = match value {
            Some(value) => value,
            None => self.value(field, item, &Wire::Bytes(&[]), depth)?,
        };
        Ok((key, value))
    }

    fn value(&self, field: &Field, ty: &FieldType, wire: &Wire<'_>, depth: usize) -> Result<Value, ProtobufError> {
        Ok(match ty {
            FieldType::String => text(wire)?.into(),
            FieldType::Bool => (number(wire)? != 0).into(),
            FieldType::Int32 => (number(wire)? as i32).into(),
            FieldType::Int64 => (number(wire)? as i64).into(),
            FieldType::Float => f64::from_bits(number(wire)?).into(),
            FieldType::Bytes => STANDARD.encode(message(wire)?).into(),
            FieldType::Time => time(message(wire)?, false)?,
            FieldType::MicroTime => time(message(wire)?, true)?,
            FieldType::Duration => go_duration(sub_number(message(wire)?, 1)?.unwrap_or_default() as i64).into(),
            FieldType::Quantity => sub_text(message(wire)?, 1)?.into(),
            FieldType::IntOrString => int_or_string(message(wire)?)?,
            FieldType::Any => embedded(field, message(wire)?)?,
            FieldType::Strings => strings(message(wire)?)?,
            FieldType::List(_) | FieldType::Map(_) => Value::Null,
            FieldType::Message(name) => {
                let mut out = Map::new();
                self.merge(&*self.schema(name)?, message(wire)?, &mut out, depth + 1)?;
                Value::Object(out)
            }
        })
    }
}

/// Go encodes plain fields also where nobody set them; an empty message is one of those.
fn is_unset(field: &Field, value: &Value) -> bool {
    let hollow = value.as_object().is_some_and(Map::is_empty) && !field.pointer && !field.required;
    hollow || is_omitted(field, value)
}

fn sub_number(bytes: &[u8], tag: u32) -> Result<Option<u64>, ProtobufError> {
    let found = fields(bytes)?.into_iter().rfind(|(t, _)| *t == tag);
    found.map(|(_, wire)| number(&wire)).transpose()
}

fn sub_text(bytes: &[u8], tag: u32) -> Result<String, ProtobufError> {
    let found = fields(bytes)?.into_iter().rfind(|(t, _)| *t == tag);
    found.map_or(Ok(String::new()), |(_, wire)| text(&wire))
}

fn strings(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let items = fields(bytes)?.into_iter().filter(|(tag, _)| *tag == 1);
    items.map(|(_, wire)| text(&wire).map(Value::from)).collect::<Result<Vec<_>, _>>().map(Value::Array)
}

/// Seconds and nanoseconds; an empty message is the zero time, which means none.
fn time(bytes: &[u8], micro: bool) -> Result<Value, ProtobufError> {
    let Some(seconds) = sub_number(bytes, 1)? else { return Ok(Value::Null) };
    let nanos = sub_number(bytes, 2)?.unwrap_or_default() as i32;
    let at =
        Timestamp::new(seconds as i64, nanos).map_err(|e| ProtobufError::Wire(format!("time out of range: {e}")))?;
    Ok(format_time(at, micro).into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    if sub_number(bytes, 1)?.unwrap_or_default() == 1 {
        return Ok(sub_text(bytes, 3)?.into());
    }
    Ok((sub_number(bytes, 2)?.unwrap_or_default() as i32).into())
}

fn embedded(field: &Field, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let Some((_, wire)) = fields(bytes)?.into_iter().rfind(|(tag, _)| *tag == 1) else { return Ok(Value::Null) };
    let raw = message(&wire)?;
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(raw).map_err(|source| ProtobufError::Embedded { field: field.name.clone(), source })
}

/// `1h2m3.5s`, as Go writes durations.
fn go_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let (hours, minutes) = (nanos / 3_600_000_000_000, nanos / 60_000_000_000 % 60);
    let seconds = (nanos % 60_000_000_000) as f64 / 1e9;
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, _) => format!("{sign}{minutes}m{seconds}s"),
        _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests;
