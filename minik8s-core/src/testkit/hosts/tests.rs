use super::{Hosts, NEEDS};
use crate::testkit::need;
use crate::testkit::wait::until;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// One ping, without patience.
fn reaches(hosts: &Hosts, from: usize, to: usize) -> bool {
    hosts[from].pings(hosts[to].address())
}

fn at_last(hosts: &Hosts, from: usize, to: usize) -> bool {
    (0..5).any(|_| reaches(hosts, from, to))
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn hosts_of_the_same_and_of_other_subnets_reach_each_other() {
    if !need::met(NEEDS) {
        return;
    }
    let hosts = Hosts::subnets(&[2, 1]);
    assert_eq!(hosts.len(), 3);
    for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 1)] {
        assert!(reaches(&hosts, from, to), "{from} to {to}");
    }
    let route = |to: usize| hosts[0].run(&format!("ip route get {}", hosts[to].address()));
    assert!(!route(1).contains("via") && route(2).contains("via"), "{} {}", route(1), route(2));
    hosts.outside().run(&format!("busybox ping -q -c 1 -W 1 {}", hosts[2].address()));
}

#[test]
fn cables_come_out_and_go_in_again_and_partitions_separate_groups() {
    if !need::met(NEEDS) {
        return;
    }
    let hosts = Hosts::subnets(&[2, 2]);
    hosts.cut(1);
    assert!(!reaches(&hosts, 0, 1) && !reaches(&hosts, 1, 2) && reaches(&hosts, 0, 2));
    hosts.heal(1);
    // Who asked in vain for an address just now asks again after a second.
    assert!(at_last(&hosts, 0, 1));
    assert!(reaches(&hosts, 0, 1) && reaches(&hosts, 1, 2));
    hosts.partition(&[&[0, 2], &[1]]);
    assert!(reaches(&hosts, 0, 2) && reaches(&hosts, 2, 0), "within a group");
    for (a, b) in [(0, 1), (1, 2), (0, 3), (3, 1)] {
        assert!(!reaches(&hosts, a, b) && !reaches(&hosts, b, a), "{a} and {b} are apart");
    }
    hosts.outside().run(&format!("busybox ping -q -c 1 -W 1 {}", hosts[3].address()));
    hosts.partition(&[&[0, 1], &[2, 3]]);
    assert!(reaches(&hosts, 0, 1) && !reaches(&hosts, 0, 2), "another partition replaces the first");
    hosts.unite();
    assert!(reaches(&hosts, 0, 2) && reaches(&hosts, 3, 1));
}

#[test]
fn a_crash_kills_everything_and_a_boot_brings_the_same_host_back() {
    if !need::met(NEEDS) {
        return;
    }
    let hosts = Hosts::shared(2);
    let host = &hosts[1];
    let mut shell = host.command("sh");
    // One that is nobody's child any more, in groups and a network of its own, as containers are.
    shell.args(["-c", "setsid unshare --net sleep 1000 & echo $! >/run/orphan; exec sleep 1000"]);
    let mut process = host.spawn("sleeper", shell);
    while !host.succeeds("test -s /run/orphan") {
        assert_eq!(process.ended(), None, "{}", process.output());
    }
    let (first, pid) = (host.pid(), process.pid().unwrap());
    std::fs::write(host.data().join("kept"), "kept").unwrap();
    assert_eq!(host.run("hostname").trim(), "host-1");
    assert!(!Path::new("/run/orphan").exists(), "/run is the host's own");
    hosts.crash(1);
    assert!(!host.is_on() && !exists(first) && !exists(pid));
    assert!(!reaches(&hosts, 0, 1));
    process.kill();
    hosts.boot(1);
    assert!(host.succeeds(&format!("test -e {}/kept && ! test -e /run/orphan", host.data().display())));
    assert!(at_last(&hosts, 0, 1) && reaches(&hosts, 1, 0));
    assert_eq!(host.run("ps -e -o comm=").lines().filter(|name| *name == "sleep").count(), 0);
}

