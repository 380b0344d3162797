//! A candidate says that it lives, whoever leads: in a Lease of its own, which the server forgets unless it is written
//! again. No clock is compared with another.

use super::{ElectionConfig, METRICS_ANNOTATION};
use crate::api::ApiResult;
use crate::client::Api;
use crate::clock::SharedClock;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Label of a candidate's own Lease: the Lease it would lead by. Such a Lease goes when its duration has passed since it was
/// written.
pub const CANDIDATE_LABEL: &str = "minik8s.io/candidate";

/// How often a candidate says that it lives.
const EVERY: Duration = Duration::from_secs(5);
/// How long its word counts.
const LIFE: Duration = Duration::from_secs(15);
/// The same of its last word.
const LAST: Duration = Duration::from_secs(1);

/// A candidate that tells at an address what it counts.
pub(super) struct Presence<'a> {
    pub(super) api: &'a Api<Lease>,
    pub(super) clock: &'a SharedClock,
    pub(super) config: &'a ElectionConfig,
    pub(super) metrics: SocketAddr,
}

impl Presence<'_> {
    /// Says that it lives, until `stop`.
    pub(super) async fn keep(&self, stop: &CancellationToken) {
        let mut known = None;
        loop {
            known = self.say(known, LIFE).await;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep(EVERY) => {}
            }
        }
        self.say(known, LAST).await;
    }

    /// Writes the Lease on top of what is known of it; what is known now.
    async fn say(&self, known: Option<Lease>, life: Duration) -> Option<Lease> {
        match timeout(EVERY, self.write(known, life)).await {
            Ok(Ok(lease)) => return Some(lease),
            Ok(Err(error)) => debug!(lease = self.config.name, %error, "cannot say that this candidate lives"),
            Err(_) => debug!(lease = self.config.name, "the word that this candidate lives was not taken in time"),
        }
        None
    }

    async fn write(&self, known: Option<Lease>, life: Duration) -> ApiResult<Lease> {
        let name = self.name();
        let known = match known {
            Some(known) => Some(known),
            None => self.api.get_opt(&name).await?,
        };
        let mut lease = known.clone().unwrap_or_default();
        lease.metadata.name = Some(name);
        let labels = lease.metadata.labels.get_or_insert_default();
        labels.insert(CANDIDATE_LABEL.to_owned(), self.config.name.clone());
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(METRICS_ANNOTATION.to_owned(), self.metrics.to_string());
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: i32::try_from(life.as_secs()).ok(),
            renew_time: Some(MicroTime(self.clock.now())),
            ..LeaseSpec::default()
        });
        match known {
            Some(_) => self.api.update(&lease).await,
            None => self.api.create(&lease).await,
        }
    }

    /// `kube-scheduler-0b2f…`: what it stands for, and what tells it from others.
    fn name(&self) -> String {
        let own = self.config.identity.rsplit('_').next().unwrap_or_default();
        let own: String =
            own.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
        format!("{}-{}", self.config.name, own.trim_matches('-'))
    }
}
