//! The way to etcd: one member at a time, the next one where it fails.
//!
//! The client's own balancing is not used: it hands requests to members that are down as readily as to others.

use super::failure::Failure;
use super::options::{EtcdError, EtcdOptions};
use etcd_client::{Client, Error, KvClient, LeaseClient, WatchClient};
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The clients of one member.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) kv: KvClient,
    pub(super) watch: WatchClient,
    pub(super) lease: LeaseClient,
}

/// What a request does, and so what may be done when its answer is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    /// It changes nothing: another member may be asked.
    Read,
    /// It may have changed something: nobody else is asked.
    Write,
}

/// All members, and whom to ask.
pub(super) struct Connection {
    members: Vec<Member>,
    current: AtomicUsize,
    timeout: Duration,
}

impl Connection {
    /// Prepares the clients; connecting happens with the first request.
    pub(super) async fn open(options: &EtcdOptions) -> Result<Self, EtcdError> {
        if options.endpoints.is_empty() {
            return Err(EtcdError::NoEndpoints);
        }
        let mut members = Vec::new();
        for endpoint in &options.endpoints {
            let connect = options.connect_options(endpoint)?;
            let client = Client::connect([endpoint.as_str()], Some(connect)).await;
            members.push(Member::new(&client.map_err(|e| EtcdError::endpoint(endpoint, &e))?));
        }
        Ok(Self { members, current: AtomicUsize::new(0), timeout: options.request_timeout })
    }

    /// Asks the current member, and the others in turn where it is certain that nothing happened, or nothing can have.
    pub(super) async fn ask<T, F, Fut>(&self, does: Does, request: F) -> Result<T, Failure>
    where
        F: Fn(Member) -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        let first = self.current.load(Ordering::Relaxed);
        let mut last = Failure::NotDone("no member".to_owned());
        for turn in first..first + self.members.len() {
            let Some(member) = self.members.get(turn % self.members.len()) else { break };
            let failure = match tokio::time::timeout(self.timeout, request(member.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => Failure::of(&error),
                Err(_) => Failure::Lost(format!("no answer from etcd within {:?}", self.timeout)),
            };
            let others = match &failure {
                Failure::NotDone(_) => true,
                Failure::Lost(_) => does == Does::Read,
                _ => return Err(failure),
            };
            // Whoever asks next begins with another member, unless someone else moved on already.
            let _ = self.current.compare_exchange(turn, turn + 1, Ordering::Relaxed, Ordering::Relaxed);
            last = failure;
            if !others {
                break;
            }
        }
        Err(last)
    }
}

impl Member {
    fn new(client: &Client) -> Self {
        // Answers are as large as what was asked for; the sender's limits are the ones that count.
        Self {
            kv: client.kv_client().max_decoding_message_size(usize::MAX),
            watch: client.watch_client().max_decoding_message_size(usize::MAX),
            lease: client.lease_client(),
        }
    }
}
