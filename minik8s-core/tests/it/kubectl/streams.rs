//! Logs and commands, against a node that echoes.

use super::start;
use crate::rest::streams::pod;
use minik8s_core::testkit::served::Served;
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::test(flavor = "multi_thread")]
async fn logs() {
    let Some((served, kubectl)) = start().await else { return };
    pod(&served, "p", &["c"]).await;
    pod(&served, "two", &["a", "b"]).await;
    assert_eq!(kubectl.ok(&["logs", "p"]).await.lines().count(), 5);
    assert_eq!(kubectl.ok(&["logs", "p", "--tail=1"]).await, "p/c line 5\n");
    assert_eq!(kubectl.ok(&["logs", "two", "-c", "b", "--tail=1"]).await, "two/b line 5\n");
    let mut following = kubectl.start(&["logs", "-f", "p"], false);
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    for number in 1..=5 {
        assert_eq!(lines.next_line().await.unwrap().unwrap(), format!("p/c line {number}"));
    }
    assert!(following.try_wait().unwrap().is_none(), "it goes on");
    assert_eq!(kubectl.run(&["logs", "nope"]).await.code, 1);
    unreachable_node(&served, &kubectl).await;
}

async fn unreachable_node(served: &Served, kubectl: &minik8s_core::testkit::kubectl::Kubectl) {
    served.server.nodes().remove("n1");
    let refused = kubectl.run(&["logs", "p"]).await;
    assert!(refused.code == 1 && refused.stderr.contains("node \"n1\" is not connected"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands() {
    let Some((served, kubectl)) = start().await else { return };
    pod(&served, "p", &["c"]).await;
    assert_eq!(kubectl.ok(&["exec", "p", "--", "hello", "wide world"]).await, "hello wide world");
    assert_eq!(kubectl.run(&["exec", "p", "--", "exit", "3"]).await.code, 3);
    assert_eq!(kubectl.run(&["exec", "p", "--", "complain"]).await.stderr, "bad");
    let echoed = kubectl.run_with_input(&["exec", "-i", "p", "--", "cat"], "to and fro").await;
    assert_eq!((echoed.code, echoed.stdout.as_str()), (0, "to and fro"));
    let missing = kubectl.run(&["exec", "nope", "--", "x"]).await;
    assert!(missing.stderr.contains("pods \"nope\" not found"), "{}", missing.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarding_ports_is_refused_in_words() {
    let Some((served, kubectl)) = start().await else { return };
    pod(&served, "p", &["c"]).await;
    let refused = kubectl.run(&["port-forward", "pod/p", ":80"]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
}
