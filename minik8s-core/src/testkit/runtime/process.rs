//! What the process gets: signals, identity, file systems, limits.

use super::scope::{SOON, Scope, limits};
use crate::runtime::{Mount, Resources, Security};
use crate::testkit::wait::until;
use std::time::Duration;

pub(super) async fn a_signal_is_reported_as_128_and_its_number(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    // A first process cannot be killed from inside its namespace, so a child is, whose end the shell passes on.
    for (signal, code) in [("KILL", 137), ("SEGV", 139)] {
        let spec = s.script(&format!("c{signal}"), &format!("sh -c 'kill -{signal} $$'; exit $?"));
        assert_eq!(s.run(&sandbox, &spec).await.0.code, code);
    }
}

pub(super) async fn a_stop_asks_first_and_kills_later(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let polite = s.script("polite", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.02; done");
    let deaf = s.script("deaf", "trap 'echo heard' TERM; echo up; while :; do sleep 0.02; done");
    for spec in [&polite, &deaf] {
        s.start(&sandbox, spec).await;
        s.wait_printed(spec, "up").await;
    }
    s.runtime.stop_container(&polite.id, SOON).await.expect("stop");
    assert_eq!((s.exit(&polite.id).await.code, s.printed(&polite, "stdout").as_str()), (7, "up\nbye\n"));
    s.runtime.stop_container(&deaf.id, Duration::from_millis(500)).await.expect("stop");
    assert_eq!((s.exit(&deaf.id).await.code, s.printed(&deaf, "stdout").as_str()), (137, "up\nheard\n"));
}

pub(super) async fn environment_arguments_and_directory_arrive(s: &mut Scope) {
    let sandbox = s.sandbox("host-a").await;
    let mut spec = s.script("c", "echo $A-$B; echo \"$0\" \"$@\"; pwd; hostname; cat /etc/hostname");
    spec.args = vec!["x y".into(), "z".into()];
    spec.env = vec![("A".into(), "1".into()), ("B".into(), "two words".into()), ("A".into(), "3".into())];
    spec.working_dir = "/made/for/it".into();
    let (exit, out) = s.run(&sandbox, &spec).await;
    assert_eq!((exit.code, out.as_str()), (0, "3-two words\nx y z\n/made/for/it\nhost-a\nhost-a\n"));
}

pub(super) async fn the_user_comes_from_the_specification_or_the_image(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let who = async |name: &str, security: Security| {
        let mut spec = s.script(name, "id -u; id -g; id -G");
        spec.security = security;
        s.run(&sandbox, &spec).await.1
    };
    assert_eq!(who("image", Security::default()).await, "0\n0\n0 10\n");
    let app = Security { user: Some(1000), ..Security::default() };
    assert_eq!(who("app", app.clone()).await, "1000\n1000\n1000 10 2000\n");
    let more = Security { group: Some(7), supplemental_groups: vec![77], ..app };
    assert_eq!(who("more", more).await, "1000\n7\n7 10 77 2000\n");
}

pub(super) async fn capabilities_are_granted_and_dropped(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let effective = async |name: &str, add: &[&str], drop: &[&str]| {
        let mut spec = s.script(name, "grep -E '^(CapEff|NoNewPrivs)' /proc/self/status");
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        spec.security = Security {
            add_capabilities: list(add),
            drop_capabilities: list(drop),
            no_new_privileges: !drop.is_empty(),
            ..Security::default()
        };
        let out = s.run(&sandbox, &spec).await.1;
        let field = |name: &str| out.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned();
        (u64::from_str_radix(&field("CapEff:"), 16).expect("hexadecimal"), field("NoNewPrivs:"))
    };
    const KILL: u64 = 1 << 5;
    const NET_ADMIN: u64 = 1 << 12;
    let (usual, flag) = effective("usual", &[], &[]).await;
    assert_eq!((usual & KILL, usual & NET_ADMIN, flag.as_str()), (KILL, 0, "0"));
    let (more, _) = effective("more", &["NET_ADMIN"], &["KILL"]).await;
    assert_eq!(more, usual - KILL + NET_ADMIN);
    assert_eq!(effective("only", &["KILL"], &["ALL"]).await, (KILL, "1".to_owned()));
}

pub(super) async fn a_read_only_root_refuses_writes(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let mut spec = s.script("c", "touch /x 2>/dev/null && echo wrote; echo done");
    spec.security.read_only_root = true;
    assert_eq!(s.run(&sandbox, &spec).await.1, "done\n");
    let free = s.script("d", "touch /x && echo wrote");
    assert_eq!(s.run(&sandbox, &free).await.1, "wrote\n");
}

pub(super) async fn mounts_are_shared_and_read_only_ones_refuse_writes(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let dir = s.dir.path().join("shared");
    std::fs::create_dir(&dir).expect("mkdir");
    std::fs::write(dir.join("given"), "from the host").expect("write");
    let file = s.dir.path().join("file");
    std::fs::write(&file, "a file").expect("write");
    let mount =
        |target: &str, read_only| Mount { source: dir.clone(), target: target.into(), read_only, propagate: false };
    let mut spec = s.script(
        "c",
        "cat /in/ro/given /in/file; echo; echo back > /in/rw/made; touch /in/ro/x 2>/dev/null || echo refused",
    );
    let single = Mount { source: file, target: "/in/file".into(), read_only: true, propagate: false };
    spec.mounts = vec![mount("/in/ro", true), mount("/in/rw", false), single];
    assert_eq!(s.run(&sandbox, &spec).await.1, "from the hosta file\nrefused\n");
    assert_eq!(std::fs::read_to_string(dir.join("made")).expect("made"), "back\n");
}

pub(super) async fn limits_are_applied(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let read = |v1: &str, v2: &str| format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2};");
    let script = read("memory/memory.limit_in_bytes", "memory.max")
        + &read("cpu/cpu.cfs_quota_us", "cpu.max")
        + "cat /proc/self/oom_score_adj";
    let mut spec = s.script("c", &script);
    spec.resources = Resources {
        memory_bytes: 32 << 20,
        cpu_quota_us: 50_000,
        cpu_period_us: 100_000,
        cpu_shares: 512,
        oom_score_adj: 321,
    };
    let out = s.run(&sandbox, &spec).await.1;
    let lines: Vec<&str> = out.lines().map(|l| l.split(' ').next().unwrap_or("")).collect();
    assert_eq!(lines, ["33554432", "50000", "321"], "{out:?}");
}

pub(super) async fn too_much_memory_is_reported_as_such(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let mut spec = s.command("c", &["tail", "/dev/zero"]);
    spec.resources = limits(16 << 20);
    let exit = s.run(&sandbox, &spec).await.0;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
    let mut child = s.script("d", "tail /dev/zero; exit $?");
    child.resources = limits(16 << 20);
    let exit = s.run(&sandbox, &child).await.0;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
}

pub(super) async fn statistics_follow_what_is_used(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let spec = s.script("c", "sleep 1000 & while :; do :; done");
    s.start(&sandbox, &spec).await;
    let first = s.runtime.stats(&spec.id).await.expect("stats");
    let later = until("it has used a tenth of a second", SOON, || async {
        let stats = s.runtime.stats(&spec.id).await.expect("stats");
        (stats.cpu_ns > first.cpu_ns + 100_000_000 && stats.pids >= 2).then_some(stats)
    })
    .await;
    assert!(later.at >= first.at && later.memory_usage >= later.memory_working_set, "{later:?}");
}
