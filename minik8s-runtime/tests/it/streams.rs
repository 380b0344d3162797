//! What the conformance suite cannot ask of every runtime about commands.

use crate::harness::{Harness, able};
use minik8s_core::runtime::{ExecSpec, Output, Streams};
use minik8s_core::testkit::wait::until;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_child_left_behind_does_not_hold_the_session() {
    if !able() {
        return;
    }
    let h = Harness::with_image().await;
    h.sandbox("pod").await;
    h.run("pod", &h.script("main", "exec sleep 1000")).await;
    let command = ["sh", "-c", "sleep 500 & echo done"].map(str::to_owned).to_vec();
    let mut session = h.runtime.exec("main", ExecSpec { command, ..ExecSpec::default() }).await.expect("exec");
    let mut text = Vec::new();
    let all = async {
        while let Some(Output::Stdout(bytes) | Output::Stderr(bytes)) = session.output.recv().await {
            text.extend_from_slice(&bytes);
        }
        session.exit.await.expect("exit").expect("code")
    };
    let code = tokio::time::timeout(Duration::from_secs(60), all).await.expect("the session ends");
    assert_eq!((text.as_slice(), code), (&b"done\n"[..], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_at_any_moment_leaves_no_process_behind() {
    if !able() {
        return;
    }
    let h = Harness::with_image().await;
    h.sandbox("pod").await;
    h.run("pod", &h.script("main", "exec sleep 1000")).await;
    let spec = |script: &str| {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        ExecSpec { command, ..ExecSpec::default() }
    };
    for n in 0..12 {
        let exec = h.runtime.exec("main", spec("exec sleep 4713"));
        // Mostly before the process has been started.
        let _ = tokio::time::timeout(Duration::from_millis(n * 4), exec).await;
    }
    until("every pipe is gone", Duration::from_secs(30), || async {
        let all = std::fs::read_dir(h.config.state.join("io")).into_iter().flatten().flatten();
        let names =
            all.flat_map(|c| std::fs::read_dir(c.path()).into_iter().flatten().flatten().map(|e| e.file_name()));
        let execs = names.filter(|name| name.to_string_lossy().starts_with("exec-")).count();
        (execs == 0).then_some(())
    })
    .await;
    let mut session = h.runtime.exec("main", spec("ps | grep 'sleep 471[3]'")).await.expect("exec");
    let output = session.output.recv().await;
    assert!(output.is_none(), "{output:?}");
}
