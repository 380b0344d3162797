//! A run's history as lines for people. Pure.

use super::machine::{Event, Happened, RunState};
use super::program::Millis;
use serde_json::Value;

/// One line of a run's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Milliseconds since 1970.
    pub at: Millis,
    /// The step, with the item and the visit it is about; empty for the run itself.
    pub step: String,
    /// What happened.
    pub text: String,
    /// Something went wrong.
    pub bad: bool,
}

/// The history as lines. What only leads from one step to the next says nothing.
pub fn narrate(events: &[Event]) -> Vec<Line> {
    let (mut state, mut lines) = (RunState::default(), Vec::new());
    for event in events {
        let step = |frame: &str| state.frames.get(frame).map(|f| f.execution(frame)).unwrap_or_default();
        let told = |frame: &str, text: String, bad: bool| Some(Line { at: event.at, step: step(frame), text, bad });
        let run = |text: String, bad: bool| Some(Line { at: event.at, step: String::new(), text, bad });
        let line = match &event.what {
            Happened::RunStarted { input } => run(format!("the run began with {}", short(input)), false),
            Happened::TaskStarted { frame, attempt: 1, input, .. } => {
                told(frame, format!("began with {}", short(input)), false)
            }
            Happened::TaskStarted { frame, attempt, .. } => told(frame, format!("attempt {attempt} began"), false),
            Happened::ForkStarted { frame, inputs, branches, .. } => {
                told(frame, format!("began, {} in all", branches.unwrap_or(inputs.len())), false)
            }
            Happened::WaitStarted { frame, until } => {
                told(frame, format!("waits {} s", (until - event.at).max(0) as f64 / 1000.0), false)
            }
            Happened::StepRetried { frame, failure, until, .. } => {
                let pause = (until - event.at).max(0) as f64 / 1000.0;
                told(frame, format!("failed: {}: {}; tried again in {pause} s", failure.error, failure.cause), true)
            }
            Happened::StepSucceeded { frame, output, next } => {
                let next = next.as_ref().map(|next| format!(", then {next}")).unwrap_or_default();
                told(frame, format!("done: {}{next}", short(output)), false)
            }
            Happened::StepCaught { frame, failure, next, .. } => {
                told(frame, format!("failed: {}: {}; going on with {next}", failure.error, failure.cause), true)
            }
            Happened::StepFailed { frame, failure } => {
                told(frame, format!("failed: {}: {}", failure.error, failure.cause), true)
            }
            Happened::RunSucceeded { output } => run(format!("the run is done: {}", short(output)), false),
            Happened::RunFailed { step, failure } => {
                run(format!("the run failed at {step}: {}: {}", failure.error, failure.cause), true)
            }
            Happened::RunCancelled => run("the run was stopped".to_owned(), true),
            Happened::StepEntered { .. } | Happened::ChildStarted { .. } | Happened::ChildEnded { .. } => None,
        };
        lines.extend(line);
        state.apply(event);
    }
    lines
}

/// A value on one line, as long as a line may be.
fn short(value: &Value) -> String {
    const MOST: usize = 120;
    let text = value.to_string();
    if text.chars().count() <= MOST { text } else { text.chars().take(MOST).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::machine::Failure;
    use serde_json::json;

    #[test]
    fn a_history_reads_as_lines() {
        let event = |at, what| Event { at, what };
        let root = String::new;
        let events = [
            event(1, Happened::RunStarted { input: json!({"x": 1}) }),
            event(1, Happened::StepEntered { frame: root(), step: "a".into(), place: root() }),
            event(1, Happened::TaskStarted { frame: root(), attempt: 1, input: json!({"x": 1}), deadline: None }),
            event(
                2,
                Happened::StepRetried {
                    frame: root(),
                    failure: Failure::new("Unavailable", "busy"),
                    rule: 0,
                    until: 1002,
                },
            ),
            event(1002, Happened::TaskStarted { frame: root(), attempt: 2, input: json!({"x": 1}), deadline: None }),
            event(1003, Happened::StepSucceeded { frame: root(), output: json!(2), next: None }),
            event(1003, Happened::RunSucceeded { output: json!(2) }),
        ];
        let lines: Vec<String> =
            narrate(&events).into_iter().map(|l| format!("{} {} {}", l.at, l.step, l.text)).collect();
        assert_eq!(
            lines,
            [
                "1  the run began with {\"x\":1}",
                "1 a began with {\"x\":1}",
                "2 a failed: Unavailable: busy; tried again in 1 s",
                "1002 a attempt 2 began",
                "1003 a done: 2",
                "1003  the run is done: 2"
            ]
        );
    }
}
