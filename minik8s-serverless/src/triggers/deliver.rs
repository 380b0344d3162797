//! Brings deliveries to what they call: again after a pause where that fails, until it has failed often enough. What came of
//! each attempt is in its status; what is dead stays to be looked at.
//!
//! Workers only see what is due and put it into the lane of its trigger; calls run beside them, so many at once of each.

use super::emit::{TRIGGER_LABEL, is_hopeless};
use super::objects::{DeliveryStatus, Trigger, TriggerDelivery};
use crate::lanes::{Crew, Errand};
use crate::workflow::program::Target;
use crate::workflow::{Failure, Heartbeat, Invocation, Invoker, RunSpec, WorkflowRun};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use minik8s_core::api::{ApiError, ApiResult};
use minik8s_core::client::{Backoff, Change, DeleteOptions, EventType, Informer, WorkQueue, key_of, reference_of};
use minik8s_core::clock::rfc3339;
use minik8s_core::controllers::{Controller, ControllerContext, Outcome, Reconciler, pump, run_workers};
use minik8s_core::random;
use std::sync::Arc;
use std::time::Duration;

const ATTEMPTS: i64 = 5;
const KEEP_DELIVERED: i64 = 20;
const KEEP_DEAD: i64 = 100;
/// A call of a function takes at most this long.
const LONGEST: Duration = Duration::from_secs(600);
/// Calls of a trigger under way at once, where it does not say how many, and of all triggers.
const ROOM: i64 = 10;
const AT_ONCE: usize = 1000;
/// Wait before what came of an attempt is written again.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(10));
/// Bytes of a message where a longer one is refused.
const SHORT: usize = 200;
/// The index of deliveries that are over by their trigger.
const OVER: &str = "over";

/// Brings deliveries to what they call.
pub(super) struct DeliveryController {
    pub(super) config: crate::workflow::WorkflowsConfig,
    pub(super) workers: usize,
}

#[async_trait]
impl Controller for DeliveryController {
    fn name(&self) -> &str {
        "trigger-delivery-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let (deliveries, triggers) = (ctx.informers.of::<TriggerDelivery>(), ctx.informers.of::<Trigger>());
        deliveries.add_index(OVER, |d: &TriggerDelivery| if is_over(d) { vec![lane_of(d)] } else { Vec::new() });
        let queue: WorkQueue<String> = ctx.queue();
        pump(&ctx, &deliveries, {
            let queue = queue.clone();
            move |change| {
                if let Change::Applied { new, .. } = change {
                    queue.add(key_of(&**new));
                }
            }
        });
        if !(deliveries.synced().await && triggers.synced().await) {
            return;
        }
        let invoker = self.config.invoker(&ctx);
        let deliverer = Arc::new(Deliverer { ctx: ctx.clone(), deliveries, triggers, invoker });
        let crew = Crew::new(deliverer.clone(), AT_ONCE, queue.clone(), ctx.stop.clone());
        run_workers(&ctx, &queue, self.workers.max(1), Arc::new(Lookout { deliverer, crew })).await;
    }
}

/// The lane of a delivery: the key of its trigger.
fn lane_of(delivery: &TriggerDelivery) -> String {
    format!("{}/{}", delivery.metadata.namespace.as_deref().unwrap_or_default(), delivery.spec.trigger)
}

fn is_over(delivery: &TriggerDelivery) -> bool {
    delivery.status.as_ref().is_some_and(|status| matches!(status.phase.as_str(), "Delivered" | "Dead"))
}

struct Deliverer {
    ctx: ControllerContext,
    deliveries: Informer<TriggerDelivery>,
    triggers: Informer<Trigger>,
    invoker: Arc<dyn Invoker>,
}

/// Sees which deliveries are due.
struct Lookout {
    deliverer: Arc<Deliverer>,
    crew: Arc<Crew<Deliverer>>,
}

#[async_trait]
impl Reconciler for Lookout {
    type Key = String;

