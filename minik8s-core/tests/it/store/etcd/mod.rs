//! The etcd store under the suite, against a real etcd, and what only a server on the network can suffer.

mod failures;
mod servers;
mod tls;

use minik8s_core::store::{EtcdStore, Store};
use minik8s_core::testkit::etcd::Etcd;
use minik8s_core::testkit::need::{Need, met};
use minik8s_core::testkit::store::run_all;
use std::sync::Arc;

#[tokio::test]
async fn etcd_store_conforms() {
    if !met(&[Need::Etcd]) {
        return;
    }
    let etcd = Etcd::start(1).await;
    let options = etcd.options("/suite-of/one");
    run_all(move || {
        let options = options.clone();
        async move { Arc::new(EtcdStore::connect(options).await.unwrap()) as Arc<dyn Store> }
    })
    .await;
}
