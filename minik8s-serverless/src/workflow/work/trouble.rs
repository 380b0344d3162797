//! An API that fails for a while: how long it may, and how soon it is asked again.

use crate::workflow::cluster_invoker::AGAIN;
use crate::workflow::machine::Failure;
use minik8s_core::api::{ApiError, Reason};
use minik8s_core::random;
use std::time::Duration;
use tokio::time::Instant;

/// Failures in a row.
pub(super) struct Trouble {
    patience: Duration,
    /// When the first of them was.
    since: Option<Instant>,
    count: u32,
}

impl Trouble {
    /// None yet; later on, they may last so long.
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, since: None, count: 0 }
    }

    /// The API has answered, and may fail for as long as before. Pauses go on growing: it may answer one question and fail at
    /// the next.
    pub(super) fn is_heard(&mut self) {
        self.since = None;
    }

    /// All is well.
    pub(super) fn is_over(&mut self) {
        (self.since, self.count) = (None, 0);
    }

    /// Waits until the API may be asked again.
    ///
    /// # Errors
    /// Where it will never do what it was asked for, or has failed for too long.
    pub(super) async fn pause(&mut self, error: &ApiError) -> Result<(), Failure> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if is_hopeless(error) {
            return Err(Failure::new("Refused", error.to_string()));
        }
        if since.elapsed() >= self.patience {
            return Err(Failure::new("Unavailable", error.to_string()));
        }
        self.count = self.count.saturating_add(1);
        tracing::debug!(%error, "a job will be looked at again");
        tokio::time::sleep(AGAIN.jittered(self.count, random::fraction())).await;
        Ok(())
    }
}

/// What the API will never do is not asked again.
fn is_hopeless(error: &ApiError) -> bool {
    use Reason::{BadRequest, Forbidden, Invalid, MethodNotAllowed, NotFound, RequestEntityTooLarge};
    matches!(error.reason, Invalid | BadRequest | Forbidden | RequestEntityTooLarge | NotFound | MethodNotAllowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_waited_for_until_patience_ends_and_what_will_not_is_told_at_once() {
        let error = |reason| ApiError::new(reason, "no");
        let (passing, refused) = (error(Reason::ServiceUnavailable), error(Reason::Invalid));
        let mut trouble = Trouble::new(Duration::from_secs(3600));
        assert_eq!(trouble.pause(&passing).await, Ok(()));
        assert_eq!(trouble.pause(&error(Reason::Expired)).await, Ok(()));
        assert_eq!(trouble.pause(&refused).await.map_err(|f| f.error), Err("Refused".to_owned()));
        // Pauses are two seconds at most: nobody waits for much longer, or gives up much sooner, than it may.
        let mut patient = Trouble::new(Duration::from_secs(10));
        let began = Instant::now();
        let gave_up = loop {
            if let Err(failure) = patient.pause(&passing).await {
                break failure;
            }
        };
        assert_eq!(gave_up.error, "Unavailable");
        assert!((10..=12).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        // An answer makes it begin anew.
        patient.is_heard();
        assert_eq!(patient.pause(&passing).await, Ok(()));
        patient.is_over();
        assert_eq!((patient.since, patient.count), (None, 0));
    }
}
