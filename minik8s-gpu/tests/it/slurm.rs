//! A real Slurm behind a real sshd keeps the contract, and more.

use minik8s_core::job::SharedJobBackend;
use minik8s_core::testkit::jobs::{Subject, run_all};
use minik8s_gpu::slurm::SlurmBackend;
use minik8s_gpu::testkit::{SlurmBed, SlurmFaults};
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slurm_keeps_the_contract() {
    let Some(bed) = SlurmBed::start() else { return };
    let bed = Arc::new(bed);
    let config = bed.config();
    let open = move || {
        let config = config.clone();
        async move { Arc::new(SlurmBackend::new(config).unwrap()) as SharedJobBackend }
    };
    let subject = Subject::new(open, |request| request.placement.partition = Some("nowhere".to_owned()));
    run_all(subject.with_faults(Arc::new(SlurmFaults(bed)))).await;
}
