//! Schedules: sleeps until the next one is due.

use super::cloud_event::event;
use super::emit::{Emitter, is_hopeless};
use super::objects::{CronSource, Trigger, TriggerStatus};
use super::schedule::Schedule;
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use minik8s_core::api::ApiResult;
use minik8s_core::controllers::{Controller, ControllerContext};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const DEADLINE: i64 = 300;
/// Clocks step: nobody sleeps longer than this.
const LONGEST: Duration = Duration::from_secs(60);
/// Wait after a write that failed.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) struct CronController;

#[async_trait]
impl Controller for CronController {
    fn name(&self) -> &str {
        "trigger-cron-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let triggers = ctx.informers.of::<Trigger>();
        let mut changes = triggers.subscribe();
        if !triggers.synced().await {
            return;
        }
        let emitter = Emitter { client: ctx.client.clone(), events: ctx.events.clone() };
        loop {
            let mut pause = LONGEST;
            for trigger in triggers.list() {
                let Some(cron) = trigger.spec.cron.as_ref().filter(|_| !trigger.spec.suspend) else { continue };
                let wait = fire(&emitter, &trigger, cron, ctx.clock.now()).await;
                pause = pause.min(wait.unwrap_or_else(|error| {
                    tracing::debug!(%error, "a schedule cannot be followed now");
                    AGAIN
                }));
            }
            tokio::select! {
                biased;
                () = ctx.stop.cancelled() => return,
                change = changes.next() => if change.is_none() { return },
                () = tokio::time::sleep(pause) => {}
            }
            while changes.try_next().is_some() {}
        }
    }
}

/// What is to be done about a schedule. Pure.
#[derive(Debug, PartialEq)]
struct Step {
    /// Fires for this time.
    fire: Option<Timestamp>,
    /// The status after it.
    status: TriggerStatus,
    /// When to look again.
    next: Option<Timestamp>,
}

fn decide(trigger: &Trigger, cron: &CronSource, now: Timestamp) -> Option<Step> {
    let schedule = Schedule::new(&cron.schedule, &cron.time_zone).ok()?;
    let mut status = trigger.status.clone().unwrap_or_default();
    let made = trigger.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let last = status.last_schedule.as_ref().and_then(|t| t.parse().ok()).unwrap_or(made).max(made);
    let mut fire = None;
    if let Some((due, before)) = schedule.due(last, now) {
        let deadline = SignedDuration::from_secs(cron.starting_deadline_seconds.unwrap_or(DEADLINE));
        let late = now.duration_since(due) > deadline;
        status.missed += before + u64::from(late);
        fire = (!late).then_some(due);
        status.last_schedule = Some(due.to_string());
    }
    let next = schedule.next(now);
    status.next_schedule = next.map(|t| t.to_string());
    Some(Step { fire, status, next })
}

