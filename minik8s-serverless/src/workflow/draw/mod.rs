//! Pictures of workflows: for the terminal and as SVG, with the state of each step where a run is given. Pure.

mod layout;
mod scene;
mod svg;
#[cfg(test)]
mod tests;
mod text;

pub use svg::svg;
pub use text::{Paint, text};

use super::machine::StepProgress;

/// How a step stands, of all its visits and items together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepState {
    /// Not entered.
    Pending,
    /// Under way.
    Running,
    /// Ended well.
    Succeeded,
    /// Failed.
    Failed,
    /// Failed, and the run went on.
    Caught,
    /// Ended with what it is part of.
    Stopped,
}

impl StepState {
    /// The state that matters most of all a step went through.
    pub fn of(progress: Option<&StepProgress>) -> Self {
        match progress {
            None => Self::Pending,
            Some(p) if p.running > 0 => Self::Running,
            Some(p) if p.failed > 0 => Self::Failed,
            Some(p) if p.caught > 0 => Self::Caught,
            Some(p) if p.stopped > 0 => Self::Stopped,
            Some(p) if p.succeeded > 0 => Self::Succeeded,
            Some(_) => Self::Pending,
        }
    }

    /// A sign for it, one column wide.
    pub fn sign(self) -> char {
        match self {
            Self::Pending => '○',
            Self::Running => '◐',
            Self::Succeeded => '✓',
            Self::Failed => '✗',
            Self::Caught => '↷',
            Self::Stopped => '■',
        }
    }
}
