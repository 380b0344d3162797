//! What containers of a pod share, and what pods do not.

use super::scope::{SOON, Scope};
use crate::runtime::SandboxSpec;
use crate::testkit::wait::until;

pub(super) async fn containers_of_a_pod_share_network_and_memory(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let server = s.script("server", "echo x > /dev/shm/mark; echo up; nc -l -p 7777 -e echo hello");
    s.start(&sandbox, &server).await;
    s.wait_printed(&server, "up").await;
    let client = s.script("client", "until nc 127.0.0.1 7777 </dev/null; do sleep 0.05; done; cat /dev/shm/mark");
    let (exit, out) = s.run(&sandbox, &client).await;
    assert_eq!((exit.code, out.as_str()), (0, "hello\nx\n"));
}

pub(super) async fn two_pods_do_not_see_each_other(s: &mut Scope) {
    let (a, b) = (s.sandbox("a").await, s.sandbox("b").await);
    assert_ne!(a.netns, b.netns);
    let first = s.script("one", "touch /dev/shm/mark; echo up; exec nc -l -p 7777");
    s.start(&a, &first).await;
    s.wait_printed(&first, "up").await;
    let look = "ls /dev/shm; nc 127.0.0.1 7777 </dev/null 2>/dev/null && echo connected; hostname; \
                ls -d /proc/[0-9]* | wc -l; cat /proc/net/dev | grep -c :";
    let (_, out) = s.run(&b, &s.script("two", look)).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((lines.first(), lines.last()), (Some(&"b"), Some(&"1")), "{out:?}");
    let processes: u32 = lines.get(1).and_then(|n| n.trim().parse().ok()).expect("a number");
    assert!(processes <= 3, "only its own processes: {out:?}");
}

pub(super) async fn kernel_parameters_are_the_pods_own(s: &mut Scope) {
    let sysctls = [("net.ipv4.ip_unprivileged_port_start".to_owned(), "81".to_owned())].into();
    let spec = SandboxSpec { sysctls, ..s.sandbox_spec("a") };
    let a = s.runtime.run_sandbox(&spec).await.expect("sandbox");
    let b = s.sandbox("b").await;
    let read = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
    assert_eq!(s.run(&a, &s.script("one", read)).await.1, "81\n");
    assert_eq!(s.run(&b, &s.script("two", read)).await.1, "1024\n");
    let wrong = [("net.no.such.thing".to_owned(), "1".to_owned())].into();
    let spec = SandboxSpec { sysctls: wrong, ..s.sandbox_spec("c") };
    let refused = s.runtime.run_sandbox(&spec).await.expect_err("no such parameter");
    assert!(refused.to_string().contains("net.no.such.thing"), "{refused}");
}

pub(super) async fn shared_process_ids_are_shared(s: &mut Scope) {
    let spec = SandboxSpec { share_pids: true, ..s.sandbox_spec("a") };
    let sandbox = s.runtime.run_sandbox(&spec).await.expect("sandbox");
    assert!(sandbox.ready);
    let one = s.script("one", "exec sleep 4711");
    s.start(&sandbox, &one).await;
    let sees = s.script("two", "until ps | grep -q 'sleep 471[1]'; do :; done; kill $(pidof sleep); echo $$");
    let (exit, out) = s.run(&sandbox, &sees).await;
    assert_eq!(exit.code, 0);
    assert_ne!(out, "1\n", "it is not the first process");
    assert_eq!(s.exit(&one.id).await.code, 143);
    s.reopen().await;
    let again = s.runtime.run_sandbox(&spec).await.expect("sandbox");
    assert_eq!(again, sandbox);
    // Nobody is left behind by a container of which only the first process ended.
    let parent = s.script("three", "(exec sleep 4712) & exit 0");
    s.run(&sandbox, &parent).await;
    let probe = s.sleeper("four");
    s.start(&sandbox, &probe).await;
    until("children are gone with their container", SOON, || async {
        (s.exec(&probe.id, "ps | grep -c 'sleep 471[2]'").await.0 == "0\n").then_some(())
    })
    .await;
}
