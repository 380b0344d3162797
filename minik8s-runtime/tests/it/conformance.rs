//! The conformance suite, on a private containerd.

use crate::harness::{Harness, able, busybox};
use minik8s_core::runtime::SharedRuntime;
use minik8s_core::testkit::runtime::{Subject, run_all};
use minik8s_runtime::ContainerdRuntime;
use minik8s_runtime::testing::TEST_IMAGE;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn containerd_keeps_the_contract() {
    if !able() {
        return;
    }
    let h = Harness::start().await;
    let config = h.config.clone();
    let subject = Subject::new(TEST_IMAGE, busybox(), move || {
        let config = config.clone();
        async move { Arc::new(ContainerdRuntime::connect(config).await.expect("connect")) as SharedRuntime }
    });
    run_all(subject).await;
}
