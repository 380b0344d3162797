//! Certificates on the way to etcd.

use minik8s_core::store::{EtcdError, EtcdOptions, EtcdStore, EtcdTls, Store};
use minik8s_core::testkit::etcd::Etcd;
use minik8s_core::testkit::need::{Need, met};

#[tokio::test]
async fn etcd_is_reached_with_the_right_certificates_alone() {
    if !met(&[Need::Etcd]) {
        return;
    }
    let etcd = Etcd::start_with_tls(1).await;
    let options = etcd.options("/tls");
    let store = EtcdStore::connect(options.clone()).await.unwrap();
    assert!(store.revision().await.unwrap() > 0);
    let tls = options.tls.clone().unwrap();
    let nameless = EtcdOptions { tls: Some(EtcdTls { identity: None, ..tls.clone() }), ..options.clone() };
    let trustless = EtcdOptions { tls: Some(EtcdTls { ca: None, ..tls }), ..options.clone() };
    for wrong in [nameless, trustless] {
        let error = EtcdStore::connect(wrong).await.err().expect("must be refused");
        assert!(matches!(&error, EtcdError::Unreachable { .. }), "{error}");
    }
    let plain = EtcdOptions { endpoints: vec!["http://127.0.0.1:1".to_owned()], ..options };
    assert!(matches!(EtcdStore::connect(plain).await, Err(EtcdError::Endpoint { .. })));
    let nobody = EtcdOptions::new(Vec::<String>::new());
    assert!(matches!(EtcdStore::connect(nobody).await, Err(EtcdError::NoEndpoints)));
}
