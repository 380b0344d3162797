//! One look at a run.

use super::calls::Calls;
use super::live::{Live, Lives};
use super::load;
use crate::workflow::invoker::Invocation;
use crate::workflow::machine::{Call, Event, Failure, Happened, Machine, Phase, Stimulus, Transition};
use crate::workflow::objects::{RunFailure, RunStatus, Workflow, WorkflowRun};
use crate::workflow::program::{Millis, Target};
use crate::workflow::records::{INLINE, Records};
use crate::workflow::size::length;
use async_trait::async_trait;
use jiff::Timestamp;
use minik8s_core::api::{ApiError, ApiResult, Reason};
use minik8s_core::client::{Client, EventType, Informer, WorkQueue, reference_of};
use minik8s_core::clock::rfc3339;
use minik8s_core::controllers::{ControllerContext, Outcome, Reconciler, controller_reference};
use minik8s_core::random;
use serde_json::{Value, json};
use std::time::Duration;

/// Events that stand in the run itself; more are sealed into a record.
const TAIL: usize = 64;
/// So are they where they are longer than this.
const TAIL_BYTES: usize = 48 << 10;
/// How often a write is tried again that met another one.
const RETRIES: usize = 10;
/// The longest sleep: clocks step.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);

pub(super) struct RunReconciler {
    pub(super) ctx: ControllerContext,
    pub(super) runs: Informer<WorkflowRun>,
    pub(super) workflows: Informer<Workflow>,
    pub(super) queue: WorkQueue<String>,
    pub(super) lives: Lives,
    pub(super) calls: Calls,
}

#[async_trait]
impl Reconciler for RunReconciler {
    type Key = String;

    async fn reconcile(&self, key: &String) -> ApiResult<Outcome> {
        let Some(seen) = self.runs.get(key) else {
            self.lives.take(key);
            self.lives.is_found(key);
            return Ok(Outcome::Done);
        };
        let known = self.lives.take(key).filter(|live| Some(live.uid()) == seen.metadata.uid.as_deref());
        if known.is_none() && is_over(&seen) {
            return Ok(Outcome::Done);
        }
        let mut live = match known {
            Some(live) if !live.stale => live,
            known => match self.find(key, known).await? {
                Some(live) => live,
                None => return Ok(Outcome::Done),
            },
        };
        let outcome = self.carry_on(key, &mut live, seen.spec.cancel).await;
        if live.state.phase.is_over() {
            self.tell_end(&live);
        } else {
            self.lives.put(key, live);
        }
        outcome
    }
}

fn is_over(run: &WorkflowRun) -> bool {
    let phase = run.status.as_ref().map(|status| status.phase.as_str()).unwrap_or_default();
    matches!(phase, "Succeeded" | "Failed" | "Cancelled")
}

impl RunReconciler {
    fn client(&self) -> &Client {
        &self.ctx.client
    }

    fn now(&self) -> Millis {
        self.ctx.clock.now().as_millisecond()
    }

    /// An error that is no reason to forget what a run's effects have brought, and those that are still under way.
    fn put_back(&self, key: &str, known: Option<Live>, error: ApiError) -> ApiError {
        known.into_iter().for_each(|known| self.lives.put(key, known));
        error
    }