async fn fire(emitter: &Emitter, trigger: &Trigger, cron: &CronSource, now: Timestamp) -> ApiResult<Duration> {
    let Some(step) = decide(trigger, cron, now) else { return Ok(LONGEST) };
    let (namespace, name) = (
        trigger.metadata.namespace.as_deref().unwrap_or_default(),
        trigger.metadata.name.as_deref().unwrap_or_default(),
    );
    if let Some(due) = step.fire {
        let due = due.to_string();
        let source = format!("/apis/minik8s.io/v1alpha1/namespaces/{namespace}/triggers/{name}");
        let data = json!({"schedule": cron.schedule, "timeZone": cron.time_zone, "time": due});
        let told = event("io.minik8s.cron", &source, &due, &now.to_string(), data);
        match emitter.emit(trigger, told.clone()).await {
            Err(error) if is_hopeless(&error) => emitter.dropped(trigger, &told, &error),
            other => _ = other?,
        }
    }
    if trigger.status.as_ref() != Some(&step.status) {
        let written = Trigger { status: Some(step.status), ..trigger.clone() };
        emitter.client.api::<Trigger>(namespace).update_status(&written).await?;
    }
    let wait = step.next.map_or(LONGEST, |next| Duration::try_from(next.duration_since(now)).unwrap_or_default());
    Ok(wait.max(Duration::from_millis(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_fires_once_and_missed_ones_are_made_up_for_within_the_deadline() {
        let cron = CronSource { schedule: "0 * * * *".into(), ..CronSource::default() };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let trigger = |last: &str| -> Trigger {
            let status = if last.is_empty() { json!({}) } else { json!({"lastSchedule": last}) };
            serde_json::from_value(json!({"metadata": {"creationTimestamp": "2026-01-01T00:30:00Z"}, "status": status}))
                .unwrap()
        };
        let table = [
            ("", "2026-01-01T00:59:00Z", None, 0),
            ("", "2026-01-01T01:00:00Z", Some("2026-01-01T01:00:00Z"), 0),
            ("2026-01-01T01:00:00Z", "2026-01-01T01:00:30Z", None, 0),
            ("2026-01-01T01:00:00Z", "2026-01-01T04:02:00Z", Some("2026-01-01T04:00:00Z"), 2),
            ("2026-01-01T01:00:00Z", "2026-01-01T04:30:00Z", None, 3),
            // A trigger that was made again does not make up for what was before it.
            ("2025-01-01T01:00:00Z", "2026-01-01T00:59:00Z", None, 0),
        ];
        for (last, now, fire, missed) in table {
            let step = decide(&trigger(last), &cron, at(now)).unwrap();
            assert_eq!((step.fire, step.status.missed), (fire.map(at), missed), "{last} {now}");
            assert!(step.next.unwrap() > at(now));
        }
    }

    /// What fires where somebody looks every so many minutes, and each time knows no more than the status says.
    fn fired(schedule: &str, from: &str, to: &str, minutes: i64) -> Vec<String> {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let cron = CronSource {
            schedule: schedule.into(),
            time_zone: "Europe/Berlin".into(),
            starting_deadline_seconds: Some(86_400),
        };
        let mut trigger = Trigger::default();
        trigger.metadata.creation_timestamp = serde_json::from_value(json!(from)).expect("a time");
        let (mut now, mut fired) = (at(from), Vec::new());
        while now < at(to) {
            now += SignedDuration::from_mins(minutes);
            let step = decide(&trigger, &cron, now).unwrap();
            fired.extend(step.fire.map(|time| time.to_string()));
            // As it comes back from the API, to a process that was just started.
            let status = serde_json::to_value(&step.status).unwrap();
            trigger.status = Some(serde_json::from_value(status).unwrap());
        }
        fired
    }

    #[test]
    fn restarts_around_a_change_of_clocks_lose_no_time_and_repeat_none() {
        let table: [(&str, &str, &str, &[&str]); 4] = [
            // 2:30 does not exist on 29 March, and comes twice on 25 October.
            (
                "30 2 * * *",
                "2026-03-28T00:00:00Z",
                "2026-03-30T12:00:00Z",
                &["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
            ),
            (
                "30 2 * * *",
                "2026-10-24T00:00:00Z",
                "2026-10-26T12:00:00Z",
                &["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
            ),
            (
                "0 12 * * *",
                "2026-03-28T00:00:00Z",
                "2026-03-30T12:00:00Z",
                &["2026-03-28T11:00:00Z", "2026-03-29T10:00:00Z", "2026-03-30T10:00:00Z"],
            ),
            // Several hours are an interval, which goes through an hour that comes twice.
            (
                "0 1-3 25 10 *",
                "2026-10-24T22:00:00Z",
                "2026-10-25T12:00:00Z",
                &["2026-10-24T23:00:00Z", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"],
            ),
        ];
        for (schedule, from, to, want) in table {
            for minutes in [1, 7, 20, 30, 59] {
                assert_eq!(fired(schedule, from, to, minutes), want, "{schedule}, looked at every {minutes} minutes");
            }
        }
    }
}
