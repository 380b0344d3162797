//! The fake runtime passes the suite of the real one.

use minik8s_core::runtime::SharedRuntime;
use minik8s_core::testkit::FakeRuntime;
use minik8s_core::testkit::runtime::{Subject, run_all};

#[tokio::test]
async fn the_fake_runtime_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("suite.tar");
    std::fs::write(&archive, b"").unwrap();
    let fake = FakeRuntime::new();
    run_all(Subject::new("localhost/suite:1", archive, move || {
        let fake = fake.clone();
        async move { fake as SharedRuntime }
    }))
    .await;
}
