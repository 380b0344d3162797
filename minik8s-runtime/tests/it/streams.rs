//! What the conformance suite cannot ask of every runtime about commands.

use crate::harness::{Harness, able};
use minik8s_core::runtime::{ExecSpec, Output, Streams};
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
    let code = tokio::time::timeout(Duration::from_secs(20), all).await.expect("the session ends");
    assert_eq!((text.as_slice(), code), (&b"done\n"[..], 0));
}
