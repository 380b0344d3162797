//! When a schedule fires: pure, in the time zone it is written for.
//!
//! Where clocks go forward, a fixed time that does not exist fires at the first moment after the gap; where they go back, a
//! fixed time fires once, the first time. Schedules with `*` or steps in minutes or hours follow the clock as it shows.

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A schedule and its time zone.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

/// Why there is no such schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// It is no schedule.
    #[error("is no schedule of five fields, such as \"30 6 * * MON-FRI\": {0}")]
    Cron(String),
    /// It never fires.
    #[error("never fires")]
    Never,
    /// There is no such time zone.
    #[error("is no time zone, such as Europe/Berlin")]
    Zone,
}

impl Schedule {
    /// A schedule of five fields, or `@hourly` and the like, in this time zone; UTC where it is empty.
    ///
    /// # Errors
    /// Where it is none, or never fires.
    pub fn new(cron: &str, zone: &str) -> Result<Self, ScheduleError> {
        let zone =
            if zone.is_empty() { TimeZone::UTC } else { TimeZone::get(zone).map_err(|_| ScheduleError::Zone)? };
        if cron.len() > 200 {
            return Err(ScheduleError::Cron("it is too long".to_owned()));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).build();
        let cron = parser.parse(cron).map_err(|e| ScheduleError::Cron(e.to_string()))?;
        let schedule = Self { cron, zone };
        // From a fixed moment: whether a schedule is one must not depend on when somebody asks.
        let start = Timestamp::from_second(1_700_000_000).unwrap_or(Timestamp::UNIX_EPOCH);
        schedule.next(start).ok_or(ScheduleError::Never)?;
        Ok(schedule)
    }

    /// The first time after this moment.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let found = self.cron.find_next_occurrence(&after.to_zoned(self.zone.clone()), false).ok()?;
        Some(found.timestamp()).filter(|next| *next > after)
    }

    /// The last time that is due at `now` and comes after `since`, and how many came before it.
    pub fn due(&self, since: Timestamp, now: Timestamp) -> Option<(Timestamp, u64)> {
        /// After so many missed times it does not matter which one it was.
        const MOST: u64 = 10_000;
        let mut last = self.next(since).filter(|next| *next <= now)?;
        let mut before = 0;
        while let Some(next) = self.next(last).filter(|next| *next <= now) {
            last = next;
            before += 1;
            if before >= MOST {
                // The one before now is found from near it.
                return self
                    .due(now - jiff::SignedDuration::from_hours(2), now)
                    .map(|(last, _)| (last, before))
                    .or(Some((last, before)));
            }
        }
        Some((last, before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::new(cron, zone).unwrap();
        let mut at: Timestamp = from.parse().unwrap();
        (0..count)
            .map(|_| {
                at = schedule.next(at).unwrap();
                at.to_string()
            })
            .collect()
    }

    #[test]
    fn schedules_follow_their_time_zone_through_changes_of_clocks() {
        let table: [(&str, &str, &str, &[&str]); 10] = [
            (
                "*/20 * * * *",
                "",
                "2026-01-01T00:05:00Z",
                &["2026-01-01T00:20:00Z", "2026-01-01T00:40:00Z", "2026-01-01T01:00:00Z"],
            ),
            (
                "30 6 * * MON-FRI",
                "Europe/Berlin",
                "2026-11-20T12:00:00Z",
                &["2026-11-23T05:30:00Z", "2026-11-24T05:30:00Z"],
            ),
            // Noon stays noon where summer time begins (29 March) and ends (25 October).
            (
                "0 12 * * *",
                "Europe/Berlin",
                "2026-03-28T00:00:00Z",
                &["2026-03-28T11:00:00Z", "2026-03-29T10:00:00Z", "2026-03-30T10:00:00Z"],
            ),
            ("0 12 * * *", "Europe/Berlin", "2026-10-24T00:00:00Z", &["2026-10-24T10:00:00Z", "2026-10-25T11:00:00Z"]),
            // 2:30 does not exist on 29 March: it fires when clocks jump to 3.
            ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]),
            // 2:30 comes twice on 25 October: it fires once, the first time.
            ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]),
            // Every half hour goes on through both.
            (
                "*/30 * * * *",
                "Europe/Berlin",
                "2026-10-25T00:10:00Z",
                &["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"],
            ),
            (
                "*/30 * * * *",
                "Europe/Berlin",
                "2026-03-29T00:10:00Z",
                &["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z"],
            ),
            // Half an hour of summer time.
            (
                "0 2 * * *",
                "Australia/Lord_Howe",
                "2026-10-02T00:00:00Z",
                &["2026-10-02T15:30:00Z", "2026-10-03T15:30:00Z"],
            ),
            (
                "0 0 29 2 *",
                "America/New_York",
                "2026-01-01T00:00:00Z",
                &["2028-02-29T05:00:00Z", "2032-02-29T05:00:00Z"],
            ),
        ];
        for (cron, zone, from, want) in table {
            assert_eq!(times(cron, zone, from, want.len()), want, "{cron} {zone}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_told() {
        for bad in ["", "* * * *", "60 * * * *", "* * * * * *", "x", "0 0 1 13 *", &"*".repeat(300)] {
            assert!(matches!(Schedule::new(bad, ""), Err(ScheduleError::Cron(_))), "{bad}");
        }
        assert_eq!(Schedule::new("0 0 30 2 *", "").unwrap_err(), ScheduleError::Never);
        assert_eq!(Schedule::new("@hourly", "Mars/Olympus").unwrap_err(), ScheduleError::Zone);
        assert!(Schedule::new("@daily", "Asia/Tokyo").is_ok());
    }

    #[test]
    fn of_missed_times_the_last_is_due() {
        let schedule = Schedule::new("0 * * * *", "").unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(schedule.due(at("2026-01-01T00:00:00Z"), at("2026-01-01T00:59:59Z")), None);
        assert_eq!(
            schedule.due(at("2026-01-01T00:00:00Z"), at("2026-01-01T01:00:00Z")),
            Some((at("2026-01-01T01:00:00Z"), 0))
        );
        assert_eq!(
            schedule.due(at("2026-01-01T00:00:00Z"), at("2026-01-01T03:30:00Z")),
            Some((at("2026-01-01T03:00:00Z"), 2))
        );
        let often = Schedule::new("* * * * *", "").unwrap();
        assert_eq!(
            often.due(at("2020-01-01T00:00:00Z"), at("2026-01-01T00:00:30Z")).unwrap().0,
            at("2026-01-01T00:00:00Z")
        );
    }
}