#[test]
fn processes_are_signalled_and_killed_one_by_one() {
    if !need::met(NEEDS) {
        return;
    }
    let hosts = Hosts::shared(1);
    let trap = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done";
    let start = || {
        let mut shell = hosts[0].command("sh");
        shell.args(["-c", trap]);
        let process = hosts[0].spawn("shell", shell);
        while process.output().lines().last() != Some("up") {
            std::thread::yield_now();
        }
        process
    };
    let mut process = start();
    assert_eq!(process.stop().code(), Some(3));
    assert_eq!(process.output(), "up\nbye\n");
    let mut again = start();
    let pid = again.pid().unwrap();
    again.kill();
    assert!(!exists(pid) && again.ended().is_some());
    assert_eq!(again.output(), "up\nbye\nup\n", "one log for all of a name");
}

#[test]
fn nothing_is_left_after_a_panic() {
    if !need::met(NEEDS) {
        return;
    }
    let (tell, told) = std::sync::mpsc::channel();
    let died = std::thread::spawn(move || {
        let hosts = Hosts::shared(2);
        let groups = hosts[0].run("cat /proc/self/cgroup");
        assert!(groups.lines().all(|line| line.ends_with("/main")), "a host sees its own groups as roots: {groups}");
        let mut sleep = hosts[0].command("sleep");
        sleep.arg("1000");
        let process = hosts[0].spawn("sleep", sleep);
        let label = hosts[0].label.clone();
        tell.send((hosts[0].pid(), hosts[0].directory().to_path_buf(), label)).unwrap();
        std::mem::forget(process);
        panic!("on purpose");
    });
    let (pid, dir, label) = told.recv().unwrap();
    assert!(died.join().is_err());
    assert!(!exists(pid), "the first process");
    assert!(!dir.exists(), "{}", dir.display());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&label));
    for at in super::cgroups::mounts(&mounts) {
        assert!(!at.join(&label).exists(), "{} {label}", at.display());
    }
}

#[tokio::test]
async fn threads_of_the_test_work_inside_of_a_host() {
    if !need::met(NEEDS) {
        return;
    }
    let hosts = Hosts::routed(2);
    let address = SocketAddr::from((hosts[1].address(), 7000));
    let listener = hosts[1].network().run(move || TcpListener::bind(address).unwrap()).await;
    let served = std::thread::spawn(move || listener.accept().unwrap().1.ip());
    hosts[0].network().run(move || TcpStream::connect(address).unwrap()).await;
    assert_eq!(served.join().unwrap(), IpAddr::from(hosts[0].address()));

    let inside = hosts[0].network().runtime();
    let gateway = SocketAddr::from((hosts[0].gateway(), 9));
    let refused = inside.run(async move { tokio::net::TcpStream::connect(gateway).await.unwrap_err().kind() }).await;
    assert_eq!(refused, std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_slow_host_takes_its_time() {
    if !need::met(NEEDS) {
        return;
    }
    let hosts = Hosts::shared(2);
    hosts.slow(1, "100kbit");
    let flood = format!("busybox ping -q -c 40 -s 1000 -i 0.001 -W 10 {}", hosts[1].address());
    let slow = round_trip(&hosts[0].run(&flood));
    hosts.quicken(1);
    let fast = until("the queue is empty", SOON, async || {
        let now = round_trip(&hosts[0].run(&flood));
        (now < slow).then_some(now)
    })
    .await;
    // 40 packets of a thousand bytes take three seconds at this rate, so that the last waits for all others.
    assert!(slow > 500.0 && fast < slow, "{slow} {fast}");
}

/// The longest, in milliseconds.
fn round_trip(ping: &str) -> f64 {
    let (_, numbers) = ping.rsplit_once(" = ").unwrap();
    numbers.trim().trim_end_matches(" ms").split('/').nth(2).unwrap().parse().unwrap()
}
