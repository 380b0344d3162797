//! What happens in a run: the truth about it. Everything else is made of these.

use crate::workflow::program::Millis;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A failure: an error's name, and what led to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// A name: `Timeout`, `NotFound`, …
    pub error: String,
    /// For people.
    pub cause: String,
}

impl Failure {
    /// A failure of this name.
    pub fn new(error: &str, cause: impl Into<String>) -> Self {
        Self { error: error.to_owned(), cause: cause.into() }
    }
}

/// One thing that happened, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since 1970.
    pub at: Millis,
    /// What.
    #[serde(flatten)]
    pub what: Happened,
}

/// What happened. Frames are named as [`Program::locate`](crate::workflow::program::Program::locate) reads them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Happened {
    /// The run began.
    RunStarted {
        /// Its input.
        input: Value,
    },
    /// A frame entered a step.
    StepEntered {
        /// The frame.
        frame: String,
        /// The step.
        step: String,
        /// Where the frame is, for people: `both[0]/`.
        #[serde(skip_serializing_if = "String::is_empty", default)]
        place: String,
    },
    /// A task is to be done; committed before anything is done.
    TaskStarted {
        /// The frame.
        frame: String,
        /// Counted from 1.
        attempt: u32,
        /// What the task is given.
        input: Value,
        /// When the attempt has failed.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        deadline: Option<Millis>,
    },
    /// Inner frames are to be run.
    ForkStarted {
        /// The frame.
        frame: String,
        /// Counted from 1.
        attempt: u32,
        /// The input of each; of all, where there are `branches`.
        inputs: Vec<Value>,
        /// How many there are, where all have the same input.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        branches: Option<usize>,
        /// When the attempt has failed.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        deadline: Option<Millis>,
    },
    /// An inner frame began.
    ChildStarted {
        /// The outer frame.
        frame: String,
        /// Which.
        index: usize,
    },
    /// An inner frame ended.
    ChildEnded {
        /// The outer frame.
        frame: String,
        /// Which.
        index: usize,
        /// What came out.
        output: Value,
    },
    /// The step waits.
    WaitStarted {
        /// The frame.
        frame: String,
        /// Until when.
        until: Millis,
    },
    /// An attempt failed and there is another one.
    StepRetried {
        /// The frame.
        frame: String,
        /// What failed.
        failure: Failure,
        /// Which of the step's rules for retries.
        rule: usize,
        /// When the next attempt begins.
        until: Millis,
    },
    /// A step ended well.
    StepSucceeded {
        /// The frame.
        frame: String,
        /// What is passed on.
        output: Value,
        /// The step after it.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        next: Option<String>,
    },
    /// A step failed, and what to do then is known.
    StepCaught {
        /// The frame.
        frame: String,
        /// What failed.
        failure: Failure,
        /// What is passed on.
        output: Value,
        /// Where it goes on.
        next: String,
    },
    /// A step failed for good.
    StepFailed {
        /// The frame.
        frame: String,
        /// What failed.
        failure: Failure,
    },
    /// The run is over and went well.
    RunSucceeded {
        /// What came out.
        output: Value,
    },
    /// The run is over and failed.
    RunFailed {
        /// The step that failed.
        step: String,
        /// Why.
        failure: Failure,
    },
    /// Somebody stopped the run.
    RunCancelled,
}
