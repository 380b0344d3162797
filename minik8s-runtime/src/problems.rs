//! Errors of a teardown, which goes on whatever becomes of its steps.

use minik8s_core::runtime::{RuntimeError, RuntimeResult};

/// What went wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<RuntimeError>);

impl Problems {
    pub(crate) fn note(&mut self, step: RuntimeResult<()>) {
        self.0.extend(step.err());
    }

    /// Succeeds where nothing went wrong. One error stays what it is; several are told together.
    pub(crate) fn none(mut self) -> RuntimeResult<()> {
        match (self.0.pop(), self.0.is_empty()) {
            (None, _) => Ok(()),
            (Some(only), true) => Err(only),
            (Some(last), false) => {
                let all: Vec<String> = self.0.iter().chain([&last]).map(ToString::to_string).collect();
                Err(RuntimeError::Unavailable { operation: "removing what is left", cause: all.join("; ") })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_problem_stays_itself_and_several_are_all_told() {
        let invalid = |text: &str| Err(RuntimeError::Invalid(text.to_owned()));
        let told = |steps: Vec<RuntimeResult<()>>| {
            let mut problems = Problems::default();
            steps.into_iter().for_each(|step| problems.note(step));
            problems.none().map_err(|e| e.to_string())
        };
        assert_eq!(told(vec![Ok(()), Ok(())]), Ok(()));
        assert_eq!(told(vec![invalid("a"), Ok(())]), Err("invalid request: a".to_owned()));
        let both = told(vec![invalid("a"), invalid("b")]).expect_err("two problems");
        assert!(both.contains("request: a; invalid request: b"), "{both}");
    }
}
