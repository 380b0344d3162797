//! One turn of a run: it takes one stimulus and goes on until everything waits. Every change of the state goes through an
//! event.

use super::event::{Event, Failure, Happened};
use super::state::{Activity, Phase, RunState, parent};
use super::{Machine, Stimulus, Transition};
use crate::expr::{Path, Template};
use crate::workflow::described;
use crate::workflow::program::{Action, Condition, Millis, Next, Rule, Step, WaitFor, names_error};
use crate::workflow::size::{LARGEST, is_longer, length};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::VecDeque;

/// Steps entered in one turn at most, so that a commit stays small.
const TURN: u64 = 100;
/// Items of one map at most.
const MAX_ITEMS: usize = 100_000;

pub(super) struct Turn<'a> {
    machine: &'a Machine<'a>,
    state: RunState,
    now: Millis,
    dice: &'a mut dyn FnMut() -> f64,
    events: Vec<Event>,
    /// Frames that may go on.
    ready: VecDeque<String>,
    /// Frames whose task began in this turn.
    begun: Vec<String>,
}

type Outcome<T> = Result<T, Failure>;

impl<'a> Turn<'a> {
    pub(super) fn new(
        machine: &'a Machine<'a>,
        state: RunState,
        now: Millis,
        dice: &'a mut dyn FnMut() -> f64,
    ) -> Self {
        Self { machine, state, now, dice, events: Vec::new(), ready: VecDeque::new(), begun: Vec::new() }
    }

    pub(super) fn take(&mut self, stimulus: Stimulus) {
        if self.state.phase.is_over() {
            return;
        }
        match stimulus {
            Stimulus::Start(input) if self.state.phase == Phase::Pending => self.emit(Happened::RunStarted { input }),
            Stimulus::Cancel => self.emit(Happened::RunCancelled),
            Stimulus::Done { key, result } if self.is_running() => self.done(&key, result),
            _ => {}
        }
    }

    /// Goes on as far as it can, and says what came of it.
    pub(super) fn end(mut self) -> Transition {
        if self.is_running() {
            self.expire();
            let moving = self.state.frames.iter().filter(|(_, frame)| is_moving(&frame.activity));
            self.ready.extend(moving.map(|(id, _)| id.clone()));
            self.run();
        }
        let Self { machine, state, events, begun, .. } = self;
        let call = |id: &String| machine.call(id, state.frames.get(id)?);
        let calls = if state.phase == Phase::Running { begun.iter().filter_map(call).collect() } else { Vec::new() };
        let more = state.phase == Phase::Running && state.frames.values().any(|frame| is_moving(&frame.activity));
        Transition { events, calls, more, state }
    }

    fn emit(&mut self, what: Happened) {
        let event = Event { at: self.now, what };
        self.state.apply(&event);
        self.events.push(event);
    }

    fn is_running(&self) -> bool {
        self.state.phase == Phase::Running
    }

