//! The one form in which workflows are run, whatever shape they were written in.

use super::checks::Check;
use super::spec::{FunctionRef, GpuJobSpec, HttpSpec, JobSpec};
use crate::expr::{Expr, Path, Place, Template};
use serde_json::Value;
use std::collections::BTreeMap;

/// Milliseconds.
pub type Millis = i64;

/// A workflow that can be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Workflow {
    /// Its steps.
    pub body: Program,
    /// The input of a run that brings none.
    pub input: Value,
    /// A run takes at most this long.
    pub timeout: Option<Millis>,
    /// A run enters at most this many steps.
    pub max_steps: u64,
}

/// Steps, and where they begin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// The first step.
    pub start: String,
    /// The steps by name.
    pub steps: BTreeMap<String, Step>,
    /// Their names as they were written.
    pub order: Vec<String>,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// What it does.
    pub action: Action,
    /// Which part of the input it sees.
    pub input: Option<Path>,
    /// What it sees instead.
    pub parameters: Option<Template>,
    /// Where its result goes.
    pub result: Place,
    /// Which part of that is passed on.
    pub output: Option<Path>,
    /// One attempt takes at most this long.
    pub timeout: Option<Millis>,
    /// Failures to try again after.
    pub retry: Vec<Retry>,
    /// Failures to go on after.
    pub catch: Vec<Catch>,
    /// What comes after it.
    pub next: Next,
}

/// What comes after a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    End,
    /// This step.
    Step(String),
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Calls something.
    Task(Task),
    /// Goes where the first rule that holds leads, or to `default`.
    Choice {
        /// In order.
        rules: Vec<Rule>,
        /// Where none holds.
        default: Option<String>,
    },
    /// Several ways at once.
    Parallel(Vec<Program>),
    /// The same steps for each item.
    Map {
        /// Where the list is.
        items: Option<Path>,
        /// At most so many at once.
        concurrency: usize,
        /// The steps.
        body: Program,
    },
    /// Waits.
    Wait(WaitFor),
    /// Passes a value on.
    Pass(Option<Template>),
    /// Ends the run as failed.
    Fail {
        /// A name.
        error: String,
        /// For people.
        cause: String,
    },
    /// Ends the branch as succeeded.
    Succeed,
}

/// What a task calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// What.
    pub target: Target,
    /// It is heard of at least this often.
    pub heartbeat: Option<Millis>,
}

/// What a task calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A Function.
    Function(FunctionRef),
    /// A URL.
    Http(HttpSpec),
    /// A container that runs to its end.
    Job(JobSpec),
    /// A job on a `JobCluster`.
    GpuJob(GpuJobSpec),
}

/// A condition and where it leads.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// When it holds.
    pub condition: Condition,
    /// Where it leads.
    pub next: String,
}

/// When a rule holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// CEL.
    Expr(Expr),
    /// One of the twelve checks.
    Check {
        /// What is checked.
        variable: Path,
        /// The check.
        check: Check,
    },
}

/// How long a step waits.
#[derive(Clone, Debug, PartialEq)]
pub enum WaitFor {
    /// So long.
    Millis(Millis),
    /// Until this moment, in milliseconds since 1970.
    Until(Millis),
    /// As many seconds as the input says here.
    SecondsAt(Path),
    /// Until the moment the input says here.
    UntilAt(Path),
}

/// Failures to try again after.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Names of errors.
    pub errors: Vec<String>,
    /// How many times more.
    pub attempts: u32,
    /// The first pause.
    pub interval: Millis,
    /// Each pause is so many times the one before.
    pub rate: f64,
    /// The longest pause.
    pub max: Millis,
    /// How pauses are spread.
    pub jitter: Jitter,
}

/// How pauses are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jitter {
    /// Not.
    None,
    /// Between the half and the whole.
    Half,
    /// Between nothing and the whole.
    Full,
}

impl Retry {
    /// The pause before the `n`-th attempt more, counted from 1; `dice` is between 0 and 1.
    pub fn pause(&self, n: u32, dice: f64) -> Millis {
        let factor = self.rate.powi(n.saturating_sub(1).min(1000) as i32);
        let whole = (self.interval as f64 * factor).min(self.max as f64).max(0.0);
        let dice = dice.clamp(0.0, 1.0);
        (match self.jitter {
            Jitter::None => whole,
            Jitter::Half => whole / 2.0 + whole / 2.0 * dice,
            Jitter::Full => whole * dice,
        }) as Millis
    }
}

