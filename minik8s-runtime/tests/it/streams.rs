//! Commands in containers, and attaching to them.

use crate::harness::{Harness, able};
use bytes::Bytes;
use minik8s_core::runtime::{
    ContainerSpec, Containers, ExecSpec, Output, RuntimeError, StreamSession, Streams, TerminalSize,
};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn sh(script: &str) -> ExecSpec {
    ExecSpec { command: vec!["sh".into(), "-c".into(), script.into()], ..ExecSpec::default() }
}

/// All output by stream, and the exit code.
async fn finish(mut session: StreamSession) -> (String, String, i32) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let all = async {
        while let Some(piece) = session.output.recv().await {
            match piece {
                Output::Stdout(bytes) => out.extend_from_slice(&bytes),
                Output::Stderr(bytes) => err.extend_from_slice(&bytes),
            }
        }
        session.exit.await.expect("exit").expect("code")
    };
    let code = tokio::time::timeout(SOON, all).await.expect("the session ends");
    (String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"), code)
}

async fn with_sleeper(change: impl FnOnce(&mut ContainerSpec)) -> Harness {
    let h = Harness::with_image().await;
    h.sandbox("pod").await;
    let mut spec = h.script("main", "exec sleep 1000");
    change(&mut spec);
    h.run("pod", &spec).await;
    h
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_outputs_input_and_an_exit_code() {
    if !able() {
        return;
    }
    let h = with_sleeper(|_| {}).await;
    let run = |spec| h.runtime.exec("main", spec);
    assert_eq!(
        finish(run(sh("echo out; echo err >&2; exit 5")).await.expect("exec")).await,
        ("out\n".into(), "err\n".into(), 5)
    );

    let mut session = run(ExecSpec { stdin: true, ..sh("cat; echo end") }).await.expect("exec");
    let stdin = session.stdin.take().expect("stdin");
    stdin.send(Bytes::from_static(b"hello ")).await.expect("send");
    stdin.send(Bytes::from_static(b"there\n")).await.expect("send");
    drop(stdin);
    assert_eq!(finish(session).await, ("hello there\nend\n".into(), String::new(), 0));

    let big = finish(run(sh("head -c 3000000 /dev/zero | tr '\\0' x")).await.expect("exec")).await;
    assert_eq!((big.0.len(), big.2), (3_000_000, 0));
    assert_eq!(finish(run(sh("kill -9 $$")).await.expect("exec")).await.2, 137);

    let missing = run(ExecSpec { command: vec!["/nope".into()], ..ExecSpec::default() }).await.expect_err("no program");
    assert!(missing.to_string().contains("/nope"), "{missing}");
    let nobody = h.runtime.exec("nobody", sh("true")).await.expect_err("no container");
    assert!(matches!(nobody, RuntimeError::NotFound { .. }), "{nobody}");
    h.runtime.stop_container("main", Duration::ZERO).await.expect("stop");
    let ended = h.runtime.exec("main", sh("true")).await.expect_err("ended");
    assert!(matches!(ended, RuntimeError::WrongState { state: "exited", .. }), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_a_size() {
    if !able() {
        return;
    }
    let h = with_sleeper(|_| {}).await;
    let spec = ExecSpec { tty: true, stdin: true, ..sh("read x; stty size; exit 4") };
    let session = h.runtime.exec("main", spec).await.expect("exec");
    let size = TerminalSize { width: 123, height: 45 };
    session.resize.as_ref().expect("resize").send(size).await.expect("send");
    // Sizes and input travel separately; ask until the size has arrived.
    tokio::time::timeout(SOON, session.resize.as_ref().expect("resize").reserve()).await.expect("time").expect("room");
    let probe =
        h.runtime.exec("main", sh("until stty size -F /dev/pts/0 2>/dev/null | grep -q '45 123'; do sleep 0.05; done"));
    assert_eq!(finish(probe.await.expect("exec")).await.2, 0);
    session.stdin.as_ref().expect("stdin").send(Bytes::from_static(b"\n")).await.expect("send");
    let (out, _, code) = finish(session).await;
    assert!(out.contains("45 123"), "{out:?}");
    assert_eq!(code, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_session_kills_its_command_only() {
    if !able() {
        return;
    }
    let h = with_sleeper(|_| {}).await;
    let mut session = h.runtime.exec("main", sh("echo up; exec sleep 4242")).await.expect("exec");
    assert_eq!(session.output.recv().await, Some(Output::Stdout(Bytes::from_static(b"up\n"))));
    drop(session);
    let gone = sh("while ps | grep -q '[s]leep 4242'; do sleep 0.05; done; ps | grep -c '[s]leep 1000'");
    let (out, _, _) = finish(h.runtime.exec("main", gone).await.expect("exec")).await;
    assert_eq!(out, "1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_left_behind_does_not_hold_the_session() {
    if !able() {
        return;
    }
    let h = with_sleeper(|_| {}).await;
    let (out, _, code) = finish(h.runtime.exec("main", sh("sleep 500 & echo done")).await.expect("exec")).await;
    assert_eq!((out.as_str(), code), ("done\n", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn attaching_reaches_input_and_output_with_and_without_a_terminal() {
    if !able() {
        return;
    }
    for tty in [false, true] {
        let h = with_sleeper(|spec| {
            spec.command = vec!["sh".into(), "-c".into(), "read x; echo got $x; read y; echo bye $y; exit 9".into()];
            (spec.stdin, spec.tty) = (true, tty);
        })
        .await;
        let first = h.runtime.attach("main", true).await.expect("attach");
        first.stdin.as_ref().expect("stdin").send(Bytes::from_static(b"one\n")).await.expect("send");
        read_until(first, "got one").await;
        let second = h.runtime.attach("main", true).await.expect("attach again");
        second.stdin.as_ref().expect("stdin").send(Bytes::from_static(b"two\n")).await.expect("send");
        let (out, _, code) = finish(second).await;
        assert!(out.contains("bye two"), "{out:?}");
        assert_eq!(code, 9, "tty {tty}");
        assert!(matches!(h.runtime.attach("main", false).await, Err(RuntimeError::WrongState { .. })));
    }
}

/// Reads until the text is there, then leaves.
async fn read_until(mut session: StreamSession, text: &str) {
    let mut seen = String::new();
    while !seen.contains(text) {
        let piece = tokio::time::timeout(SOON, session.output.recv()).await.expect("output in time");
        if let Output::Stdout(bytes) | Output::Stderr(bytes) = piece.expect("output") {
            seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
}
