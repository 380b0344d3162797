//! What should happen next to a pod, decided without doing it: [`decide::next`] maps what is seen to actions,
//! [`status::status`] maps it to the status the API shows. Both are functions of a [`View`].

pub(crate) mod backoff;
mod decide;
mod end;
mod seen;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use backoff::Backoff;
pub(crate) use decide::{ending, next};
pub(crate) use end::FAILED_KILL;
pub(crate) use seen::{Life, Seen};
pub(crate) use status::{StatusContext, status};

use crate::runtime::ContainerInfo;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// What is known of a pod at one moment.
pub(crate) struct View<'a> {
    /// Its record, the last one seen.
    pub(crate) pod: &'a Pod,
    /// The record has gone from the API.
    pub(crate) gone: bool,
    pub(crate) sandbox: SandboxState,
    /// What the runtime has of it.
    pub(crate) containers: &'a [ContainerInfo],
    pub(crate) memory: &'a Memory,
    pub(crate) backoff: &'a Backoff,
    pub(crate) now: Timestamp,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SandboxState {
    #[default]
    Absent,
    /// Part of it is missing, or it has no network yet.
    Broken,
    Ready,
}

/// What the agent remembers of a pod beside runtime and API. All of it can be lost: it is learned again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// Operations under way on the pod as a whole.
    pub(crate) pod_busy: bool,
    /// The pod's volumes are being brought up to date: nobody else may touch them.
    pub(crate) refreshing: bool,
    /// Operations under way, by container name.
    pub(crate) busy: BTreeMap<String, Busy>,
    /// Why the last operation on the pod as a whole failed.
    pub(crate) setup_failure: Option<Failure>,
    /// Why the last try to start a container failed, by container name.
    pub(crate) failures: BTreeMap<String, Failure>,
    /// What probes say, by container id.
    pub(crate) health: BTreeMap<String, Health>,
    /// Highest attempt seen, by container name.
    pub(crate) attempts: BTreeMap<String, u32>,
    /// Containers that were seen running and have vanished: when that was noticed, by container name.
    pub(crate) lost: BTreeMap<String, Timestamp>,
    /// Last words, by container id.
    pub(crate) last_words: BTreeMap<String, String>,
    /// Addresses of the pod.
    pub(crate) ips: Vec<IpAddr>,
    /// It takes more of the node than it may: the message.
    pub(crate) evicted: Option<String>,
    /// The pod itself failed: reason and message.
    pub(crate) doom: Option<(&'static str, String)>,
    /// Everything of it is removed.
    pub(crate) torn_down: bool,
    /// Its network is given back.
    pub(crate) released: bool,
    /// Images of containers that run, by container id: what the status shows.
    pub(crate) images: BTreeMap<String, String>,
}

/// An operation under way on a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    Starting,
    /// Its process gets until then to end.
    Stopping(Timestamp),
    /// It is being paused or resumed.
    Turning,
}

/// A try that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// How many times in a row.
    pub(crate) count: u32,
    pub(crate) at: Timestamp,
    pub(crate) retry_at: Timestamp,
}

/// What probes say about one life of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// The startup probe's verdict; `None` while open, or where there is no probe.
    pub(crate) startup: Option<bool>,
    /// The readiness probe's verdict.
    pub(crate) ready: Option<bool>,
    /// Why it must be restarted.
    pub(crate) unhealthy: Option<String>,
}

/// Something to do. Every action is idempotent, and may have been done before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Volumes, sandbox, network.
    SetUp,
    /// Remove a broken sandbox, with what is in it.
    Rebuild,
    /// Fetch the image, make and start the container.
    Start { container: String, attempt: u32, step: u32 },
    /// Hook, SIGTERM, and after the grace SIGKILL.
    Stop { id: String, container: String, grace: Duration, why: String },
    /// Freeze a container's processes, or let them go on.
    Pause { id: String, container: String, pause: bool },
    /// Remove a past life of a container.
    Remove { id: String },
    /// Give the addresses back; the containers' records stay for their logs.
    Release,
    /// Remove everything of the pod.
    TearDown,
    /// Fail the pod.
    Doom { reason: &'static str, message: String },
    /// The pod is gone from this node: its record may go, too.
    Finish,
}

/// The actions, and when to look again if nothing else happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) actions: Vec<Action>,
    pub(crate) wake: Option<Timestamp>,
}

impl Decision {
    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(crate) fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}