/// Failures to go on after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catch {
    /// Names of errors.
    pub errors: Vec<String>,
    /// Where in the step's input the failure goes.
    pub result: Place,
    /// Where to go on.
    pub next: String,
}

/// Whether a list of names means an error.
pub fn names_error(names: &[String], error: &str) -> bool {
    names.iter().any(|name| name == "*" || name == error)
}

impl Step {
    /// Every step that can come after this one.
    pub fn successors(&self) -> Vec<&str> {
        let mut next: Vec<&str> = match &self.action {
            Action::Choice { rules, default } => {
                rules.iter().map(|r| r.next.as_str()).chain(default.as_deref()).collect()
            }
            Action::Fail { .. } | Action::Succeed => Vec::new(),
            _ => match &self.next {
                Next::Step(name) => vec![name.as_str()],
                Next::End => Vec::new(),
            },
        };
        next.extend(self.catch.iter().map(|c| c.next.as_str()));
        next
    }

    /// True where the branch may end after this step.
    pub fn may_end(&self) -> bool {
        match &self.action {
            Action::Choice { .. } => false,
            Action::Fail { .. } | Action::Succeed => true,
            _ => self.next == Next::End,
        }
    }

    /// Programs within it.
    pub fn inner(&self) -> &[Program] {
        match &self.action {
            Action::Parallel(branches) => branches,
            Action::Map { body, .. } => std::slice::from_ref(body),
            _ => &[],
        }
    }

    /// `task`, `choice`, …
    pub fn kind(&self) -> &'static str {
        match &self.action {
            Action::Task(_) => "task",
            Action::Choice { .. } => "choice",
            Action::Parallel(_) => "parallel",
            Action::Map { .. } => "map",
            Action::Wait(_) => "wait",
            Action::Pass(_) => "pass",
            Action::Fail { .. } => "fail",
            Action::Succeed => "succeed",
        }
    }
}

impl Program {
    /// Every function that its steps call, those of inner steps included.
    pub fn functions(&self) -> Vec<&FunctionRef> {
        let own = self.steps.values().filter_map(|step| match &step.action {
            Action::Task(Task { target: Target::Function(function), .. }) => Some(function),
            _ => None,
        });
        let inner = self.steps.values().flat_map(|step| step.inner().iter().flat_map(Program::functions));
        let mut all: Vec<_> = own.chain(inner).collect();
        all.sort();
        all.dedup();
        all
    }

    /// The steps that a frame runs, and the name of the place for people (`both[0]/`). A frame's id is, by turns, the
    /// step that opened it (with `#n` on its n-th visit and `@n` on its n-th
    /// attempt) and the number of the branch or item; the outermost is empty.
    pub fn locate(&self, frame: &str) -> Option<(&Program, String)> {
        let (mut program, mut place) = (self, String::new());
        let mut words = frame.split('/').filter(|word| !word.is_empty());
        while let (Some(step), Some(index)) = (words.next(), words.next()) {
            let step = program.steps.get(step.split(['#', '@']).next().unwrap_or_default())?;
            let index: usize = index.parse().ok()?;
            (program, place) = match &step.action {
                Action::Parallel(branches) => (branches.get(index)?, format!("{place}{}[{index}]/", step.name)),
                Action::Map { body, .. } => (body, format!("{place}{}/", step.name)),
                _ => return None,
            };
        }
        Some((program, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_are_spread_as_asked() {
        let retry = |jitter| Retry { errors: vec![], attempts: 9, interval: 1000, rate: 2.0, max: 5000, jitter };
        let table = [
            (Jitter::None, 1, 0.3, 1000),
            (Jitter::None, 3, 0.3, 4000),
            (Jitter::None, 4, 0.3, 5000),
            (Jitter::None, u32::MAX, 0.3, 5000),
            (Jitter::Half, 2, 0.0, 1000),
            (Jitter::Half, 2, 1.0, 2000),
            (Jitter::Full, 2, 0.0, 0),
            (Jitter::Full, 2, 0.5, 1000),
        ];
        for (jitter, n, dice, want) in table {
            assert_eq!(retry(jitter).pause(n, dice), want, "{jitter:?} {n} {dice}");
        }
    }
}
