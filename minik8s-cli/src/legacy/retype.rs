//! Values of the wrong type and keys in the wrong case, by the table of types that the server itself checks with.

use super::Notes;
use super::words;
use minik8s_core::api::schema::{FieldType, Schemas, TypeSchema};
use serde_json::{Map, Value};

/// A thousandth of a core in nano-cores. Nobody has a machine of a thousand times as many whole cores.
const MILLI: u64 = 1_000_000;

/// Where in the object we are.
type Path = Vec<String>;

fn at(path: &Path) -> String {
    path.concat().trim_start_matches('.').to_owned()
}

/// Puts an object of this type right.
pub(super) fn object(schemas: &Schemas, schema: &TypeSchema, value: &mut Value, path: &mut Path, notes: &mut Notes) {
    let Some(map) = value.as_object_mut() else { return };
    if !schema.open {
        respell(schema, map, path, notes);
    }
    for (key, value) in map {
        let Some(field) = schema.field(key) else { continue };
        path.push(format!(".{key}"));
        if let Some(meant) = value.as_str().and_then(|word| words::meant(schema.short_name(), key, word)) {
            notes.add(format!("{}: {} is {meant}", at(path), value.as_str().unwrap_or_default()));
            *value = meant.into();
        }
        retype(schemas, &field.ty, value, path, notes);
        path.pop();
    }
}

/// Keys without capitals, underscores and dashes: what they have in common with the right ones.
fn plain(key: &str) -> String {
    key.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
}

fn respell(schema: &TypeSchema, map: &mut Map<String, Value>, path: &Path, notes: &mut Notes) {
    let odd: Vec<String> = map.keys().filter(|key| schema.field(key).is_none()).cloned().collect();
    for key in odd {
        let Some(field) = schema.fields.iter().find(|field| plain(&field.name) == plain(&key)) else { continue };
        if map.contains_key(&field.name) {
            continue;
        }
        if let Some(value) = map.remove(&key) {
            notes.add(format!("{} is spelled {}", at(&[path.as_slice(), &[format!(".{key}")]].concat()), field.name));
            map.insert(field.name.clone(), value);
        }
    }
}

fn retype(schemas: &Schemas, ty: &FieldType, value: &mut Value, path: &mut Path, notes: &mut Notes) {
    match ty {
        FieldType::Message(name) => {
            if let Some(schema) = schemas.get(name) {
                object(schemas, &schema, value, path, notes);
            }
        }
        FieldType::List(inner) => {
            for (index, item) in value.as_array_mut().into_iter().flatten().enumerate() {
                path.push(format!("[{index}]"));
                retype(schemas, inner, item, path, notes);
                path.pop();
            }
        }
        FieldType::Map(inner) => {
            for (key, item) in value.as_object_mut().into_iter().flatten() {
                path.push(format!(".{key}"));
                retype(schemas, inner, item, path, notes);
                path.pop();
            }
        }
        FieldType::String => text(value, path, notes),
        FieldType::IntOrString if value.as_str().is_some_and(is_number) => number(value, path, notes),
        FieldType::Int32 | FieldType::Int64 => number(value, path, notes),
        FieldType::Bool => truth(value, path, notes),
        FieldType::Quantity => quantity(value, path, notes),
        _ => {}
    }
}

/// Only whole numbers: what stood where now is a fraction or a truth is not known any more (`1.10`, `yes`). The value is
/// not told: it may be a password.
fn text(value: &mut Value, path: &Path, notes: &mut Notes) {
    if value.is_i64() || value.is_u64() {
        notes.add(format!("{}: a number is read as text", at(path)));
        *value = value.to_string().into();
    }
}

/// Digits that nobody could take for another number: with a zero in front they may be octal.
fn is_number(text: &str) -> bool {
    text == "0" || text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() && !text.starts_with('0')
}

