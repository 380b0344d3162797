//! Resource quantities (`250m`, `1.5Gi`, `1e3`): exact to a billionth, compared and added as numbers, written in the
//! canonical form every Kubernetes component writes.

use serde_json::Value;
use std::cmp::Ordering;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Sub};
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
/// Larger numbers are capped, as upstream.
const MAX: i128 = i64::MAX as i128 * NANO;
/// Digits behind the point that are looked at exactly; what follows only rounds up.
const FRACTION: usize = 18;

/// How a quantity was written, and so how it is written again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuantityFormat {
    /// `n u m k M G T P E`
    #[default]
    DecimalSi,
    /// `Ki Mi Gi Ti Pi Ei`
    BinarySi,
    /// `e3`
    DecimalExponent,
}

/// An amount of a resource. Two are equal where their numbers are, however they were written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nano: i128,
    format: QuantityFormat,
}

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not of the form number and suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Form,
    /// The suffix is none of the known ones.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return Err(QuantityError::Form);
        }
        let (format, exponent, factor) = parse_suffix(suffix)?;
        let nano = magnitude(whole, fraction, exponent, factor);
        Ok(Self { nano: if negative { -nano } else { nano }, format })
    }
}

/// Format, power of ten, and binary factor of a suffix.
fn parse_suffix(suffix: &str) -> Result<(QuantityFormat, i32, i128), QuantityError> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Ok((QuantityFormat::DecimalSi, *exponent, 1));
    }
    if let Some(index) = BINARY.iter().position(|s| *s == suffix) {
        return Ok((QuantityFormat::BinarySi, 0, 1 << (10 * (index + 1))));
    }
    let digits = suffix.strip_prefix(['e', 'E']).ok_or_else(|| {
        let known = |c: char| "eEinumkKMGTP+-".contains(c) || c.is_ascii_digit();
        if suffix.chars().all(known) { QuantityError::Suffix } else { QuantityError::Form }
    })?;
    let exponent: i32 = digits.parse().map_err(|_| QuantityError::Suffix)?;
    Ok((QuantityFormat::DecimalExponent, exponent.clamp(-100, 100), 1))
}

/// `whole.fraction * 10^exponent * factor` in billionths, rounded up and capped.
fn magnitude(whole: &str, fraction: &str, exponent: i32, factor: i128) -> i128 {
    let digits = format!("{whole}{fraction}");
    let point = whole.len() as i32 + exponent;
    let digit = |at: i32| if at < 0 { b'0' } else { digits.as_bytes().get(at as usize).copied().unwrap_or(b'0') };
    let value = |b: u8| i128::from(b - b'0');
    let whole = (0..point.max(0)).try_fold(0i128, |n, at| n.checked_mul(10)?.checked_add(value(digit(at))));
    let fraction_end = point + FRACTION as i32;
    let fraction = (point..fraction_end).fold(0i128, |n, at| n * 10 + value(digit(at)));
    let rest = (fraction_end.max(0)..digits.len() as i32).any(|at| digit(at) != b'0');
    let scale = 10i128.pow(FRACTION as u32);
    let (up, remainder) = ((fraction * factor) / scale, (fraction * factor) % scale);
    let nano = remainder * NANO;
    let below = nano / scale + i128::from(nano % scale != 0 || rest);
    let above = whole.and_then(|w| w.checked_mul(factor)).and_then(|w| w.checked_add(up));
    above.and_then(|a| a.checked_mul(NANO)).and_then(|a| a.checked_add(below)).unwrap_or(MAX).min(MAX)
}

impl Quantity {
    /// A whole number.
    pub const fn from_integer(value: i64) -> Self {
        Self { nano: value as i128 * NANO, format: QuantityFormat::DecimalSi }
    }

    /// Thousandths: `from_milli(250)` is `250m`.
    pub const fn from_milli(value: i64) -> Self {
        Self { nano: value as i128 * (NANO / 1000), format: QuantityFormat::DecimalSi }
    }

    /// Bytes, written with binary suffixes.
    pub const fn from_bytes(value: i64) -> Self {
        Self { nano: value as i128 * NANO, format: QuantityFormat::BinarySi }
    }

    /// A quantity as it stands in an object: text or number.
    ///
    /// # Errors
    /// [`QuantityError`] where it is neither, or not of the form.
    pub fn from_value(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::String(text) => text.trim().parse(),
            Value::Number(number) => number.to_string().parse(),
            _ => Err(QuantityError::Form),
        }
    }

    /// The number, rounded up to a whole one.
    pub fn value(&self) -> i64 {
        saturate(ceil_div(self.nano, NANO))
    }

    /// The number in thousandths, rounded up: CPU in millicores.
    pub fn milli_value(&self) -> i64 {
        saturate(ceil_div(self.nano, NANO / 1000))
    }

    /// How it is written.
    pub fn format(&self) -> QuantityFormat {
        self.format
    }

    /// True for 0.
    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    /// True below 0.
    pub fn is_negative(&self) -> bool {
        self.nano < 0
    }
}

