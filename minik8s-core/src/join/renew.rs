//! A certificate is renewed when a third of its life is left, and again and again until that works.

use super::{JoinError, Membership, request};
use crate::client::Backoff;
use crate::random;
use crate::server::auth::User;
use crate::server::tls::Identity;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
/// The clock may be set: nobody sleeps longer than this on its word.
const LONGEST: Duration = Duration::from_secs(3600);

/// When a certificate that is good from `begin` to `end` is to be renewed.
fn due(begin: Timestamp, end: Timestamp) -> Timestamp {
    let life = end.duration_since(begin);
    end.saturating_add(-SignedDuration::from_secs(life.as_secs() / 3)).unwrap_or(end)
}

impl Membership {
    /// Keeps the certificate fresh until `shutdown`.
    pub async fn keep_certificate(self, shutdown: CancellationToken) {
        let mut failures = 0;
        loop {
            let wait = match self.renew_if_due().await {
                Ok(wait) => {
                    failures = 0;
                    wait
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(node = self.node, %error, "cannot renew the node's certificate");
                    RETRY.jittered(failures, random::fraction())
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait.min(LONGEST)) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Renews where it is time; answers how long there is nothing to do.
    async fn renew_if_due(&self) -> Result<Duration, JoinError> {
        let kept = self.credentials.certificate()?.zip(self.credentials.key()?);
        let Some(identity) = kept.map(|(certificate, key)| Identity { certificate, key }) else {
            return Ok(LONGEST);
        };
        let Some((begin, end)) = identity.validity() else { return Ok(LONGEST) };
        let left = due(begin, end).duration_since(self.clock.now());
        if left > SignedDuration::ZERO {
            return Ok(Duration::try_from(left).unwrap_or_default());
        }
        let transport = Arc::new(self.transport.clone());
        let user = User::of_node(&self.node);
        let certificate = request::certificate(transport, &user, &identity.key, PATIENCE).await?;
        self.credentials.keep_certificate(&certificate)?;
        self.identity.replace(&certificate, &identity.key).map_err(JoinError::Api)?;
        tracing::info!(node = self.node, "the node's certificate was renewed");
        Ok(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_the_life_is_left_when_it_is_time() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let due = due(at("2026-01-01T00:00:00Z"), at("2026-01-01T03:00:00Z"));
        assert_eq!(due, at("2026-01-01T02:00:00Z"));
    }
}
