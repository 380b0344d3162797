//! A commit as one etcd transaction.

use super::connection::{Does, Member};
use super::failure::Failure;
use super::read::entry;
use super::{Shared, here, lease, there};
use crate::api::Revision;
use crate::store::{Commit, Entry, Key, Op, Precondition, StoreError};
use etcd_client::{Compare, CompareOp, Error, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};
use std::time::Duration;
use tokio::time::Instant;

/// What protobuf and etcd put around each operation and precondition, generously.
const PER_ITEM: usize = 64;

impl Shared {
    pub(super) async fn commit(&self, commit: &Commit) -> Result<Revision, StoreError> {
        self.fits(commit)?;
        if commit.when.is_empty() && commit.ops.is_empty() {
            return self.revision().await;
        }
        let answer = match self.try_commit(commit).await {
            // A lease that was to be shared had ended; nothing was written.
            Err(Failure::LeaseGone) => {
                self.leases.clear();
                self.try_commit(commit).await
            }
            other => other,
        };
        let answer = answer.map_err(|failure| failure.writing("committing"))?;
        if answer.succeeded() {
            return Ok(answer.header().map_or(0, |h| here(h.revision())));
        }
        Err(self.conflict(commit, &answer))
    }

    /// Refuses what this etcd would not take, in words that name the way out.
    fn fits(&self, commit: &Commit) -> Result<(), StoreError> {
        let (limit, count) = (self.options.max_ops, commit.ops.len().max(commit.when.len()));
        if count > limit {
            let why = format!("a commit of {count} operations is larger than the {limit} that etcd takes: split it");
            return Err(StoreError::Invalid(why));
        }
        let size: usize =
            commit.ops.iter().map(op_size).sum::<usize>() + commit.when.iter().map(when_size).sum::<usize>();
        let limit = self.options.max_request;
        if size > limit {
            let why = format!("a commit of {size} bytes is larger than the {limit} that etcd takes: split it");
            return Err(StoreError::Invalid(why));
        }
        Ok(())
    }

    async fn try_commit(&self, commit: &Commit) -> Result<TxnResponse, Failure> {
        let txn = self.txn(commit).await?;
        let send = |mut member: Member| {
            let txn = txn.clone();
            async move { member.kv.txn(txn).await }
        };
        self.connection.ask(Does::Write, send).await
    }

    async fn txn(&self, commit: &Commit) -> Result<Txn, Failure> {
        let invalid = |error: StoreError| Failure::Invalid(error.to_string());
        let (mut when, mut then, mut otherwise) = (Vec::new(), Vec::new(), Vec::new());
        for precondition in &commit.when {
            let key = self.keys.there(key_of(precondition)).map_err(invalid)?;
            when.push(match precondition {
                Precondition::Absent(_) => Compare::create_revision(key.clone(), CompareOp::Equal, 0),
                Precondition::At(_, revision) => Compare::mod_revision(key.clone(), CompareOp::Equal, there(*revision)),
            });
            otherwise.push(TxnOp::get(key, None));
        }
        for op in &commit.ops {
            then.push(match op {
                Op::Put { key, value, ttl } => {
                    let options = match ttl {
                        Some(ttl) => Some(PutOptions::new().with_lease(self.lease(*ttl).await?)),
                        None => None,
                    };
                    TxnOp::put(self.keys.there(key).map_err(invalid)?, value.to_vec(), options)
                }
                Op::Delete { key } => TxnOp::delete(self.keys.there(key).map_err(invalid)?, None),
            });
        }
        Ok(Txn::new().when(when).and_then(then).or_else(otherwise))
    }

    /// A lease for a key with this lifetime: one that others use, or a new one.
    async fn lease(&self, lifetime: Duration) -> Result<i64, Failure> {
        let since = Instant::now();
        if let Some(id) = self.leases.take(lifetime, since) {
            return Ok(id);
        }
        let grant = |mut member: Member| async move { grant(&mut member, lifetime).await };
        // A lease that nobody uses ends by itself, so that asking twice does no harm.
        let granted = self.connection.ask(Does::Read, grant).await;
        let id = granted.map_err(|failure| match failure {
            Failure::Lost(why) => Failure::NotDone(why),
            other => other,
        })?;
        self.leases.offer(lifetime, id, since);
        Ok(id)
    }

    fn conflict(&self, commit: &Commit, answer: &TxnResponse) -> StoreError {
        let answers = answer.op_responses();
        let failed = commit.when.iter().zip(&answers).find_map(|(precondition, found)| {
            let current = self.found(found);
            (!holds(precondition, current.as_ref())).then(|| (key_of(precondition).clone(), current))
        });
        match failed {
            Some((key, current)) => StoreError::Conflict { key, current },
            None => StoreError::Unknown("etcd refused a commit whose preconditions hold".to_owned()),
        }
    }

    fn found(&self, answer: &TxnOpResponse) -> Option<Entry> {
        let TxnOpResponse::Get(found) = answer else { return None };
        found.kvs().first().and_then(|kv| entry(&self.keys, kv))
    }
}

async fn grant(member: &mut Member, lifetime: Duration) -> Result<i64, Error> {
    Ok(member.lease.grant(lease::granted(lifetime), None).await?.id())
}

fn key_of(precondition: &Precondition) -> &Key {
    match precondition {
        Precondition::Absent(key) | Precondition::At(key, _) => key,
    }
}

fn holds(precondition: &Precondition, current: Option<&Entry>) -> bool {
    match precondition {
        Precondition::Absent(_) => current.is_none(),
        Precondition::At(_, revision) => current.is_some_and(|e| e.revision == *revision),
    }
}

fn op_size(op: &Op) -> usize {
    PER_ITEM
        + match op {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete { key } => key.len(),
        }
}

/// A key stands in the condition, and in the question what is there instead.
fn when_size(precondition: &Precondition) -> usize {
    PER_ITEM + 2 * key_of(precondition).len()
}
