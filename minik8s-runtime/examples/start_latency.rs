//! How long a container takes from nothing to running, beside `ctr run -d` on the same containerd: the floor.
//!
//! `cargo run --release -p minik8s-runtime --example start_latency` (root, containerd and runc needed).
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, reason = "a program that prints its findings")]

use minik8s_core::runtime::{ContainerSpec, Containers, Images, SandboxSpec, Sandboxes};
use minik8s_runtime::testing::{TEST_IMAGE, busybox_image};
use minik8s_runtime::{ContainerdRuntime, PrivateContainerd, log_driver};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const ROUNDS: usize = 15;

fn main() {
    if log_driver::run_if_asked().is_some() {
        return;
    }
    let dir = std::env::temp_dir().join(format!("minik8s-latency-{}", std::process::id()));
    let daemon = PrivateContainerd::start(&dir).expect("private containerd");
    tokio::runtime::Runtime::new().expect("tokio").block_on(measure(&daemon, &dir));
    daemon.destroy().expect("nothing is left");
}

async fn measure(daemon: &PrivateContainerd, dir: &Path) {
    let mut config = daemon.config();
    config.log_driver = std::env::current_exe().ok();
    let runtime = ContainerdRuntime::connect(config).await.expect("connect");
    runtime.import(busybox_image(dir).expect("image"), None).await.expect("import");
    let (mut bare, mut pods, mut containers) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        bare.push(ctr_run(daemon, round));
        let begin = Instant::now();
        let id = format!("pod-{round}");
        let sandbox = SandboxSpec { id: id.clone(), hostname: id.clone(), ..SandboxSpec::default() };
        runtime.run_sandbox(&sandbox).await.expect("sandbox");
        let made = Instant::now();
        let spec = ContainerSpec {
            id: format!("c-{round}"),
            image: TEST_IMAGE.into(),
            command: vec!["sleep".into(), "1000".into()],
            log_path: dir.join("log").join(&id),
            ..ContainerSpec::default()
        };
        runtime.create_container(&id, &spec).await.expect("create");
        runtime.start_container(&spec.id).await.expect("start");
        pods.push(begin.elapsed());
        containers.push(made.elapsed());
        runtime.remove_sandbox(&id).await.expect("remove");
    }
    let floor = median(&mut bare);
    println!("ctr run -d                  {floor:>8.1?}");
    for (name, mut times) in [("create + start             ", containers), ("sandbox + create + start   ", pods)] {
        let time = median(&mut times);
        println!("{name} {time:>8.1?}  {:.2} of the floor", time.as_secs_f64() / floor.as_secs_f64());
    }
}

fn ctr(daemon: &PrivateContainerd, words: &[&str]) -> bool {
    let mut command = Command::new("ctr");
    command.arg("-a").arg(daemon.socket()).args(["-n", "minik8s"]).args(words);
    command.output().is_ok_and(|o| o.status.success())
}

/// The same image and command, detached, with a log on disk.
fn ctr_run(daemon: &PrivateContainerd, round: usize) -> Duration {
    let id = format!("bare-{round}");
    let begin = Instant::now();
    let log = format!("file:///tmp/{id}-{}.log", std::process::id());
    assert!(ctr(daemon, &["run", "-d", "--log-uri", &log, TEST_IMAGE, &id, "sleep", "1000"]), "ctr run");
    let took = begin.elapsed();
    ctr(daemon, &["task", "rm", "-f", &id]);
    ctr(daemon, &["container", "rm", &id]);
    let _ = std::fs::remove_file(log.trim_start_matches("file://"));
    took
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
