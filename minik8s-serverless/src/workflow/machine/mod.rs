//! How a run goes on: a pure function from what happened so far, and one thing more, to what happens next. Nothing here
//! reads a clock, throws dice or calls anybody.
//!
//! The caller commits the events of a [`Transition`] before it does its effects. After a crash, [`Machine::outstanding`]
//! says from the committed events alone which effects may not have been done: those of tasks without a result, under the
//! keys they had. A task whose result was committed is never asked for again.

mod event;
mod state;
#[cfg(test)]
mod tests;
mod turn;

pub use event::{Event, Failure, Happened};
pub use state::{Activity, Frame, Phase, RunState, StepProgress, parent};

use super::program::{Action, Millis, Target, Workflow};
use serde_json::Value;
use turn::Turn;

/// Something from outside that makes a run go on.
#[derive(Clone, Debug, PartialEq)]
pub enum Stimulus {
    /// It shall begin, with this input.
    Start(Value),
    /// A task ended. Ignored where nobody waits for it any more.
    Done {
        /// The key of the call.
        key: String,
        /// What came out.
        result: Result<Value, Failure>,
    },
    /// Time has passed.
    Tick,
    /// Somebody wants it to stop.
    Cancel,
}

/// A task to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The same for the same attempt of the same step, however often it is asked for: `<run>/<step>/<attempt>`.
    pub key: String,
    /// The step, for people.
    pub step: String,
    /// What to call.
    pub target: Target,
    /// What to give it.
    pub input: Value,
    /// It is heard of at least this often.
    pub heartbeat: Option<Millis>,
}

/// What a run does next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transition {
    /// To be committed first.
    pub events: Vec<Event>,
    /// To be done then.
    pub calls: Vec<Call>,
    /// The state after the events.
    pub state: RunState,
    /// There is more to do at once: ask again with [`Stimulus::Tick`] once the events are committed.
    pub more: bool,
}

/// A workflow, and the run it is run for.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// What is run.
    pub workflow: &'a Workflow,
    /// The run's own limit of time, beside the workflow's.
    pub timeout: Option<Millis>,
    /// The run's uid: the beginning of all keys.
    pub uid: &'a str,
    /// What expressions see as `run`.
    pub about: &'a Value,
}

impl Machine<'_> {
    /// What comes next, after all of the stimuli. `dice` gives numbers between 0 and 1.
    pub fn step(
        &self,
        state: RunState,
        stimuli: impl IntoIterator<Item = Stimulus>,
        now: Millis,
        dice: &mut dyn FnMut() -> f64,
    ) -> Transition {
        let mut turn = Turn::new(self, state, now, dice);
        stimuli.into_iter().for_each(|stimulus| turn.take(stimulus));
        turn.end()
    }

    /// The tasks that have begun and not ended.
    pub fn outstanding(&self, state: &RunState) -> Vec<Call> {
        if state.phase != Phase::Running {
            return Vec::new();
        }
        state.frames.iter().filter_map(|(id, frame)| self.call(id, frame)).collect()
    }

    /// When the run goes on by itself at the latest.
    pub fn next_due(&self, state: &RunState) -> Option<Millis> {
        state.next_due(self.limit())
    }

    fn limit(&self) -> Option<Millis> {
        [self.timeout, self.workflow.timeout].into_iter().flatten().min()
    }

    fn call(&self, id: &str, frame: &Frame) -> Option<Call> {
        let Activity::Task { input, .. } = &frame.activity else { return None };
        let (program, place) = self.workflow.body.locate(id)?;
        let Action::Task(task) = &program.steps.get(&frame.step)?.action else { return None };
        let key = format!("{}/{}/{}", self.uid, frame.execution(id), frame.attempt);
        let step = format!("{place}{}", frame.step);
        Some(Call { key, step, target: task.target.clone(), input: input.clone(), heartbeat: task.heartbeat })
    }
}