    async fn reconcile(&self, key: &String) -> ApiResult<Outcome> {
        let of = &self.deliverer;
        let Some(delivery) = of.deliveries.get(key) else {
            self.crew.forget(key);
            return Ok(Outcome::Done);
        };
        if is_over(&delivery) {
            self.crew.forget(key);
            of.forget(&delivery).await?;
            return Ok(Outcome::Done);
        }
        let status = delivery.status.clone().unwrap_or_default();
        if let Some(pause) = pause(&status, of.ctx.clock.now()) {
            return Ok(Outcome::After(pause));
        }
        let room = of.trigger(&delivery).and_then(|trigger| trigger.spec.max_concurrency).unwrap_or(ROOM);
        self.crew.add(&lane_of(&delivery), usize::try_from(room).unwrap_or(1), key);
        Ok(Outcome::Done)
    }
}

/// How long it is until the next attempt.
fn pause(status: &DeliveryStatus, now: Timestamp) -> Option<Duration> {
    let next: Timestamp = status.next_attempt.as_ref()?.parse().ok()?;
    Duration::try_from(next.duration_since(now)).ok().filter(|pause| !pause.is_zero())
}

/// What a delivery is after an attempt. Pure.
fn settle(
    delivery: &TriggerDelivery,
    before: DeliveryStatus,
    result: Result<String, Failure>,
    now: Timestamp,
    dice: f64,
) -> DeliveryStatus {
    let attempts = before.attempts + 1;
    let base = DeliveryStatus { attempts, next_attempt: None, ..before };
    let failure = match result {
        Ok(run) => {
            let finished_at = Some(rfc3339(now));
            return DeliveryStatus { phase: "Delivered".into(), message: String::new(), run, finished_at, ..base };
        }
        Err(failure) => failure,
    };
    let message = format!("{}: {}", failure.error, failure.cause);
    let retry = delivery.spec.retry.clone().unwrap_or_default();
    if attempts >= retry.max_attempts.unwrap_or(ATTEMPTS) {
        return DeliveryStatus { phase: "Dead".into(), message, finished_at: Some(rfc3339(now)), ..base };
    }
    let seconds = |given: Option<f64>, default: f64| Duration::from_secs_f64(given.unwrap_or(default).clamp(0.0, 1e6));
    let backoff = Backoff::new(seconds(retry.interval_seconds, 1.0), seconds(retry.max_delay_seconds, 300.0));
    let pause = backoff.jittered(u32::try_from(attempts).unwrap_or(u32::MAX), dice);
    let next = now.saturating_add(SignedDuration::try_from(pause).unwrap_or_default()).unwrap_or(now);
    DeliveryStatus { phase: "Pending".into(), message, next_attempt: Some(next.to_string()), ..base }
}

/// What is said of a delivery whose state can never be written: that it is over, in a few words. Pure.
fn bare(status: &DeliveryStatus, error: &ApiError, now: Timestamp) -> DeliveryStatus {
    let phase = if status.phase == "Delivered" { "Delivered" } else { "Dead" };
    let mut message = format!("what came of it cannot be written: {error}");
    message.truncate(message.floor_char_boundary(SHORT));
    DeliveryStatus {
        phase: phase.to_owned(),
        attempts: status.attempts,
        message,
        finished_at: Some(rfc3339(now)),
        ..DeliveryStatus::default()
    }
}

/// Makes one attempt, and writes what came of it.
#[async_trait]
impl Errand for Deliverer {
    async fn run(&self, key: &str) -> ApiResult<()> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let api = self.ctx.client.api::<TriggerDelivery>(namespace);
        // What the informer has not seen yet counts.
        let Some(delivery) = api.get_opt(name).await? else { return Ok(()) };
        let before = delivery.status.clone().unwrap_or_default();
        if is_over(&delivery) || pause(&before, self.ctx.clock.now()).is_some() {
            return Ok(());
        }
        let result = self.attempt(&delivery).await;
        let next = settle(&delivery, before, result, self.ctx.clock.now(), random::fraction());
        if let Some(dead) = self.write(key, delivery.clone(), next).await.filter(|written| written.phase == "Dead") {
            self.tell(&delivery, "DeliveryDead", format!("The delivery {name} is given up: {}", dead.message));
        }
        Ok(())
    }
}

