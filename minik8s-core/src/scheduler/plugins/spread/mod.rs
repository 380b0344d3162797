//! `spec.topologySpreadConstraints`: pods of a kind evenly over domains. What must hold is a filter, what should hold a
//! score; pods without constraints of their own should be spread as the defaults say.

mod constraint;
mod filter;
mod score;
#[cfg(test)]
mod tests;

/// Refuses nodes on which constraints with `DoNotSchedule` would be broken, and prefers those that serve constraints
/// with `ScheduleAnyway`. Pods without any are spread softly, over zones (skew 5) and nodes (skew 3), among the pods of
/// the same controller, or with the same labels where a pod has no controller.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodSpread;
