//! Processes of this machine keep the contract.

use minik8s_core::job::{Gpus, SharedJobBackend};
use minik8s_core::testkit::jobs::{Subject, run_all};
use minik8s_gpu::local::{LocalBackend, LocalConfig};
use std::sync::Arc;

#[tokio::test]
async fn processes_of_this_machine_keep_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let gpus = ["0", "1"].map(str::to_owned).to_vec();
    let config = LocalConfig { slots: 4, gpus, ..LocalConfig::new(dir.path().join("jobs")) };
    let open = move || {
        let config = config.clone();
        async move { Arc::new(LocalBackend::new(config)) as SharedJobBackend }
    };
    run_all(Subject::new(open, |request| request.gpus = Some(Gpus { count: 3, kind: None }))).await;
}