    /// A run that this process does not know, or not well: what the API says, not what the informer has seen of it so far.
    async fn find(&self, key: &str, known: Option<Live>) -> ApiResult<Option<Live>> {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let mut run = match self.client().api::<WorkflowRun>(namespace).get_opt(name).await {
            Ok(Some(run)) => run,
            Ok(None) => return Ok(None),
            Err(error) => return Err(self.put_back(key, known, error)),
        };
        if is_over(&run) || run.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let mut status = run.status.clone().unwrap_or_default();
        if status.revision.is_empty() {
            let Some(workflow) = self.workflows.get(&format!("{namespace}/{}", run.spec.workflow)) else {
                self.wait_for_workflow(&run, status).await?;
                return Ok(None);
            };
            status.revision = load::revision(self.client(), &self.lives, &workflow).await?;
            status.message.clear();
            run.status = Some(status);
        }
        let mut live = match load::load(self.client(), &self.lives, run).await {
            Ok(live) => live,
            Err(error) if matches!(error.reason, Reason::NotFound | Reason::Invalid) && self.is_gone(key) => {
                self.lose(namespace, name, &error).await?;
                self.lives.is_found(key);
                return Ok(None);
            }
            Err(error) => return Err(self.put_back(key, known, error)),
        };
        self.lives.is_found(key);
        if let Some(known) = known {
            (live.inbox, live.calls) = (known.inbox, known.calls);
        }
        let outstanding = self.machine(&live).outstanding(&live.state);
        if !outstanding.is_empty() {
            live.stale = true;
            let mut taken = live.run.clone();
            taken.status.get_or_insert_default().history.epoch += 1;
            // Whoever had the run before may just be writing that one of these is done. After this, that fails.
            match self.client().api::<WorkflowRun>(namespace).update_status(&taken).await {
                Ok(written) => (live.run, live.stale) = (written, false),
                Err(error) => {
                    self.lives.put(key, live);
                    return Err(error);
                }
            }
        }
        // What may not have been done is done, under the keys it had.
        for call in outstanding {
            if !live.calls.contains_key(&call.key) {
                self.begin(key, &mut live, call);
            }
        }
        Ok(Some(live))
    }

    fn is_gone(&self, key: &str) -> bool {
        self.lives.is_gone(key, tokio::time::Instant::now())
    }

    /// Ends a run whose records are gone: nobody can carry it on.
    async fn lose(&self, namespace: &str, name: &str, error: &ApiError) -> ApiResult<()> {
        let api = self.client().api::<WorkflowRun>(namespace);
        let Some(mut run) = api.get_opt(name).await?.filter(|run| !is_over(run)) else { return Ok(()) };
        let status = run.status.get_or_insert_default();
        let failure = Failure::new("HistoryLost", format!("what the run stands on cannot be read any more: {error}"));
        let step = status.step.clone();
        let what = Happened::RunFailed { step: step.clone(), failure: failure.clone() };
        let event = serde_json::to_value(Event { at: self.now(), what });
        status.history.tail.push(event.map_err(|e| ApiError::internal(e.to_string()))?);
        status.history.events += 1;
        status.phase = "Failed".to_owned();
        status.finished_at = Some(rfc3339(self.ctx.clock.now()));
        status.message = format!("{}: {}", failure.error, failure.cause);
        status.failure = Some(RunFailure { step, error: failure.error, cause: failure.cause });
        let message = status.message.clone();
        let run = api.update_status(&run).await?;
        self.ctx.events.event(&reference_of(&run), EventType::Warning, "RunFailed", message);
        Ok(())
    }

    async fn wait_for_workflow(&self, run: &WorkflowRun, status: RunStatus) -> ApiResult<()> {
        let message = format!("there is no Workflow {:?}", run.spec.workflow);
        let phase = if run.spec.cancel { "Cancelled" } else { "Pending" };
        if status.message == message && status.phase == phase {
            return Ok(());
        }
        let status = Some(RunStatus { phase: phase.to_owned(), message: message.clone(), ..status });
        self.client().api::<WorkflowRun>("").update_status(&WorkflowRun { status, ..run.clone() }).await?;
        self.ctx.events.event(&reference_of(run), EventType::Warning, "WorkflowNotFound", message);
        Ok(())
    }

