//! Leader election by a Lease, with the fields and the rules of client-go, so that either understands the other.
//!
//! Several processes may want to run the same loops; one of them does. The holder renews its Lease all the time, and
//! stops when it cannot do so before the **renew deadline**. The others claim the Lease once it did not change for its
//! **duration**. Between the two the loops of a holder that was cut off have time to end, and where they do not, they are
//! dropped: two never run at once. Every write carries the version that it is based on, so that of two claims one fails.
//!
//! client-go's defaults (15, 10 and 2 s) leave a cluster without control loops for up to 17 s after a crash. Ours (6, 4
//! and 1 s) are made for a pause below 10 s: at most 6 s until the Lease ends, as a candidate sees renewals at once (it
//! watches the Lease), and the rest for the claim on a machine that is busy. A holder still outlasts three failed
//! renewals, and an election among etcd's own members, without losing its place. A clean stop releases the Lease, and
//! another one leads at once.
//!
//! What this cannot do: a process that stood still for longer than the Lease (a suspended machine) goes on until its
//! timers tell it to stop. Nothing but a precondition on every write protects from that, and every write here has one.

mod decide;
mod presence;

pub use presence::CANDIDATE_LABEL;

use super::{Api, Backoff, Client, Informer, InformerOptions};
use crate::api::ApiResult;
use crate::clock::SharedClock;
use crate::random;
use decide::{Step, View, held_by, holder};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use presence::Presence;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Who stands for election, and for what.
#[derive(Clone, Debug)]
pub struct ElectionConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease: what one leads.
    pub name: String,
    /// Who this is; no two candidates have the same.
    pub identity: String,
    /// How long others wait for a sign of life of the holder; whole seconds.
    pub lease_duration: Duration,
    /// How long a holder may fail to renew before it stops; shorter than `lease_duration`.
    pub renew_deadline: Duration,
    /// How often it renews, and how long a candidate waits after a claim that failed.
    pub retry_period: Duration,
    /// Where this process tells what it counts, `10.0.0.1:10259`: whether it leads or not, a Lease of its own says so (see
    /// [`CANDIDATE_LABEL`]).
    pub metrics: Option<SocketAddr>,
}

/// Annotation of candidates' own Leases: where each serves `/metrics`.
pub const METRICS_ANNOTATION: &str = "minik8s.io/metrics";

impl ElectionConfig {
    /// The default times, in `kube-system`.
    pub fn new(name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: "kube-system".to_owned(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(6),
            renew_deadline: Duration::from_secs(4),
            retry_period: Duration::from_secs(1),
            metrics: None,
        }
    }
    /// The default times for this process, told apart from every other, also from the one that it follows.
    pub fn of_process(name: impl Into<String>) -> Self {
        Self::new(name, format!("minik8s_{}", uuid::Uuid::new_v4()))
    }
}

/// A candidate.
pub struct Election {
    api: Api<Lease>,
    clock: SharedClock,
    config: ElectionConfig,
}

/// A Lease that this candidate holds.
struct Held {
    lease: Lease,
    /// When the last write that went through was begun: others count from then at the earliest.
    since: Instant,
}

impl Election {
    /// A candidate; it does nothing until it [runs](Self::run).
    pub fn new(client: &Client, clock: SharedClock, config: ElectionConfig) -> Self {
        Self { api: client.api(&config.namespace), clock, config }
    }

    /// Runs `work` whenever this candidate leads, until `stop`. The token that `work` is given is cancelled when it must
    /// end; where it does not end in time, it is dropped. Returns when `work` has ended and the Lease is released.
    pub async fn run<W, F>(&self, stop: CancellationToken, work: W)
    where
        W: Fn(CancellationToken) -> F,
        F: Future<Output = ()>,
    {
        let (api, clock, config) = (&self.api, &self.clock, &self.config);
        let lives = async {
            if let Some(metrics) = config.metrics {
                Presence { api, clock, config, metrics }.keep(&stop).await;
            }
        };
        let leads = async {
            while let Some(held) = self.acquire(&stop).await {
                info!(lease = self.config.name, me = self.config.identity, "leading");
                self.lead(held, &stop, &work).await;
                info!(lease = self.config.name, me = self.config.identity, "not leading any more");
                self.pause(&stop).await;
            }
        };
        tokio::join!(leads, lives);
    }

