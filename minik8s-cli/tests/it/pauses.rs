//! A hundred rounds of pausing and waking over the whole path: gateway, demand, controller, agent, freezer. Several
//! functions at once, several callers each, and the process killed while all of them stand still.

use super::functions::{code, get, of_instances, ready};
use super::harness::{Kind, Up, until, until_or};
use minik8s_core::testkit::need::{self, Need};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

const FUNCTIONS: [&str; 3] = ["a", "b", "c"];
/// Rounds of each function between two kills.
const ROUNDS: usize = 9;
const KILLS: usize = 4;
/// Who calls in each round.
const CALLERS: usize = 3;

/// Its memory is what is counted: each call has a number of its own as long as there is one instance and it is kept.
const COUNTS: &str = "import itertools
numbers = itertools.count(1)
def main(p):
    return next(numbers)
";

/// The control groups below which a pod's processes are, where freezing is done.
fn groups(uid: &str) -> Vec<PathBuf> {
    fn below(directory: &Path, uid: &str, depth: usize, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if depth == 0 || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if path.to_string_lossy().contains(uid) {
                found.push(path.clone());
            }
            below(&path, uid, depth - 1, found);
        }
    }
    let old = Path::new("/sys/fs/cgroup/freezer");
    let (mut found, root) = (Vec::new(), if old.exists() { old } else { Path::new("/sys/fs/cgroup") });
    below(root, uid, 8, &mut found);
    found
}

/// True where all processes of a pod's containers stand still.
fn is_frozen(groups: &[PathBuf]) -> bool {
    let says = |group: &PathBuf| {
        let old = std::fs::read_to_string(group.join("freezer.state")).unwrap_or_default();
        let new = std::fs::read_to_string(group.join("cgroup.events")).unwrap_or_default();
        old.trim() == "FROZEN" || new.contains("frozen 1")
    };
    groups.iter().any(says)
}

/// One call from within the cluster's network: the number it was told.
fn call(name: &str) -> Result<u64, String> {
    let limit = Some(Duration::from_secs(120));
    let exchange = || {
        let mut stream = TcpStream::connect("127.0.0.1:80")?;
        stream.set_read_timeout(limit)?;
        let head = format!(
            "POST /function/default/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        stream.write_all(head.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        std::io::Result::Ok(text)
    };
    let text = exchange().map_err(|error| error.to_string())?;
    let number = text.strip_prefix("HTTP/1.1 200").and_then(|rest| rest.split("\r\n\r\n").nth(1)?.trim().parse().ok());
    number.ok_or(text)
}

/// So many rounds of one function: each begins when it stands still.
fn rounds(name: &'static str, groups: &[PathBuf]) -> Vec<Result<u64, String>> {
    let mut told = Vec::new();
    for round in 0..ROUNDS {
        until_or(180, || is_frozen(groups), || format!("{name} stands still before round {round}: {groups:?}"));
        std::thread::scope(|scope| {
            let calls: Vec<_> = (0..CALLERS).map(|_| scope.spawn(|| call(name))).collect();
            told.extend(calls.into_iter().map(|call| call.join().expect("a caller")));
        });
    }
    told
}

#[test]
fn a_hundred_rounds_of_pausing_and_waking_lose_and_double_nothing() {
    if !need::met(&[Need::Program("python3")]) {
        return;
    }
    let Some(mut up) = Up::start(Kind::Real) else { return };
    let Some(base) = up.python_base() else { return };
    up.minik8s(&["function", "base", "python", "-f", &base.display().to_string()]).ok();
    for name in FUNCTIONS {
        let files = code(&up, name, COUNTS);
        let idle = ["--idle", "1", "--paused", "86400", "--max", "1", "--timeout", "120"];
        up.minik8s(&[&["function", "create", name, "-f", &files, "--no-wait"], &idle[..]].concat()).ok();
    }
    let mut told: Vec<Vec<u64>> = Vec::new();
    for name in FUNCTIONS {
        ready(&up, name);
        let first = up.inside(move || call(name)).join().expect("a caller");
        told.push(vec![first.unwrap_or_else(|told| panic!("{name} answered {told}"))]);
    }
    let uids = |up: &Up| FUNCTIONS.map(|name| of_instances(up, name, "metadata.uid"));
    let before = uids(&up);
    assert!(before.iter().all(|uid| !uid.is_empty() && !uid.contains(' ')), "one instance each: {before:?}");
    let groups = before.clone().map(|uid| groups(&uid));
    assert!(groups.iter().all(|all| !all.is_empty()), "{groups:?}");
    for kill in 0..KILLS {
        let working: Vec<_> = FUNCTIONS
            .into_iter()
            .zip(groups.clone())
            .map(|(name, groups)| up.inside(move || rounds(name, &groups)))
            .collect();
        for (index, work) in working.into_iter().enumerate() {
            for answer in work.join().expect("rounds") {
                told[index].push(answer.unwrap_or_else(|told| panic!("{} answered {told}", FUNCTIONS[index])));
            }
        }
        let still = || groups.iter().all(|groups| is_frozen(groups));
        until_or(180, still, || format!("all stand still before kill {kill}"));
        up.kill();
        assert!(still(), "who dies wakes nobody");
        up.run();
        assert_eq!(uids(&up), before, "after kill {kill} the same instances are there");
    }
    for (name, mut numbers) in FUNCTIONS.into_iter().zip(told) {
        let calls = 1 + KILLS * ROUNDS * CALLERS;
        numbers.sort_unstable();
        let wanted: Vec<u64> = (1..=calls as u64).collect();
        assert_eq!(numbers, wanted, "{name}: each call was made once and answered once, by one memory");
    }
    let restarts: BTreeSet<String> = get(&up, "pods", "{.items[*].status.containerStatuses[0].restartCount}")
        .split(' ')
        .map(str::to_owned)
        .collect();
    assert_eq!(restarts, BTreeSet::from(["0".to_owned()]));
    // They go although they stand still, and nothing of them stays.
    up.minik8s(&[&["function", "delete"], &FUNCTIONS[..]].concat()).ok();
    until("the pods are gone", 180, || up.minik8s(&["get", "pods", "-o", "name"]).ok().is_empty());
    let left = || groups.iter().flatten().filter(|group| group.exists()).collect::<Vec<_>>();
    until_or(60, || left().is_empty(), || format!("no control group is left: {:?}", left()));
}
