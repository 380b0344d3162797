//! Commands beside the main process, and sessions attached to it.

use super::scope::{SOON, Scope, finish, shell};
use crate::runtime::{ContainerState, ExecSpec, Output, RuntimeError, StreamSession, TerminalSize};
use bytes::Bytes;
use std::time::Duration;

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

pub(super) async fn a_command_has_output_and_an_exit_code(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    s.start(&sandbox, &s.sleeper("c")).await;
    let want = ("out\n".to_owned(), "err\n".to_owned(), 5);
    assert_eq!(s.exec(&s.id("c"), "echo out; echo err >&2; exit 5").await, want);
    let empty = s.runtime.exec(&s.id("c"), ExecSpec::default()).await.expect_err("no command");
    assert!(matches!(empty, RuntimeError::Invalid(_)), "{empty}");
}

pub(super) async fn a_command_needs_a_running_container(s: &mut Scope) {
    let id = s.id("c");
    let missing = s.runtime.exec(&id, shell("true")).await.expect_err("missing");
    assert!(matches!(missing, RuntimeError::NotFound { .. }), "{missing}");
    let sandbox = s.sandbox("a").await;
    s.runtime.create_container(&sandbox.spec.id, &s.sleeper("c")).await.expect("create");
    let early = s.runtime.exec(&id, shell("true")).await.expect_err("not started");
    assert!(matches!(early, RuntimeError::WrongState { .. }), "{early}");
    s.runtime.start_container(&id).await.expect("start");
    s.runtime.stop_container(&id, Duration::ZERO).await.expect("stop");
    for late in [s.runtime.exec(&id, shell("true")).await, s.runtime.attach(&id, false).await] {
        assert!(matches!(late, Err(RuntimeError::WrongState { .. })), "{late:?}");
    }
}

pub(super) async fn input_reaches_a_command_and_its_end_too(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    s.start(&sandbox, &s.sleeper("c")).await;
    let spec = ExecSpec { stdin: true, ..shell("cat; echo end; exit 3") };
    let mut session = s.runtime.exec(&s.id("c"), spec).await.expect("exec");
    let stdin = session.stdin.take().expect("standard input");
    for text in ["one ", "two\n"] {
        stdin.send(bytes(text)).await.expect("send");
    }
    drop(stdin);
    assert_eq!(finish(session).await, ("one two\nend\n".to_owned(), String::new(), 3));
    let (out, _, code) = s.exec(&s.id("c"), "cat; head -c 1000000 /dev/zero | tr '\\0' x").await;
    assert_eq!((out.len(), code), (1_000_000, 0), "large output arrives whole, and no input is an ended one");
}

pub(super) async fn a_terminal_merges_the_outputs_and_has_a_size(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    s.start(&sandbox, &s.sleeper("c")).await;
    let script =
        "until [ \"$(stty size 2>/dev/null)\" = '45 123' ]; do sleep 0.02; done; echo out; echo err >&2; tty; exit 4";
    let spec = ExecSpec { tty: true, stdin: true, ..shell(script) };
    let session = s.runtime.exec(&s.id("c"), spec).await.expect("exec");
    let resize = session.resize.clone().expect("a terminal can be resized");
    resize.send(TerminalSize { width: 123, height: 45 }).await.expect("send");
    let (out, err, code) = finish(session).await;
    assert_eq!((out.as_str(), err.as_str(), code), ("out\r\nerr\r\n/dev/pts/0\r\n", "", 4));
}

pub(super) async fn a_dropped_session_kills_its_command(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    s.start(&sandbox, &s.sleeper("c")).await;
    let mut session = s.runtime.exec(&s.id("c"), shell("echo up; exec sleep 4242")).await.expect("exec");
    assert_eq!(session.output.recv().await, Some(Output::Stdout(bytes("up\n"))));
    drop(session);
    let gone = "while ps | grep -q '[s]leep 4242'; do sleep 0.02; done; ps | grep -c '[s]leep 1000000'";
    assert_eq!(s.exec(&s.id("c"), gone).await.0, "1\n");
}

pub(super) async fn a_command_without_a_program_says_so(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    s.start(&sandbox, &s.sleeper("c")).await;
    let spec = ExecSpec { command: vec!["/no-such-program".into()], ..ExecSpec::default() };
    let refused = s.runtime.exec(&s.id("c"), spec).await.expect_err("no program");
    assert!(refused.to_string().contains("/no-such-program"), "{refused}");
    assert_eq!(s.info(&s.id("c")).await.state, ContainerState::Running);
}

pub(super) async fn an_attached_session_sees_output_and_feeds_input(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    for tty in [false, true] {
        let mut spec = s.script(&format!("c{tty}"), "read x; printf \"got $x\"; read y; echo bye; exit 9");
        (spec.stdin, spec.tty) = (true, tty);
        s.start(&sandbox, &spec).await;
        let mut session = s.runtime.attach(&spec.id, true).await.expect("attach");
        assert_eq!(session.resize.is_some(), tty);
        let stdin = session.stdin.clone().expect("standard input");
        stdin.send(bytes("one\n")).await.expect("send");
        read_until(&mut session, "got one").await;
        stdin.send(bytes("two\n")).await.expect("send");
        let (out, _, code) = finish(session).await;
        assert!(out.contains("bye"), "{out:?}");
        assert_eq!(code, 9);
    }
}

pub(super) async fn leaving_an_attached_session_leaves_the_container(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let mut spec = s.script("c", "while read x; do echo got $x; done; exit 2");
    spec.stdin = true;
    s.start(&sandbox, &spec).await;
    for word in ["one\n", "two\n"] {
        let mut session = s.runtime.attach(&spec.id, true).await.expect("attach");
        session.stdin.clone().expect("standard input").send(bytes(word)).await.expect("send");
        read_until(&mut session, &format!("got {word}")).await;
        drop(session);
    }
    assert_eq!(s.info(&spec.id).await.state, ContainerState::Running);
    // An input that is closed while its session stays is an end of file.
    let mut session = s.runtime.attach(&spec.id, true).await.expect("attach");
    drop(session.stdin.take());
    assert_eq!(finish(session).await.2, 2);
}

/// Reads until the text has come.
async fn read_until(session: &mut StreamSession, text: &str) {
    let mut seen = String::new();
    while !seen.contains(text) {
        let piece = tokio::time::timeout(SOON, session.output.recv()).await.expect("output in time");
        let (Output::Stdout(bytes) | Output::Stderr(bytes)) = piece.expect("more output");
        seen.push_str(&String::from_utf8_lossy(&bytes));
    }
}