    /// The step a frame is at.
    fn step(&self, frame: &str) -> Option<&'a Step> {
        let (program, _) = self.machine.workflow.body.locate(frame)?;
        program.steps.get(&self.state.frames.get(frame)?.step)
    }

    fn done(&mut self, key: &str, result: Outcome<Value>) {
        // The key begins with the run and the frame, and ends with the step and the attempt.
        let rest = key.strip_prefix(self.machine.uid).and_then(|rest| rest.strip_prefix('/'));
        let Some((execution, attempt)) = rest.and_then(|rest| rest.rsplit_once('/')) else { return };
        let id = execution.rsplit_once('/').map_or("", |(id, _)| id).to_owned();
        let Some(frame) = self.state.frames.get(&id) else { return };
        let is_task = matches!(frame.activity, Activity::Task { .. });
        if !is_task || execution != frame.execution(&id) || attempt.parse() != Ok(frame.attempt) {
            return;
        }
        match result {
            Ok(value) => self.succeed(&id, value),
            Err(failure) => self.fail(&id, failure),
        }
    }

    /// Ends what is due.
    fn expire(&mut self) {
        if self.machine.limit().is_some_and(|limit| self.now >= self.state.started + limit) {
            let step = self.state.frames.get("").map(|frame| frame.step.clone()).unwrap_or_default();
            let failure = Failure::new("Timeout", "the run took longer than it may");
            return self.emit(Happened::RunFailed { step, failure });
        }
        let due: Vec<String> = self.state.frames.keys().cloned().collect();
        for id in due {
            let Some(frame) = self.state.frames.get(&id).filter(|_| self.is_running()) else { continue };
            match &frame.activity {
                Activity::Task { deadline: Some(deadline), .. } | Activity::Fork { deadline: Some(deadline), .. }
                    if self.now >= *deadline =>
                {
                    self.fail(&id, Failure::new("Timeout", "the attempt took longer than it may"));
                }
                Activity::Wait { until } if self.now >= *until => {
                    let input = self.input(&id);
                    match input {
                        Ok(input) => self.succeed(&id, input),
                        Err(failure) => self.fail(&id, failure),
                    }
                }
                Activity::Pause { until } if self.now >= *until => self.begin(&id),
                _ => {}
            }
        }
    }

    /// Goes on until all wait, or enough was done for one turn.
    fn run(&mut self) {
        let limit = self.state.entered + TURN;
        while let Some(id) = self.ready.pop_front() {
            while self.is_running() && self.state.entered < limit {
                let Some(activity) = self.state.frames.get(&id).map(|frame| &frame.activity) else { break };
                match activity {
                    Activity::Entering => self.enter(&id),
                    Activity::Beginning => self.begin(&id),
                    Activity::Ending => self.finish(&id),
                    _ => break,
                }
            }
        }
    }

    fn enter(&mut self, id: &str) {
        if self.state.entered >= self.machine.workflow.max_steps {
            let step = self.place(id);
            let most = self.machine.workflow.max_steps;
            let failure =
                Failure::new("TooManySteps", format!("the run has entered {most} steps, and may not enter more"));
            return self.emit(Happened::RunFailed { step, failure });
        }
        let Some((program, place)) = self.machine.workflow.body.locate(id) else {
            return self.lost(id);
        };
        let named = self.state.frames.get(id).map(|frame| frame.step.clone()).unwrap_or_default();
        let step = if named.is_empty() { program.start.clone() } else { named };
        if !program.steps.contains_key(&step) {
            return self.lost(id);
        }
        self.emit(Happened::StepEntered { frame: id.to_owned(), step, place });
    }

    /// The history speaks of steps that the program does not have.
    fn lost(&mut self, id: &str) {
        let failure = Failure::new("Internal", format!("the workflow has no place {id:?}"));
        let step = self.place(id);
        self.emit(Happened::RunFailed { step, failure });
    }

    /// The step of a frame, for people.
    fn place(&self, id: &str) -> String {
        let place = self.machine.workflow.body.locate(id).map(|(_, place)| place).unwrap_or_default();
        let step = self.state.frames.get(id).map(|frame| frame.step.as_str()).unwrap_or_default();
        // Which of the items, and which visit.
        let exact = self.state.frames.get(id).map(|frame| frame.execution(id)).unwrap_or_default();
        let plain = format!("{place}{step}");
        if exact.contains('/') || exact.contains('#') { format!("{plain} ({exact})") } else { plain }
    }

    /// What the frame's step sees.
    fn input(&self, id: &str) -> Outcome<Value> {
        let (Some(step), Some(frame)) = (self.step(id), self.state.frames.get(id)) else { return Ok(Value::Null) };
        let seen = find(step.input.as_ref(), &frame.input, "inputPath")?;
        match &step.parameters {
            Some(template) => self.fill(template, &seen),
            None => Ok(seen),
        }
    }

    fn fill(&self, template: &Template, input: &Value) -> Outcome<Value> {
        let filled = template.fill(&[("input", input), ("run", self.machine.about)]);
        filled.map_err(|(source, e)| Failure::new("ExpressionFailed", format!("${{{source}}}: {e}")))
    }

    /// Does what the step is about; again, where it is tried again.
    fn begin(&mut self, id: &str) {
        let Some(step) = self.step(id) else { return self.lost(id) };
        let input = self.input(id).and_then(|input| fits(input, "what the step is given"));
        let done = input.and_then(|input| self.act(id, step, input));
        if let Err(failure) = done {
            self.fail(id, failure);
        }
    }

    fn act(&mut self, id: &str, step: &'a Step, input: Value) -> Outcome<()> {
        let frame = id.to_owned();
        let attempt = self.state.frames.get(id).map_or(0, |frame| frame.attempt) + 1;
        let deadline = step.timeout.map(|timeout| self.now + timeout);
        match &step.action {
            Action::Task(_) => {
                self.emit(Happened::TaskStarted { frame, attempt, input, deadline });
                self.begun.push(id.to_owned());
            }
            Action::Choice { rules, default } => {
                let next = self.choose(rules, &input)?.or(default.as_ref());
                let next = next
                    .ok_or_else(|| Failure::new("NoRuleHolds", "no rule of the choice holds, and it has no default"))?;
                let output = find(step.output.as_ref(), &input, "outputPath")?;
                self.emit(Happened::StepSucceeded { frame, output, next: Some(next.clone()) });
            }
            Action::Parallel(branches) => {
                let (inputs, branches) = (vec![input], Some(branches.len()));
                self.fork(Happened::ForkStarted { frame, attempt, inputs, branches, deadline }, id, usize::MAX);
            }
            Action::Map { items, concurrency, .. } => {
                let inputs = match find(items.as_ref(), &input, "itemsPath")? {
                    Value::Array(items) if items.len() <= MAX_ITEMS => items,
                    Value::Array(items) => {
                        let why = format!("a map has at most {MAX_ITEMS} items, not {}", items.len());
                        return Err(Failure::new("TooManyItems", why));
                    }
                    other => {
                        let path = items.as_ref().map_or("$", Path::source);
                        return Err(Failure::new(
                            "TypeMismatch",
                            format!("{path} is {}, not a list", described(&other)),
                        ));
                    }
                };
                let none = inputs.is_empty();
                let started = Happened::ForkStarted { frame, attempt, inputs, branches: None, deadline };
                self.fork(started, id, *concurrency);
                if none {
                    self.succeed(id, json!([]));
                }
            }
            Action::Wait(wait) => {
                let until = until(wait, &input, self.now)?;
                self.emit(Happened::WaitStarted { frame, until });
                if self.now >= until {
                    self.succeed(id, input);
                }
            }
            Action::Pass(template) => {
                let value = template.as_ref().map_or_else(|| Ok(input.clone()), |t| self.fill(t, &input))?;
                self.succeed(id, value);
            }
            Action::Fail { error, cause } => return Err(Failure::new(error, cause.clone())),
            Action::Succeed => {
                let output = find(step.output.as_ref(), &input, "outputPath")?;
                self.emit(Happened::StepSucceeded { frame, output, next: None });
            }
        }
        Ok(())
    }

    fn choose<'r>(&self, rules: &'r [Rule], input: &Value) -> Outcome<Option<&'r String>> {
        for rule in rules {
            let holds = match &rule.condition {
                Condition::Expr(expr) => expr
                    .holds(&[("input", input), ("run", self.machine.about)])
                    .map_err(|e| Failure::new("ExpressionFailed", format!("{}: {e}", expr.source())))?,
                Condition::Check { variable, check } => {
                    let value = variable.find(input).map_err(|e| Failure::new("PathNotFound", e.to_string()))?;
                    let mismatch = |why| Failure::new("TypeMismatch", format!("{} {why}", variable.source()));
                    check.holds(&value).map_err(mismatch)?
                }
            };
            if holds {
                return Ok(Some(&rule.next));
            }
        }
        Ok(None)
    }

    /// Opens inner frames, as many as may run at once.
    fn fork(&mut self, started: Happened, id: &str, at_once: usize) {
        let Happened::ForkStarted { inputs, branches, .. } = &started else { return };
        let first = branches.unwrap_or(inputs.len()).min(at_once);
        self.emit(started);
        (0..first).for_each(|index| self.open(id, index));
    }

    fn open(&mut self, outer: &str, index: usize) {
        let Some(child) = self.state.frames.get(outer).map(|frame| frame.child(outer, index)) else { return };
        self.emit(Happened::ChildStarted { frame: outer.to_owned(), index });
        self.ready.push_back(child);
    }

    /// Closes a frame whose last step is done.
    fn finish(&mut self, id: &str) {
        let output = self.state.frames.get(id).map(|frame| frame.input.clone()).unwrap_or_default();
        let Some((outer, index)) = parent(id) else {
            return self.emit(Happened::RunSucceeded { output });
        };
        let outer = outer.to_owned();
        if let Some(Activity::Fork { held, .. }) = self.state.frames.get(&outer).map(|frame| &frame.activity)
            && held + length(&output) > LARGEST
        {
            return self.fail(&outer, too_large("what its branches or items have brought"));
        }
        self.emit(Happened::ChildEnded { frame: outer.clone(), index, output });
        let Some(Activity::Fork { inputs, outputs, begun, ended, .. }) =
            self.state.frames.get(&outer).map(|frame| &frame.activity)
        else {
            return;
        };
        if *ended == inputs.len() {
            let outputs = outputs.iter().map(|output| output.clone().unwrap_or_default()).collect();
            self.succeed(&outer, Value::Array(outputs));
            self.ready.push_back(outer);
        } else if *begun < inputs.len() {
            let next = *begun;
            self.open(&outer, next);
        }
    }

    /// Ends the frame's step with this result.
    fn succeed(&mut self, id: &str, result: Value) {
        match self.output(id, result) {
            Ok((output, next)) => self.emit(Happened::StepSucceeded { frame: id.to_owned(), output, next }),
            Err(failure) => self.fail(id, failure),
        }
    }

    fn output(&self, id: &str, result: Value) -> Outcome<(Value, Option<String>)> {
        let (Some(step), Some(frame)) = (self.step(id), self.state.frames.get(id)) else {
            return Err(Failure::new("Internal", "the step is gone"));
        };
        let whole = step.result.put(frame.input.clone(), result);
        let whole = whole.map_err(|e| Failure::new("TypeMismatch", format!("resultPath {e}")))?;
        let output = fits(find(step.output.as_ref(), &whole, "outputPath")?, "what the step passes on")?;
        let next = if let Next::Step(next) = &step.next { Some(next.clone()) } else { None };
        Ok((output, next))
    }

    /// What comes of a failure of the frame's step: another attempt, a way around, or the failure of all it is part of.
    fn fail(&mut self, id: &str, failure: Failure) {
        let mut at = id.to_owned();
        let first = self.place(id);
        loop {
            if self.retry(&at, &failure) || self.catch(&at, &failure, &first) {
                return;
            }
            self.emit(Happened::StepFailed { frame: at.clone(), failure: failure.clone() });
            match parent(&at) {
                Some((outer, _)) => at = outer.to_owned(),
                None => return self.emit(Happened::RunFailed { step: first, failure }),
            }
        }
    }

    fn retry(&mut self, id: &str, failure: &Failure) -> bool {
        let (Some(step), Some(frame)) = (self.step(id), self.state.frames.get(id)) else { return false };
        let fits = step.retry.iter().position(|retry| names_error(&retry.errors, &failure.error));
        let Some((rule, retry)) = fits.and_then(|rule| Some((rule, step.retry.get(rule)?))) else { return false };
        let used = frame.retries.get(rule).copied().unwrap_or_default();
        if used >= retry.attempts {
            return false;
        }
        let until = self.now + retry.pause(used + 1, (self.dice)());
        self.emit(Happened::StepRetried { frame: id.to_owned(), failure: failure.clone(), rule, until });
        true
    }

    fn catch(&mut self, id: &str, failure: &Failure, place: &str) -> bool {
        let (Some(step), Some(frame)) = (self.step(id), self.state.frames.get(id)) else { return false };
        let Some(catch) = step.catch.iter().find(|catch| names_error(&catch.errors, &failure.error)) else {
            return false;
        };
        let told = json!({"error": failure.error, "cause": failure.cause, "step": place});
        // Where the failure cannot be put, it still must not get lost.
        let output = catch.result.put(frame.input.clone(), told.clone()).unwrap_or(told);
        let (frame, next) = (id.to_owned(), catch.next.clone());
        self.emit(Happened::StepCaught { frame, failure: failure.clone(), output, next });
        self.ready.push_back(id.to_owned());
        true
    }
}

