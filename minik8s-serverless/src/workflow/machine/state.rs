//! What a run is like after the events so far. Made by [`apply`](RunState::apply) alone, which never decides anything: a
//! restart that reads the events again knows exactly what the one before knew.

use super::event::{Event, Failure, Happened};
use crate::workflow::program::Millis;
use crate::workflow::size::length;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Where a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Not begun.
    #[default]
    Pending,
    /// Under way.
    Running,
    /// Over, went well.
    Succeeded,
    /// Over, failed.
    Failed,
    /// Over, stopped by somebody.
    Cancelled,
}

impl Phase {
    /// Nothing happens any more.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }
}

/// A run after the events so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunState {
    /// Where it is.
    pub phase: Phase,
    /// How many events there were.
    pub sequence: u64,
    /// When it began.
    pub started: Millis,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished: Option<Millis>,
    /// How many steps were entered.
    pub entered: u64,
    /// The places where something is going on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub frames: BTreeMap<String, Frame>,
    /// How each step is doing.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub steps: BTreeMap<String, StepProgress>,
    /// What came out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Which step failed, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<(String, Failure)>,
}

/// How a step is doing, in all of its visits and items together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepProgress {
    /// Under way.
    #[serde(skip_serializing_if = "is_zero")]
    pub running: u64,
    /// Ended well.
    #[serde(skip_serializing_if = "is_zero")]
    pub succeeded: u64,
    /// Failed for good.
    #[serde(skip_serializing_if = "is_zero")]
    pub failed: u64,
    /// Failed, and it was known what to do then.
    #[serde(skip_serializing_if = "is_zero")]
    pub caught: u64,
    /// Not ended, because what it is part of has.
    #[serde(skip_serializing_if = "is_zero")]
    pub stopped: u64,
    /// Attempts that failed and were not the last.
    #[serde(skip_serializing_if = "is_zero")]
    pub retried: u64,
    /// The last error.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A place where steps follow each other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Frame {
    /// What its step was given.
    pub input: Value,
    /// The step it is at; the next one to enter while `activity` is [`Activity::Entering`].
    pub step: String,
    /// Where the frame is, for people: `both[0]/`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// How often each step was entered here.
    pub visits: BTreeMap<String, u32>,
    /// Attempts of the step so far.
    pub attempt: u32,
    /// How often each of the step's rules for retries was used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retries: Vec<u32>,
    /// What is going on.
    pub activity: Activity,
}

/// What is going on in a frame.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Activity {
    /// It is about to enter its step; the first of all where the step has no name.
    #[default]
    Entering,
    /// It is in its step, which is about to do something.
    Beginning,
    /// The step is done, nothing comes after it.
    Ending,
    /// A task is being done.
    Task {
        /// What it was given.
        input: Value,
        /// When the attempt has failed.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        deadline: Option<Millis>,
    },
    /// A pause before the next attempt.
    Pause {
        /// Until when.
        until: Millis,
    },
    /// The step waits.
    Wait {
        /// Until when.
        until: Millis,
    },
    /// Inner frames are at work.
    Fork {
        /// The input of each that has not begun; null for the others.
        inputs: Vec<Value>,
        /// What came out of those that ended.
        outputs: Vec<Option<Value>>,
        /// How long they are together, as text.
        held: usize,
        /// How many have begun.
        begun: usize,
        /// How many have ended.
        ended: usize,
        /// When the attempt has failed.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        deadline: Option<Millis>,
    },
}

impl Frame {
    fn entering(step: &str, input: Value) -> Self {
        Self { step: step.to_owned(), input, ..Self::default() }
    }

    /// The id of the step within the run: it names the step, and which visit it is where it is not the first.
    pub fn execution(&self, id: &str) -> String {
        let visit = self.visits.get(&self.step).copied().unwrap_or(1);
        let visit = if visit > 1 { format!("#{visit}") } else { String::new() };
        let slash = if id.is_empty() { "" } else { "/" };
        format!("{id}{slash}{}{visit}", self.step)
    }