impl Deliverer {
    /// Writes what came of an attempt, however long that takes: what was called is not called again for a write that
    /// failed. What can never be written ends the delivery. Answers with what was written.
    async fn write(&self, key: &str, mut delivery: TriggerDelivery, next: DeliveryStatus) -> Option<DeliveryStatus> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let api = self.ctx.client.api::<TriggerDelivery>(namespace);
        let (mut next, mut is_bare, mut failures) = (next, false, 0);
        loop {
            delivery.status = Some(next.clone());
            let Err(error) = api.update_status(&delivery).await else { return Some(next) };
            if is_hopeless(&error) {
                if is_bare {
                    let note = format!("What came of the delivery {name} cannot be written: {error}");
                    self.tell(&delivery, "DeliveryNotWritten", note);
                    return None;
                }
                (next, is_bare) = (bare(&next, &error, self.ctx.clock.now()), true);
                continue;
            }
            failures += 1;
            tracing::debug!(%error, delivery = key, "what came of a delivery cannot be written now");
            tokio::time::sleep(AGAIN.jittered(failures, random::fraction())).await;
            match api.get_opt(name).await {
                Ok(Some(now)) if now.metadata.uid == delivery.metadata.uid && !is_over(&now) => delivery = now,
                Ok(_) => return None,
                Err(_) => {}
            }
        }
    }

    /// Tells whoever looks at the trigger of a delivery.
    fn tell(&self, delivery: &TriggerDelivery, reason: &str, note: String) {
        if let Some(trigger) = self.trigger(delivery) {
            self.ctx.events.event(&reference_of(&*trigger), EventType::Warning, reason, note);
        }
    }

    fn trigger(&self, delivery: &TriggerDelivery) -> Option<Arc<Trigger>> {
        self.triggers.get(&lane_of(delivery))
    }

    /// Calls the target, under the key of the delivery; answers with the run it began.
    async fn attempt(&self, delivery: &TriggerDelivery) -> Result<String, Failure> {
        let namespace = delivery.metadata.namespace.clone().unwrap_or_default();
        let name = delivery.metadata.name.clone().unwrap_or_default();
        if let Some(workflow) = &delivery.spec.target.workflow {
            // The run has the delivery's name: it begins once.
            let run = WorkflowRun {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    namespace: Some(namespace.clone()),
                    labels: delivery.metadata.labels.clone().filter(|labels| labels.contains_key(TRIGGER_LABEL)),
                    ..ObjectMeta::default()
                },
                spec: RunSpec {
                    workflow: workflow.name.clone(),
                    input: Some(delivery.spec.input.clone()),
                    ..RunSpec::default()
                },
                status: None,
            };
            return match self.ctx.client.api::<WorkflowRun>(&namespace).create(&run).await {
                Err(e) if !e.is_already_exists() => Err(Failure::new("Unavailable", e.to_string())),
                _ => Ok(name),
            };
        }
        let mut function = delivery.spec.target.function.clone().unwrap_or_default();
        if function.namespace.is_empty() {
            function.namespace.clone_from(&namespace);
        }
        let call = Invocation {
            // The name follows from the event: if it comes again when nobody remembers it, it has the same key.
            key: format!("{namespace}/{name}"),
            namespace,
            run: name,
            step: delivery.spec.trigger.clone(),
            target: Target::Function(function),
            input: delivery.spec.input.clone(),
        };
        let alive = Heartbeat::default();
        let answer = tokio::time::timeout(LONGEST, self.invoker.invoke(&call, &alive)).await;
        answer
            .unwrap_or_else(|_| Err(Failure::new("Timeout", "the call took longer than any may")))
            .map(|_| String::new())
    }

    /// Deletes the oldest of a trigger's deliveries that are over, beyond those that are kept.
    async fn forget(&self, delivery: &TriggerDelivery) -> ApiResult<()> {
        let namespace = delivery.metadata.namespace.as_deref().unwrap_or_default();
        let spec = self.trigger(delivery).map(|trigger| trigger.spec.clone()).unwrap_or_default();
        let all = self.deliveries.list_by(OVER, &lane_of(delivery));
        let kept = [
            ("Delivered", spec.keep_delivered.unwrap_or(KEEP_DELIVERED)),
            ("Dead", spec.keep_dead.unwrap_or(KEEP_DEAD)),
        ];
        for (phase, keep) in kept {
            let is = |d: &&Arc<TriggerDelivery>| d.status.as_ref().is_some_and(|s| s.phase == phase);
            let mut over: Vec<_> = all.iter().filter(is).collect();
            over.sort_by_key(|d| d.metadata.creation_timestamp.as_ref().map(|t| t.0));
            let excess = over.len().saturating_sub(usize::try_from(keep).unwrap_or_default());
            for old in over.into_iter().take(excess) {
                let name = old.metadata.name.as_deref().unwrap_or_default();
                match self.ctx.client.api::<TriggerDelivery>(namespace).delete(name, &DeleteOptions::default()).await {
                    Err(e) if !e.is_not_found() => return Err(e),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::objects::{DeliveryRetry, DeliverySpec};
    use super::*;

    #[test]
    fn failures_are_tried_again_later_and_later_and_then_given_up() {
        let retry =
            Some(DeliveryRetry { max_attempts: Some(3), interval_seconds: Some(2.0), max_delay_seconds: Some(60.0) });
        let delivery =
            TriggerDelivery { spec: DeliverySpec { retry, ..DeliverySpec::default() }, ..TriggerDelivery::default() };
        let now = Timestamp::from_second(1_000).unwrap();
        let fail = || Err(Failure::new("TaskFailed", "no"));
        let one = settle(&delivery, DeliveryStatus::default(), fail(), now, 1.0);
        assert_eq!((one.phase.as_str(), one.attempts, pause(&one, now)), ("Pending", 1, Some(Duration::from_secs(2))));
        let two = settle(&delivery, one, fail(), now, 1.0);
        assert_eq!(pause(&two, now), Some(Duration::from_secs(4)));
        let dead = settle(&delivery, two.clone(), fail(), now, 1.0);
        assert_eq!(
            (dead.phase.as_str(), dead.attempts, dead.message.as_str(), pause(&dead, now)),
            ("Dead", 3, "TaskFailed: no", None)
        );
        let done = settle(&delivery, two, Ok("r".into()), now, 1.0);
        assert_eq!((done.phase.as_str(), done.run.as_str(), done.message.as_str()), ("Delivered", "r", ""));
    }

    #[test]
    fn what_can_never_be_written_is_over_in_a_few_words() {
        let now = Timestamp::from_second(1_000).unwrap();
        let error = ApiError::bad_request("ä".repeat(1000));
        for (phase, want) in [("Pending", "Dead"), ("Dead", "Dead"), ("Delivered", "Delivered")] {
            let before = DeliveryStatus {
                phase: phase.into(),
                attempts: 2,
                message: "x".repeat(1 << 20),
                next_attempt: Some(now.to_string()),
                ..DeliveryStatus::default()
            };
            let status = bare(&before, &error, now);
            assert_eq!((status.phase.as_str(), status.attempts, &status.next_attempt), (want, 2, &None));
            assert!(status.message.len() <= SHORT && status.message.starts_with("what came of it"));
            let delivery = TriggerDelivery { status: Some(status), ..TriggerDelivery::default() };
            assert!(is_over(&delivery));
        }
    }
}
