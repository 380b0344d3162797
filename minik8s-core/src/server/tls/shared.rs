//! One CA for all API servers on one store: made by the first, kept in the store beside the objects, where only those
//! who may read everything can. Clients and nodes then trust every server of the cluster.

use super::files::{Files, Pair};
use super::{Authority, Identity, TlsError};
use crate::server::keys;
use crate::store::{Commit, Op, Precondition, Store, StoreError};
use bytes::Bytes;
use jiff::Timestamp;
use std::path::Path;

impl Authority {
    /// The CA that a store holds. Where it holds none, the one of `directory` becomes it, or a new one. Whatever
    /// `directory` held before, the store's counts afterwards.
    ///
    /// # Errors
    /// [`TlsError::Store`] where the store cannot be used, and those of [`Authority::open`].
    pub async fn shared(store: &dyn Store, directory: Option<&Path>, now: Timestamp) -> Result<Self, TlsError> {
        let files = directory.map(Files::new).transpose()?;
        let authority = match read(store).await? {
            Some(found) => found,
            None => {
                let own = match files.as_ref().map(|files| files.read("ca")).transpose()? {
                    Some(Pair::Both(ca)) => Self(ca),
                    _ => Self::in_memory(now)?,
                };
                write(store, own).await?
            }
        };
        if let Some(files) = files {
            files.write("ca", authority.0.clone())?;
        }
        Ok(authority)
    }
}

async fn read(store: &dyn Store) -> Result<Option<Authority>, TlsError> {
    let entry = store.get(keys::AUTHORITY).await.map_err(|e| TlsError::Store(e.to_string()))?;
    entry.map(|entry| decode(&entry.value)).transpose()
}

/// Only the first one to write wins.
async fn write(store: &dyn Store, own: Authority) -> Result<Authority, TlsError> {
    let key: crate::store::Key = keys::AUTHORITY.into();
    let value = Bytes::from(format!("{}{}", own.0.certificate, own.0.key));
    let op = Op::Put { key: key.clone(), value, ttl: None };
    match store.commit(Commit { when: vec![Precondition::Absent(key)], ops: vec![op] }).await {
        Ok(_) => Ok(own),
        // Also where only the answer was lost, the store knows whose it is.
        Err(StoreError::Conflict { .. } | StoreError::Unknown { .. }) => match read(store).await? {
            Some(theirs) => Ok(theirs),
            None => Err(TlsError::Store("the cluster's CA was not written; try again".to_owned())),
        },
        Err(error) => Err(TlsError::Store(error.to_string())),
    }
}

fn decode(bytes: &[u8]) -> Result<Authority, TlsError> {
    let unreadable = |cause: &str| TlsError::Unreadable { what: "CA in the store", cause: cause.to_owned() };
    let text = std::str::from_utf8(bytes).map_err(|_| unreadable("it is no text"))?;
    let end = "-----END CERTIFICATE-----\n";
    let (certificate, key) = text.split_once(end).ok_or_else(|| unreadable("it has no certificate"))?;
    let authority = Authority(Identity { certificate: format!("{certificate}{end}"), key: key.to_owned() });
    authority.issuer()?;
    Ok(authority)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn all_servers_on_a_store_have_one_authority() {
        let (store, now) = (MemoryStore::default(), "2026-01-01T00:00:00Z".parse().unwrap());
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let own = Authority::open(first.path(), now).unwrap();
        // The second had one of its own, too, and comes too late.
        Authority::open(second.path(), now).unwrap();
        let shared = Authority::shared(&store, Some(first.path()), now).await.unwrap();
        assert_eq!(shared.certificate(), own.certificate());
        let also = Authority::shared(&store, Some(second.path()), now).await.unwrap();
        assert_eq!(also.certificate(), own.certificate());
        assert_eq!(Authority::open(second.path(), now).unwrap().pin().unwrap(), own.pin().unwrap());
    }
}