    fn machine<'a>(&self, live: &'a Live) -> Machine<'a> {
        let timeout = live.run.spec.timeout_seconds.map(|s| (s * 1000.0) as Millis);
        Machine { workflow: &live.workflow, timeout, uid: live.uid(), about: &live.about }
    }

    /// Decides, commits, and only then acts.
    async fn carry_on(&self, key: &str, live: &mut Live, cancel: bool) -> ApiResult<Outcome> {
        let mut stimuli = std::mem::take(&mut *live.inbox.lock());
        if live.state.phase == Phase::Pending {
            let input = live.run.spec.input.clone().unwrap_or_else(|| live.workflow.input.clone());
            stimuli.insert(0, Stimulus::Start(input));
        }
        if cancel {
            stimuli.push(Stimulus::Cancel);
        }
        let state = std::mem::take(&mut live.state);
        let turn = self.machine(live).step(state, stimuli.iter().cloned(), self.now(), &mut random::fraction);
        let done = stimuli.into_iter().filter(|stimulus| matches!(stimulus, Stimulus::Done { .. }));
        if !turn.events.is_empty() {
            if let Err(error) = self.commit(live, &turn).await {
                live.stale = true;
                live.inbox.lock().splice(0..0, done);
                return Err(error);
            }
            self.tell(live, &turn.events);
        }
        let Transition { calls, more, state, events } = turn;
        live.state = state;
        for stimulus in done {
            if let Stimulus::Done { key, .. } = stimulus {
                live.calls.remove(&key);
            }
        }
        self.drop_calls(live, &events);
        for call in calls {
            self.begin(key, live, call);
        }
        if more {
            self.queue.add(key.to_owned());
        }
        let due = self.machine(live).next_due(&live.state);
        Ok(due.map_or(Outcome::Done, |due| {
            let pause = Duration::from_millis(due.saturating_sub(self.now()).max(1).unsigned_abs());
            Outcome::After(pause.min(LONGEST_SLEEP))
        }))
    }

    /// Drops the tasks that nobody waits for any more.
    fn drop_calls(&self, live: &mut Live, events: &[Event]) {
        let drops = |event: &Event| {
            matches!(
                event.what,
                Happened::StepRetried { .. }
                    | Happened::StepCaught { .. }
                    | Happened::StepFailed { .. }
                    | Happened::RunCancelled
                    | Happened::RunFailed { .. }
            )
        };
        if !live.calls.is_empty() && events.iter().any(drops) {
            let open: std::collections::HashSet<String> =
                self.machine(live).outstanding(&live.state).into_iter().map(|call| call.key).collect();
            live.calls.retain(|key, _| open.contains(key));
        }
    }

    fn begin(&self, key: &str, live: &mut Live, call: Call) {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let mut target = call.target;
        if let Target::Function(function) = &mut target
            && function.namespace.is_empty()
        {
            namespace.clone_into(&mut function.namespace);
        }
        let invocation = Invocation {
            key: call.key.clone(),
            namespace: namespace.to_owned(),
            run: name.to_owned(),
            step: call.step,
            target,
            input: call.input,
        };
        let (queue, again) = (self.queue.clone(), key.to_owned());
        let lane = format!("{namespace}/{}", live.run.spec.workflow);
        let inbox = live.inbox.clone();
        let guard = self.calls.begin(invocation, lane, call.heartbeat, inbox, move || queue.add(again));
        live.calls.insert(call.key, guard);
    }

    /// Writes what happened, if nobody has written the run since it was read. Where that fails, the run is read anew.
    async fn commit(&self, live: &mut Live, turn: &Transition) -> ApiResult<()> {
        let mut status = live.run.status.clone().unwrap_or_default();
        let namespace = live.run.metadata.namespace.clone().unwrap_or_default();
        let owner = controller_reference(&live.run);
        let records = Records {
            client: self.client(),
            namespace: &namespace,
            of: &owner.name,
            owner: Some(&owner),
            annotations: None,
        };
        let history = &mut status.history;
        for event in &turn.events {
            let value = serde_json::to_value(event).map_err(|e| ApiError::internal(e.to_string()))?;
            history.tail.push(records.pack(value).await?);
        }
        history.events += turn.events.len() as u64;
        if history.tail.len() > TAIL || total(&history.tail) > TAIL_BYTES {
            let part = json!({"before": history.sealed, "events": std::mem::take(&mut history.tail)});
            history.sealed = records.put(&part).await?;
        }
        show(&mut status, turn);
        if let Some(output) = &turn.state.output {
            let packed = records.pack(json!({ "output": output })).await?;
            status.output = packed.get("output").cloned();
        }
        self.write(live, status).await
    }

    /// Writes the status. Somebody may have written other parts of the run meanwhile; only where it was the history, this
    /// is not the one who carries the run on.
    async fn write(&self, live: &mut Live, status: RunStatus) -> ApiResult<()> {
        let api = self.client().api::<WorkflowRun>(live.run.metadata.namespace.as_deref().unwrap_or_default());
        let before = live.run.status.as_ref().map(|status| status.history.clone()).unwrap_or_default();
        let mut run = WorkflowRun { status: Some(status), ..live.run.clone() };
        for _ in 0..RETRIES {
            match api.update_status(&run).await {
                Ok(written) => {
                    live.run = written;
                    return Ok(());
                }
                Err(error) if error.is_conflict() => {
                    let now = api.get(run.metadata.name.as_deref().unwrap_or_default()).await?;
                    let history = now.status.as_ref().map(|status| status.history.clone()).unwrap_or_default();
                    if now.metadata.uid != run.metadata.uid || history != before {
                        return Err(error);
                    }
                    (run.metadata, run.spec) = (now.metadata, now.spec);
                }
                Err(error) => return Err(error),
            }
        }
        Err(ApiError::internal("the run is written by others all the time"))
    }

    fn tell(&self, live: &Live, events: &[Event]) {
        let about = reference_of(&live.run);
        for event in events {
            match &event.what {
                Happened::RunStarted { .. } => {
                    self.ctx.events.event(&about, EventType::Normal, "RunStarted", "The run began");
                }
                Happened::StepRetried { frame, failure, until, .. } => {
                    let step = step_of(live, frame);
                    let seconds = until.saturating_sub(event.at) as f64 / 1000.0;
                    let note =
                        format!("{step}failed ({}: {}), tried again in {seconds} s", failure.error, failure.cause);
                    self.ctx.events.event(&about, EventType::Warning, "StepRetried", note);
                }
                Happened::StepCaught { frame, failure, next, .. } => {
                    let step = step_of(live, frame);
                    let note = format!("{step}failed ({}: {}), going on with {next}", failure.error, failure.cause);
                    self.ctx.events.event(&about, EventType::Warning, "StepCaught", note);
                }
                _ => {}
            }
        }
    }

    fn tell_end(&self, live: &Live) {
        let about = reference_of(&live.run);
        let message = live.run.status.as_ref().map(|status| status.message.clone()).unwrap_or_default();
        match live.state.phase {
            Phase::Succeeded => self.ctx.events.event(&about, EventType::Normal, "RunSucceeded", "The run is done"),
            Phase::Failed => self.ctx.events.event(&about, EventType::Warning, "RunFailed", message),
            _ => self.ctx.events.event(&about, EventType::Normal, "RunCancelled", "The run was stopped"),
        }
    }
}