    /// Waits until the Lease is ours; `None` where `stop` came first.
    async fn acquire(&self, stop: &CancellationToken) -> Option<Held> {
        let only = InformerOptions {
            field_selector: format!("metadata.name={}", self.config.name),
            ..InformerOptions::default()
        };
        let leases = Informer::start(self.api.clone(), only, stop.child_token());
        let mut changes = leases.subscribe();
        let mut view = View::default();
        while leases.synced().await && !stop.is_cancelled() {
            view.observe(leases.list().into_iter().next(), Instant::now());
            match view.decide(&self.config.identity, self.config.lease_duration, Instant::now()) {
                Step::Wait(until) => {
                    tokio::select! {
                        biased;
                        _ = changes.next() => {}
                        () = sleep_until(until) => {}
                    }
                }
                Step::Claim => match self.write(&self.config.identity, view.lease(), self.claim_by()).await {
                    Some(Ok(held)) => return Some(held),
                    // Somebody else was quicker, or nobody can tell: the informer will show it.
                    _ => self.pause(stop).await,
                },
            }
        }
        None
    }

    fn claim_by(&self) -> Instant {
        Instant::now() + self.config.renew_deadline
    }

    /// Does the work while the Lease is held.
    async fn lead<W, F>(&self, mut held: Held, stop: &CancellationToken, work: &W)
    where
        W: Fn(CancellationToken) -> F,
        F: Future<Output = ()>,
    {
        let end = stop.child_token();
        {
            let mut work = pin!(work(end.clone()));
            let lost = tokio::select! {
                biased;
                () = &mut work => false,
                () = self.hold(&mut held) => true,
            };
            end.cancel();
            if lost {
                warn!(lease = self.config.name, me = self.config.identity, "the lease could not be renewed in time");
                // Half of what is left until somebody else may lead; then the work is dropped where it stands.
                let spare = self.config.lease_duration.saturating_sub(self.config.renew_deadline);
                let _ = timeout_at(held.since + self.config.lease_duration - spare / 2, work).await;
                return;
            }
        }
        self.release(&held).await;
    }

    /// Renews the Lease for as long as that works; returns when the work must end.
    async fn hold(&self, held: &mut Held) {
        loop {
            let deadline = held.since + self.config.renew_deadline;
            sleep_until(deadline.min(Instant::now() + self.config.retry_period)).await;
            match self.write(&self.config.identity, Some(&held.lease), deadline).await {
                Some(Ok(renewed)) => *held = renewed,
                // The answer of an earlier renewal may have been lost: then the Lease is ours at a later version.
                Some(Err(error)) if error.is_conflict() => match timeout_at(deadline, self.read()).await {
                    Ok(Ok(Some(lease))) if holder(&lease) == self.config.identity => held.lease = lease,
                    Ok(Err(error)) => warn!(%error, "cannot read the lease"),
                    _ => return,
                },
                Some(Err(error)) if error.is_not_found() => return,
                Some(Err(error)) => warn!(%error, "cannot renew the lease, trying again"),
                None => return,
            }
            if Instant::now() >= held.since + self.config.renew_deadline {
                return;
            }
        }
    }

    async fn read(&self) -> ApiResult<Option<Lease>> {
        self.api.get_opt(&self.config.name).await
    }

    /// Writes the Lease as held by `holder`, on top of `old`; `None` where the deadline came first.
    async fn write(&self, holder: &str, old: Option<&Lease>, deadline: Instant) -> Option<ApiResult<Held>> {
        let since = Instant::now();
        let duration = if holder.is_empty() { Duration::from_secs(1) } else { self.config.lease_duration };
        let mut lease = held_by(holder, duration, old, MicroTime(self.clock.now()));
        lease.metadata.name = Some(self.config.name.clone());
        let write = async {
            match old {
                Some(_) => self.api.update(&lease).await,
                None => self.api.create(&lease).await,
            }
        };
        let written = timeout_at(deadline, write).await.ok()?;
        Some(written.map(|lease| Held { lease, since }))
    }

    /// Gives the Lease up, so that another one leads at once. Where that fails, it ends by itself.
    async fn release(&self, held: &Held) {
        let deadline = held.since + self.config.lease_duration;
        let mut released = self.write("", Some(&held.lease), deadline).await;
        // A renewal may have been under way when the work ended.
        if matches!(&released, Some(Err(error)) if error.is_conflict())
            && let Ok(Ok(Some(lease))) = timeout_at(deadline, self.read()).await
            && holder(&lease) == self.config.identity
        {
            released = self.write("", Some(&lease), deadline).await;
        }
        if let Some(Err(error)) = released {
            warn!(%error, "the lease was not released, it ends by itself");
        }
    }

    /// Waits for a retry period, a little differently each time so that candidates do not run in step.
    async fn pause(&self, stop: &CancellationToken) {
        let period = Backoff::new(self.config.retry_period, self.config.retry_period);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = sleep(period.jittered(1, random::fraction())) => {}
        }
    }
}
