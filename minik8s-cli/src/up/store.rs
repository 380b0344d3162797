//! The store that the arguments of `up` name.

use crate::args::{ControlPlane, Etcd, StoreKind};
use anyhow::{Context, Result};
use minik8s_core::store::{EmbeddedStore, EtcdOptions, EtcdStore, EtcdTls, MemoryStore, Store};
use std::path::Path;
use std::sync::Arc;

/// Opens it.
pub(crate) async fn open(options: &ControlPlane, data: &Path) -> Result<Arc<dyn Store>> {
    Ok(match options.store {
        StoreKind::Memory => Arc::new(MemoryStore::default()),
        StoreKind::Embedded => {
            let path = data.join("store");
            let store = EmbeddedStore::open(&path).await;
            Arc::new(store.with_context(|| format!("cannot open the store {}", path.display()))?)
        }
        StoreKind::Etcd => {
            let store = EtcdStore::connect(etcd(&options.etcd)?).await;
            Arc::new(store.context("cannot open the store; is etcd running, and do --etcd-endpoints name it?")?)
        }
    })
}

fn etcd(options: &Etcd) -> Result<EtcdOptions> {
    let tls = match (&options.etcd_ca, &options.etcd_cert, &options.etcd_key) {
        (None, None, None) => None,
        (ca, certificate, key) => {
            let identity = certificate.as_deref().zip(key.as_deref());
            let identity = identity.map(|(c, k)| Ok::<_, anyhow::Error>((read(c)?, read(k)?))).transpose()?;
            Some(EtcdTls { ca: ca.as_deref().map(read).transpose()?, identity })
        }
    };
    let endpoints = options.etcd_endpoints.iter().cloned();
    Ok(EtcdOptions { prefix: options.etcd_prefix.clone(), tls, ..EtcdOptions::new(endpoints) })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
