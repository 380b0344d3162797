//! One container of a pod as it is seen: its present life, the one before, and what the API remembers where the
//! runtime has lost it.

use super::View;
use super::backoff::from_millis;
use crate::node::{ids, pod};
use crate::runtime::{ContainerInfo, ContainerState};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ContainerStatus;

/// The exit code shown where nobody knows it.
pub(crate) const UNKNOWN_EXIT: i32 = 137;

/// See the [module](self).
pub(crate) struct Seen<'a> {
    /// The latest life the runtime knows.
    pub(crate) current: Option<&'a ContainerInfo>,
    /// The one before.
    pub(crate) previous: Option<&'a ContainerInfo>,
    /// Older ones: to be removed.
    pub(crate) stale: Vec<&'a ContainerInfo>,
    /// What the API has.
    pub(crate) recorded: Option<&'a ContainerStatus>,
    lost: Option<Timestamp>,
    highest: Option<u32>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Never lived.
    None,
    /// Made, not started.
    Created,
    Running,
    /// Ended: exit code, start, end, and back-off step.
    Ended {
        code: i32,
        started: Timestamp,
        finished: Timestamp,
        step: u32,
    },
}

impl<'a> Seen<'a> {
    pub(crate) fn of(view: &View<'a>, container: &str) -> Self {
        let mut lives: Vec<&ContainerInfo> = view.containers.iter().filter(|c| ids::name(c) == container).collect();
        lives.sort_by_key(|life| std::cmp::Reverse(ids::attempt(life)));
        let mut lives = lives.into_iter();
        let current = lives.next();
        let remembered = view.memory.attempts.get(container).copied();
        Self {
            current,
            previous: lives.next(),
            stale: lives.collect(),
            recorded: pod::recorded(view.pod, container),
            lost: view.memory.lost.get(container).copied(),
            highest: current.map(ids::attempt).max(remembered),
        }
    }

    /// Where it is, by the runtime, and else by what was known before.
    pub(crate) fn life(&self, now: Timestamp) -> Life {
        let Some(info) = self.current else { return self.past(now) };
        match &info.state {
            ContainerState::Created => Life::Created,
            ContainerState::Running => Life::Running,
            ContainerState::Exited(exit) => Life::Ended {
                code: exit.code,
                started: from_millis(info.started_at),
                finished: from_millis(exit.finished_at),
                step: ids::backoff_step(info),
            },
        }
    }

    /// The life the runtime knows nothing of any more.
    fn past(&self, now: Timestamp) -> Life {
        let state = self.recorded.and_then(|status| status.state.as_ref());
        let step = self.recorded.map_or(0, |r| u32::try_from(r.restart_count).unwrap_or(0));
        if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
            let at = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
                time.as_ref().map_or(now, |t| t.0)
            };
            let (started, finished) = (at(&ended.started_at), at(&ended.finished_at));
            return Life::Ended { code: ended.exit_code, started, finished, step };
        }
        let ran = state.is_some_and(|state| state.running.is_some());
        match self.lost {
            Some(at) => Life::Ended { code: UNKNOWN_EXIT, started: at, finished: at, step: 0 },
            None if ran => Life::Ended { code: UNKNOWN_EXIT, started: now, finished: now, step: 0 },
            None => Life::None,
        }
    }

    /// The number of its next life.
    pub(crate) fn next_attempt(&self) -> u32 {
        let recorded = self.recorded.filter(|r| lived(r)).map(|r| u32::try_from(r.restart_count).unwrap_or(0));
        self.highest.max(recorded).map_or(0, |highest| highest + 1)
    }

    /// How often it was restarted so far.
    pub(crate) fn restarts(&self) -> u32 {
        let recorded = self.recorded.map(|r| u32::try_from(r.restart_count).unwrap_or(0));
        self.highest.max(recorded).unwrap_or(0)
    }
}

/// The API remembers a life of it.
fn lived(status: &ContainerStatus) -> bool {
    let ended =
        |state: &k8s_openapi::api::core::v1::ContainerState| state.running.is_some() || state.terminated.is_some();
    status.state.as_ref().is_some_and(ended)
        || status.last_state.as_ref().is_some_and(ended)
        || status.restart_count > 0
}
