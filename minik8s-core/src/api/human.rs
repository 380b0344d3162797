//! Durations as tables show them, and numbers that may be percentages.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// How long something has lasted, in at most two units: `5s`, `2m47s`, `3h10m`, `5d2h`.
pub fn age(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match () {
        () if seconds < -1 => "<invalid>".into(),
        () if seconds < 0 => "0s".into(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 192 => two(days, "d", hours % 24, "h"),
        () if days < 365 * 2 => format!("{days}d"),
        () if days < 365 * 8 => two(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}

fn two(major: i64, unit: &str, minor: i64, small: &str) -> String {
    if minor == 0 { format!("{major}{unit}") } else { format!("{major}{unit}{minor}{small}") }
}

/// The age of a moment given as RFC 3339; `<unknown>` where it is missing or no time.
pub fn age_since(moment: Option<&str>, now: Timestamp) -> String {
    match moment.and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(moment) => age(now.duration_since(moment)),
        None => "<unknown>".into(),
    }
}

/// A number as it is, or a percentage (`"25%"`) of `total`, rounded up or down. `None` where it is neither.
pub fn scaled(value: &Value, total: i32, round_up: bool) -> Option<i32> {
    if let Some(number) = value.as_i64() {
        return i32::try_from(number).ok();
    }
    let percent: i64 = value.as_str()?.strip_suffix('%')?.parse().ok()?;
    let product = percent.checked_mul(i64::from(total))?;
    let down = product.div_euclid(100);
    let up = round_up && product.rem_euclid(100) != 0;
    i32::try_from(down + i64::from(up)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ages_have_at_most_two_units() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (5, "5s"),
            (119, "119s"),
            (120, "2m"),
            (167, "2m47s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600 + 600, "3h10m"),
            (8 * 3600, "8h"),
            (47 * 3600, "47h"),
            (48 * 3600, "2d"),
            (122 * 3600, "5d2h"),
            (8 * 86400 + 5, "8d"),
            (729 * 86400, "729d"),
            (731 * 86400, "2y1d"),
            (730 * 86400, "2y"),
            (365 * 9 * 86400, "9y"),
        ] {
            assert_eq!(age(SignedDuration::from_secs(seconds)), text);
        }
        let now: Timestamp = "2026-01-01T00:02:00Z".parse().unwrap();
        assert_eq!(age_since(Some("2026-01-01T00:00:00Z"), now), "2m");
        assert_eq!(age_since(None, now), "<unknown>");
    }

    #[test]
    fn percentages_round_as_asked() {
        assert_eq!(scaled(&json!("25%"), 10, true), Some(3));
        assert_eq!(scaled(&json!("25%"), 10, false), Some(2));
        assert_eq!(scaled(&json!("100%"), 7, true), Some(7));
        assert_eq!(scaled(&json!(4), 10, true), Some(4));
        for bad in [json!("25"), json!("x%"), json!(null), json!(1.5)] {
            assert_eq!(scaled(&bad, 10, true), None);
        }
    }
}