    /// The id of an inner frame. Another attempt has other ones, so that a late result of the one before is not its own.
    pub fn child(&self, id: &str, index: usize) -> String {
        format!("{}{index}", self.children(id))
    }

    fn children(&self, id: &str) -> String {
        let attempt = if self.attempt > 1 { format!("@{}", self.attempt) } else { String::new() };
        format!("{}{attempt}/", self.execution(id))
    }

    fn go_on(&mut self, next: Option<&str>, input: &Value) {
        self.input = input.clone();
        self.attempt = 0;
        self.retries.clear();
        self.activity = Activity::Ending;
        if let Some(next) = next {
            next.clone_into(&mut self.step);
            self.activity = Activity::Entering;
        }
    }
}

/// The outer frame of a frame, and which of its children it is.
pub fn parent(id: &str) -> Option<(&str, usize)> {
    let (execution, index) = id.rsplit_once('/')?;
    let outer = execution.rsplit_once('/').map_or("", |(outer, _)| outer);
    Some((outer, index.parse().ok()?))
}

impl RunState {
    /// The state after these events.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut state = Self::default();
        events.into_iter().for_each(|event| state.apply(event));
        state
    }

    /// The state after one event more. An event about what is not there changes nothing.
    pub fn apply(&mut self, event: &Event) {
        self.sequence += 1;
        match &event.what {
            Happened::RunStarted { input } => {
                self.phase = Phase::Running;
                self.started = event.at;
                self.frames.insert(String::new(), Frame::entering("", input.clone()));
            }
            Happened::StepEntered { frame, step, place } => {
                self.entered += 1;
                self.steps.entry(format!("{place}{step}")).or_default().running += 1;
                self.on(frame, |frame| {
                    frame.place.clone_from(place);
                    *frame.visits.entry(step.clone()).or_default() += 1;
                    frame.step.clone_from(step);
                    frame.activity = Activity::Beginning;
                });
            }
            Happened::TaskStarted { frame, attempt, input, deadline } => self.on(frame, |frame| {
                frame.attempt = *attempt;
                frame.activity = Activity::Task { input: input.clone(), deadline: *deadline };
            }),
            Happened::ForkStarted { frame, attempt, inputs, branches, deadline } => self.on(frame, |frame| {
                let inputs = match branches {
                    Some(branches) => vec![inputs.first().cloned().unwrap_or_default(); *branches],
                    None => inputs.clone(),
                };
                let outputs = vec![None; inputs.len()];
                frame.attempt = *attempt;
                frame.activity = Activity::Fork { inputs, outputs, held: 0, begun: 0, ended: 0, deadline: *deadline };
            }),
            Happened::ChildStarted { frame, index } => self.child_started(frame, *index),
            Happened::ChildEnded { frame, index, output } => self.child_ended(frame, *index, output),
            Happened::WaitStarted { frame, until } => {
                self.on(frame, |frame| frame.activity = Activity::Wait { until: *until });
            }
            Happened::StepRetried { frame, rule, until, failure } => {
                self.drop_children(frame);
                self.progress(frame, |step| {
                    step.retried += 1;
                    step.error.clone_from(&failure.error);
                });
                self.on(frame, |frame| {
                    if frame.retries.len() <= *rule {
                        frame.retries.resize(rule + 1, 0);
                    }
                    frame.retries[*rule] += 1;
                    frame.activity = Activity::Pause { until: *until };
                });
            }
            Happened::StepSucceeded { frame, output, next } => {
                self.drop_children(frame);
                self.progress(frame, |step| {
                    step.running = step.running.saturating_sub(1);
                    step.succeeded += 1;
                });
                self.on(frame, |frame| frame.go_on(next.as_deref(), output));
            }
            Happened::StepCaught { frame, output, next, failure } => {
                self.drop_children(frame);
                self.progress(frame, |step| {
                    step.running = step.running.saturating_sub(1);
                    step.caught += 1;
                    step.error.clone_from(&failure.error);
                });
                self.on(frame, |frame| frame.go_on(Some(next), output));
            }
            Happened::StepFailed { frame, failure } => {
                self.progress(frame, |step| {
                    step.running = step.running.saturating_sub(1);
                    step.failed += 1;
                    step.error.clone_from(&failure.error);
                });
                // Its children stop with it; itself it was counted.
                self.drop_children(frame);
                self.on(frame, |frame| frame.activity = Activity::Ending);
            }
            Happened::RunSucceeded { output } => {
                self.output = Some(output.clone());
                self.end(Phase::Succeeded, event.at);
            }
            Happened::RunFailed { step, failure } => {
                self.failure = Some((step.clone(), failure.clone()));
                self.end(Phase::Failed, event.at);
            }
            Happened::RunCancelled => self.end(Phase::Cancelled, event.at),
        }
    }

    fn on(&mut self, frame: &str, change: impl FnOnce(&mut Frame)) {
        if let Some(frame) = self.frames.get_mut(frame) {
            change(frame);
        }
    }

    fn end(&mut self, phase: Phase, at: Millis) {
        self.phase = phase;
        self.finished = Some(at);
        let frames = std::mem::take(&mut self.frames);
        frames.values().for_each(|frame| self.stopped(frame));
    }

    fn child_started(&mut self, outer: &str, index: usize) {
        let Some(frame) = self.frames.get_mut(outer) else { return };
        let child = frame.child(outer, index);
        let Activity::Fork { inputs, begun, .. } = &mut frame.activity else { return };
        *begun += 1;
        let input = inputs.get_mut(index).map(Value::take).unwrap_or_default();
        self.frames.insert(child, Frame::entering("", input));
    }

    fn child_ended(&mut self, outer: &str, index: usize, output: &Value) {
        let Some(frame) = self.frames.get_mut(outer) else { return };
        let child = frame.child(outer, index);
        let Activity::Fork { outputs, ended, held, .. } = &mut frame.activity else { return };
        *ended += 1;
        *held += length(output) + 1;
        if let Some(place) = outputs.get_mut(index) {
            *place = Some(output.clone());
        }
        self.frames.remove(&child);
    }

    /// Frames within a frame's step go where the step is over.
    fn drop_children(&mut self, outer: &str) {
        let Some(prefix) = self.frames.get(outer).map(|frame| frame.children(outer)) else { return };
        let inside: Vec<String> = self
            .frames
            .range(prefix.clone()..)
            .map(|(id, _)| id)
            .take_while(|id| id.starts_with(&prefix))
            .cloned()
            .collect();
        for id in inside {
            if let Some(frame) = self.frames.remove(&id) {
                self.stopped(&frame);
            }
        }
    }

    fn progress(&mut self, frame: &str, change: impl FnOnce(&mut StepProgress)) {
        if let Some(frame) = self.frames.get(frame) {
            change(self.steps.entry(format!("{}{}", frame.place, frame.step)).or_default());
        }
    }

    /// Counts the step of a frame that goes before it ended.
    fn stopped(&mut self, frame: &Frame) {
        if matches!(frame.activity, Activity::Entering | Activity::Ending) {
            return;
        }
        let step = self.steps.entry(format!("{}{}", frame.place, frame.step)).or_default();
        step.running = step.running.saturating_sub(1);
        step.stopped += 1;
    }

    /// When something is due by itself.
    pub fn next_due(&self, timeout: Option<Millis>) -> Option<Millis> {
        if self.phase != Phase::Running {
            return None;
        }
        let due = |frame: &Frame| match &frame.activity {
            Activity::Task { deadline, .. } | Activity::Fork { deadline, .. } => *deadline,
            Activity::Pause { until } | Activity::Wait { until } => Some(*until),
            Activity::Entering | Activity::Beginning | Activity::Ending => Some(Millis::MIN),
        };
        self.frames.values().filter_map(due).chain(timeout.map(|timeout| self.started + timeout)).min()
    }
}