/// The place of a frame, for people, with a blank after it.
fn step_of(live: &Live, frame: &str) -> String {
    let step = live.state.frames.get(frame).map(|frame| format!("{}{} ", frame.place, frame.step));
    step.unwrap_or_else(|| "A step ".to_owned())
}

fn total(events: &[Value]) -> usize {
    events.iter().map(length).sum()
}

/// What people see of the state.
fn show(status: &mut RunStatus, turn: &Transition) {
    let state = &turn.state;
    let moment = |millis: Millis| Timestamp::from_millisecond(millis).ok().map(rfc3339);
    status.phase = format!("{:?}", state.phase);
    status.started_at = moment(state.started);
    status.finished_at = state.finished.and_then(moment);
    status.steps.clone_from(&state.steps);
    status.failure = state.failure.as_ref().map(|(step, failure)| RunFailure {
        step: step.clone(),
        error: failure.error.clone(),
        cause: clip(&failure.cause),
    });
    status.message =
        status.failure.as_ref().map(|f| format!("step {}: {}: {}", f.step, f.error, f.cause)).unwrap_or_default();
    let mut at: Vec<&str> =
        state.steps.iter().filter(|(_, step)| step.running > 0).map(|(name, _)| name.as_str()).collect();
    if at.len() > 3 {
        at.truncate(3);
        at.push("…");
    }
    status.step = at.join(",");
}

/// Causes come from outside.
fn clip(text: &str) -> String {
    if text.len() <= INLINE { text.to_owned() } else { format!("{}…", &text[..text.floor_char_boundary(INLINE)]) }
}
