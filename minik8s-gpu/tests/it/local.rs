//! Processes of this machine keep the contract.

use minik8s_core::devices::Devices;
use minik8s_core::job::{FileName, Gpus, JobBackend, JobHandle, JobId, JobRequest, JobState, STDOUT, SharedJobBackend};
use minik8s_core::testkit::jobs::{Subject, run_all};
use minik8s_core::testkit::wait::until;
use minik8s_gpu::local::{LocalBackend, LocalConfig};
use std::sync::Arc;
use std::time::Duration;

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

const BOUND: Duration = Duration::from_secs(120);

fn wanting(name: &str, gpus: u32, run: &str) -> JobRequest {
    let gpus = (gpus > 0).then_some(Gpus { count: gpus, kind: None });
    JobRequest { id: JobId::new(name, 1), run: run.to_owned(), gpus, ..JobRequest::default() }
}

async fn reaches(backend: &LocalBackend, job: &JobHandle, wanted: fn(&JobState) -> bool) {
    until("the job is as far as it should be", BOUND, || async {
        let state = backend.poll(std::slice::from_ref(job)).await.unwrap().remove(0).state;
        wanted(&state).then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_clusters_of_a_machine_share_its_processors_without_sharing_one() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| {
        let devices = Devices::new(dir.path().join("devices"));
        let gpus = ["0", "1"].map(str::to_owned).to_vec();
        LocalBackend::new(LocalConfig { slots: 4, gpus, devices, ..LocalConfig::new(dir.path().join(name)) })
    };
    let (one, two) = (open("one"), open("two"));
    let long = "echo $CUDA_VISIBLE_DEVICES; while [ ! -e ../../../done ]; do sleep 0.1; done";
    let first = one.submit(&wanting("a", 1, long)).await.unwrap();
    let second = two.submit(&wanting("b", 1, long)).await.unwrap();
    let third = two.submit(&wanting("c", 1, "echo $CUDA_VISIBLE_DEVICES")).await.unwrap();
    reaches(&one, &first, |state| *state == JobState::Running).await;
    reaches(&two, &second, |state| *state == JobState::Running).await;
    reaches(&two, &third, |state| *state == JobState::Queued).await;
    let stdout = FileName::new(STDOUT).unwrap();
    let got = async |backend: &LocalBackend, job: &JobHandle| {
        until("it says what it has", BOUND, || async {
            let text = backend.read(job, &stdout, 0, 100).await.unwrap();
            (!text.is_empty()).then(|| String::from_utf8(text.to_vec()).unwrap())
        })
        .await
    };
    assert_eq!((got(&one, &first).await.as_str(), got(&two, &second).await.as_str()), ("0\n", "1\n"));
    std::fs::write(dir.path().join("done"), "").unwrap();
    reaches(&one, &first, JobState::is_ended).await;
    reaches(&two, &third, JobState::is_ended).await;
    assert!(["0\n", "1\n"].contains(&got(&two, &third).await.as_str()));
    for (backend, job) in [(&one, &first), (&two, &second), (&two, &third)] {
        backend.remove(&job.id).await.unwrap();
    }
    one.leave().await.unwrap();
    two.leave().await.unwrap();
    assert!(!dir.path().join("one").exists() && !dir.path().join("two").exists());
}

#[tokio::test]
async fn a_job_gets_nothing_of_what_the_control_plane_was_started_with() {
    let dir = tempfile::tempdir().unwrap();
    let backend = LocalBackend::new(LocalConfig { gpus: Vec::new(), ..LocalConfig::new(dir.path().join("jobs")) });
    let job = backend.submit(&wanting("a", 0, "env | cut -d= -f1 | sort")).await.unwrap();
    reaches(&backend, &job, JobState::is_ended).await;
    let out = backend.read(&job, &FileName::new(STDOUT).unwrap(), 0, 10_000).await.unwrap();
    let text = String::from_utf8(out.to_vec()).unwrap();
    let known = [
        "CUDA_VISIBLE_DEVICES",
        "HOME",
        "JOB_TASK_INDEX",
        "LANG",
        "MINIK8S_JOB_ID",
        "NVIDIA_VISIBLE_DEVICES",
        "OLDPWD",
        "PATH",
        "PWD",
        "SHLVL",
        "_",
    ];
    let odd: Vec<&str> = text.lines().filter(|name| !known.contains(name)).collect();
    assert!(text.contains("PATH") && odd.is_empty(), "{odd:?}");
    backend.remove(&job.id).await.unwrap();
}