fn ceil_div(a: i128, b: i128) -> i128 {
    a.div_euclid(b) + i128::from(a.rem_euclid(b) != 0)
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

/// The sum keeps the left one's format, unless that is zero.
impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let format = if self.nano == 0 { other.format } else { self.format };
        Self { nano: self.nano.saturating_add(other.nano), format }
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        let format = if self.nano == 0 { other.format } else { self.format };
        Self { nano: self.nano.saturating_sub(other.nano), format }
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), Add::add)
    }
}

/// Canonical form: no fraction, the largest suffix that loses nothing.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return write!(f, "0");
        }
        if self.format == QuantityFormat::BinarySi && self.nano.abs() >= 1024 * NANO {
            let (mut number, mut power) = (self.nano.signum() * ceil_div(self.nano.abs(), NANO), 0);
            while number % 1024 == 0 && power < BINARY.len() {
                (number, power) = (number / 1024, power + 1);
            }
            let suffix = if power == 0 { "" } else { BINARY[power - 1] };
            return write!(f, "{number}{suffix}");
        }
        let (mut number, mut exponent) = (self.nano, -9);
        while number % 1000 == 0 && exponent < 18 {
            (number, exponent) = (number / 1000, exponent + 3);
        }
        match self.format {
            QuantityFormat::DecimalExponent if exponent == 0 => write!(f, "{number}"),
            QuantityFormat::DecimalExponent => write!(f, "{number}e{exponent}"),
            _ => write!(f, "{number}{}", DECIMAL.iter().find(|d| d.1 == exponent).map_or("", |d| d.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        for (text, canonical) in [
            ("0", "0"),
            ("0m", "0"),
            ("1000m", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("1500", "1500"),
            ("1000", "1k"),
            ("1024Mi", "1Gi"),
            ("1000Mi", "1000Mi"),
            ("1536Ki", "1536Ki"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("512Ki", "512Ki"),
            ("1e3", "1e3"),
            ("12e2", "1200"),
            ("1E3", "1e3"),
            ("1E", "1E"),
            ("-250m", "-250m"),
            ("+1", "1"),
            ("100n", "100n"),
            ("0.1n", "1n"),
            ("1.23456789012", "1234567891n"),
            ("0.1", "100m"),
            ("2.5G", "2500M"),
            ("1e-3", "1e-3"),
            ("123456789", "123456789"),
            ("1025Ki", "1025Ki"),
            ("9Ei", "9223372036854775807"),
            ("1e90", "9223372036854775807"),
            ("99999999999999999999999999999999999999999", "9223372036854775807"),
            ("0.000000000000000000000000001", "1n"),
            ("0.1Ki", "102400m"),
        ] {
            assert_eq!(text.parse::<Quantity>().map(|q| q.to_string()).as_deref(), Ok(canonical), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity() {
        for bad in ["", "-", ".", "1.2.3", "abc", "1 Gi", "1gi", "1Gib", "Gi", "1e", "1e1.5", "--1", "ä"] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
        assert_eq!("1KI".parse::<Quantity>(), Err(QuantityError::Form));
        assert_eq!("1Kn".parse::<Quantity>(), Err(QuantityError::Suffix));
        assert!(Quantity::from_value(&serde_json::json!(1.5)).is_ok());
        assert!(Quantity::from_value(&serde_json::json!(true)).is_err());
    }

    #[test]
    fn comparison_and_rounding() {
        let q = |t: &str| t.parse::<Quantity>().unwrap();
        assert_eq!(q("1Gi"), q("1073741824"));
        assert!(q("1G") < q("1Gi"));
        assert_eq!(q("1100m").value(), 2);
        assert_eq!(q("-1100m").value(), -1);
        assert_eq!(q("1.0001").milli_value(), 1001);
        assert_eq!((q("1Gi") + q("1G")).to_string(), "2073741824");
        assert_eq!((Quantity::default() + q("512Mi") + q("512Mi")).to_string(), "1Gi");
        assert_eq!([q("250m"), q("750m")].into_iter().sum::<Quantity>().to_string(), "1");
    }

    proptest::proptest! {
        #[test]
        fn canonical_form_keeps_the_number(text in "-?[0-9]{1,12}(\\.[0-9]{1,9})?(n|u|m|k|M|G|Ki|Mi|Gi|e3|e-2)?") {
            if let Ok(q) = text.parse::<Quantity>() {
                let canonical = q.to_string();
                let again: Quantity = canonical.parse().unwrap();
                // Binary quantities are rounded up to whole bytes when they are written.
                if q.format() == QuantityFormat::BinarySi {
                    proptest::prop_assert!((again.nano - q.nano).abs() < NANO);
                } else {
                    proptest::prop_assert_eq!(again, q);
                }
                proptest::prop_assert_eq!(again.to_string(), canonical);
            }
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,40}") {
            let _ = text.parse::<Quantity>();
        }

        #[test]
        fn sums_are_exact(a in -1_000_000_000i64..1_000_000_000, b in -1_000_000_000i64..1_000_000_000) {
            let sum = Quantity::from_milli(a) + Quantity::from_milli(b);
            proptest::prop_assert_eq!(sum, Quantity::from_milli(a + b));
            proptest::prop_assert_eq!(sum.cmp(&Quantity::from_milli(a)), b.cmp(&0));
        }
    }
}
