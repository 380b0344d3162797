//! The pretended batch system keeps the contract that real ones keep.

use async_trait::async_trait;
use minik8s_core::job::{JobHandle, JobReport, SharedJobBackend};
use minik8s_core::testkit::FakeJobs;
use minik8s_core::testkit::jobs::{Faults, Needs, Subject, run_all};
use std::sync::Arc;

struct FakeFaults(FakeJobs);

#[async_trait]
impl Faults for FakeFaults {
    fn can(&self, _: Needs) -> bool {
        true
    }

    async fn connected(&self, connected: bool) {
        self.0.connected(connected);
    }

    async fn fail_node(&self, job: Option<&JobReport>) {
        if job.is_some() {
            self.0.fail_node();
        }
    }

    async fn expire(&self, job: &JobHandle) {
        self.0.expire(&job.id);
    }

    async fn queries(&self) -> u64 {
        self.0.queries()
    }
}

#[tokio::test(start_paused = true)]
async fn the_pretended_batch_system_keeps_the_contract() {
    let fake = FakeJobs::new();
    let opened = fake.clone();
    let open = move || {
        let fake = opened.clone();
        async move { Arc::new(fake) as SharedJobBackend }
    };
    let subject = Subject::new(open, |request| request.placement.partition = Some("nowhere".to_owned()));
    run_all(subject.with_faults(Arc::new(FakeFaults(fake)))).await;
}