fn number(value: &mut Value, path: &Path, notes: &mut Notes) {
    let Some(text) = value.as_str().map(str::trim) else { return };
    let counts_seconds = path.last().is_some_and(|key| key.ends_with("Seconds"));
    if is_number(text) {
        let Ok(number) = text.parse::<i64>() else { return };
        notes.add(format!("{}: {text:?} is read as a number", at(path)));
        *value = number.into();
    } else if let Some(seconds) = seconds(text).filter(|_| counts_seconds) {
        notes.add(format!("{}: {text} are {seconds} seconds", at(path)));
        *value = seconds.into();
    }
}

/// `1h30m`, `15s`: whole seconds.
fn seconds(text: &str) -> Option<i64> {
    let (mut total, mut digits) = (0_i64, String::new());
    if text.is_empty() {
        return None;
    }
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let each = match c {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        total = total.checked_add(std::mem::take(&mut digits).parse::<i64>().ok()?.checked_mul(each)?)?;
    }
    digits.is_empty().then_some(total)
}

fn truth(value: &mut Value, path: &Path, notes: &mut Notes) {
    let Some(truth) = value.as_str().and_then(|text| text.to_ascii_lowercase().parse::<bool>().ok()) else { return };
    notes.add(format!("{}: {value} is read as {truth}", at(path)));
    *value = truth.into();
}

/// CPU in nano-cores, as the first minik8s counted. Bytes of memory are bytes today as well.
fn quantity(value: &mut Value, path: &Path, notes: &mut Notes) {
    let resource = path.last().map(String::as_str).unwrap_or_default();
    let asked_for = path.iter().any(|part| part == ".resources");
    let of_cpu = resource == ".cpu" && asked_for || path.iter().any(|part| part == CPU_TARGET);
    let written = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let Some(nano) = written.filter(|nano| of_cpu && *nano >= MILLI) else { return };
    let milli = format!("{}m", nano.div_ceil(MILLI));
    notes.add(format!("{}: {nano} nano-cores are {milli}", at(path).replace(CPU_TARGET, "")));
    *value = milli.into();
}

/// Marks, in a path, that what follows counts CPU though its own key does not say so.
const CPU_TARGET: &str = "\u{0}cpu";

/// Puts the target of a metric right: what it counts is said beside it.
pub(super) fn cpu_target(target: &mut Value, place: &str, notes: &mut Notes) {
    for name in ["averageValue", "value"] {
        if let Some(amount) = target.get_mut(name) {
            quantity(amount, &vec![CPU_TARGET.to_owned(), place.to_owned(), format!(".{name}")], notes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_seconds() {
        let table =
            [("15s", Some(15)), ("1h30m", Some(5400)), ("2m", Some(120)), ("15", None), ("s", None), ("1d", None)];
        for (text, expected) in table.into_iter().chain([("", None), ("1m5", None), ("99999999999999999999h", None)]) {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn only_what_can_mean_one_thing_is_read_as_a_number() {
        let table =
            [("80", Value::from(80)), ("0", Value::from(0)), ("0400", Value::from("0400")), ("5m", Value::from("5m"))];
        for (text, expected) in table.into_iter().chain([("", Value::from("")), ("-1", Value::from("-1"))]) {
            let mut value = Value::from(text);
            number(&mut value, &vec![".replicas".into()], &mut Notes::default());
            assert_eq!(value, expected);
        }
    }

    #[test]
    fn a_few_whole_cores_are_no_nano_cores() {
        for (written, read) in [
            (Value::from(4), Value::from(4)),
            (Value::from(999_999), Value::from(999_999)),
            (Value::from(1_000_001), Value::from("2m")),
            (Value::from("250000000"), Value::from("250m")),
            (Value::from("2"), Value::from("2")),
        ] {
            let mut value = written;
            quantity(&mut value, &vec![".resources".into(), ".cpu".into()], &mut Notes::default());
            assert_eq!(value, read);
        }
    }
}