fn too_large(what: &str) -> Failure {
    Failure::new("TooLarge", format!("{what} is larger than {} MiB", LARGEST >> 20))
}

/// What is too large for a step is its failure: it can be caught, and nothing is written that cannot be read.
fn fits(value: Value, what: &str) -> Outcome<Value> {
    if is_longer(&value, LARGEST) { Err(too_large(what)) } else { Ok(value) }
}

/// True where a frame goes on without anybody else.
fn is_moving(activity: &Activity) -> bool {
    matches!(activity, Activity::Entering | Activity::Beginning | Activity::Ending)
}

fn find(path: Option<&Path>, value: &Value, field: &str) -> Outcome<Value> {
    let found = path.map_or_else(|| Ok(value.clone()), |path| path.find(value));
    found.map_err(|e| Failure::new("PathNotFound", format!("{field} {e}")))
}

/// When a wait is over.
fn until(wait: &WaitFor, input: &Value, now: Millis) -> Outcome<Millis> {
    let mismatch = |path: &Path, value: &Value, what: &str| {
        Failure::new("TypeMismatch", format!("{} is {}, not {what}", path.source(), described(value)))
    };
    match wait {
        WaitFor::Millis(millis) => Ok(now + millis),
        WaitFor::Until(moment) => Ok(*moment),
        WaitFor::SecondsAt(path) => {
            let value = find(Some(path), input, "secondsPath")?;
            let seconds = value.as_f64().filter(|s| (0.0..=1e9).contains(s));
            let seconds = seconds.ok_or_else(|| mismatch(path, &value, "a number of seconds"))?;
            Ok(now + (seconds * 1000.0) as Millis)
        }
        WaitFor::UntilAt(path) => {
            let value = find(Some(path), input, "untilPath")?;
            let moment = value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
            moment.map(Timestamp::as_millisecond).ok_or_else(|| mismatch(path, &value, "a moment in time"))
        }
    }
}
