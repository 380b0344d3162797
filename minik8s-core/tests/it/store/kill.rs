//! Kill -9 at random moments: no acknowledged write is missing afterwards, and no half of one is visible.
//!
//! A child (this same test binary) writes with several writers and says on its standard output what was acknowledged,
//! until it is killed. Then the parent opens the directory and compares. `MINIK8S_KILLS` sets how often,
//! `MINIK8S_SEED` repeats a run's moments as far as a scheduler lets one.

use minik8s_core::store::{Commit, EmbeddedOptions, EmbeddedStore, Op, Store};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const WRITERS: usize = 4;
/// Each writer's last acknowledged writes that can all still be checked.
const SLOTS: u64 = 16;
const DIRECTORY: &str = "MINIK8S_KILL_DIRECTORY";

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// A small log, so that kills also meet rotations and snapshots.
async fn open(path: &Path) -> EmbeddedStore {
    let options = EmbeddedOptions { snapshot_after: 32 << 10, ..EmbeddedOptions::default() };
    EmbeddedStore::open_with(path, options).await.expect("the store must open after a kill")
}

async fn read(store: &EmbeddedStore, key: &str) -> Option<u64> {
    let entry = store.get(key).await.unwrap()?;
    Some(std::str::from_utf8(entry.value.split(|b| *b == b' ').next().unwrap()).unwrap().parse().unwrap())
}

/// Write number `n` of a writer: two keys and a slot at once, one of them of varying size.
fn write(writer: usize, n: u64) -> Commit {
    let put = |key: String, value: String| Op::Put { key: key.into(), value: value.into(), ttl: None };
    let size = usize::try_from(n * 37 % 1500).unwrap();
    let ops = vec![
        put(format!("/w{writer}/left"), n.to_string()),
        put(format!("/w{writer}/slot/{}", n % SLOTS), format!("{n} {}", "x".repeat(size))),
        put(format!("/w{writer}/right"), n.to_string()),
    ];
    Commit { when: vec![], ops }
}

/// Not a test of its own: what the parent starts, and kills. Does nothing when started by anyone else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_of_the_kill_test() {
    let Some(path) = std::env::var_os(DIRECTORY) else { return };
    let store = open(Path::new(&path)).await;
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut n = read(&store, &format!("/w{writer}/left")).await.unwrap_or(0);
            loop {
                n += 1;
                store.commit(write(writer, n)).await.unwrap();
                // One write call per line: a kill never leaves half of it in the pipe.
                std::io::stdout().write_all(format!("\nack {writer} {n}\n").as_bytes()).unwrap();
            }
        })
    });
    futures::future::join_all(writers).await;
}

fn start_child(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["store::kill::child_of_the_kill_test", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Starts a child, kills it at a random moment, and raises `acknowledged` to what it said.
fn run_and_kill(path: &Path, random: &mut StdRng, acknowledged: &mut [u64; WRITERS]) {
    let mut child = start_child(path);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut acks = lines.filter_map(|line| {
        let mut words = line.strip_prefix("ack ")?.split(' ');
        Some((words.next()?.parse::<usize>().ok()?, words.next()?.parse::<u64>().ok()?))
    });
    let mut note = |(writer, n): (usize, u64)| acknowledged[writer] = acknowledged[writer].max(n);
    acks.by_ref().take(random.random_range(0..150)).for_each(&mut note);
    // Between two acknowledgements any moment must do, also one in the middle of opening.
    let moment = Instant::now() + Duration::from_micros(random.random_range(0..3000));
    while Instant::now() < moment {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    acks.for_each(note);
    child.wait().unwrap();
}

/// Compares the store with what was acknowledged, and returns where each writer goes on.
async fn check(path: &Path, acknowledged: [u64; WRITERS]) -> [u64; WRITERS] {
    let store = open(path).await;
    let mut current = acknowledged;
    for (writer, acked) in acknowledged.into_iter().enumerate() {
        let left = read(&store, &format!("/w{writer}/left")).await.unwrap_or(0);
        let right = read(&store, &format!("/w{writer}/right")).await.unwrap_or(0);
        assert_eq!(left, right, "half a commit of writer {writer} is visible");
        // The one write that was under way may have happened or not.
        assert!(left == acked || left == acked + 1, "writer {writer} was told {acked}, the store has {left}");
        for n in left.saturating_sub(SLOTS - 1).max(1)..=left {
            let slot = read(&store, &format!("/w{writer}/slot/{}", n % SLOTS)).await;
            assert_eq!(slot, Some(n), "write {n} of writer {writer}");
        }
        current[writer] = left;
    }
    current
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_by_kill_9() {
    let kills = number("MINIK8S_KILLS").unwrap_or(100);
    let seed = number("MINIK8S_SEED").unwrap_or_else(rand::random);
    println!("{kills} kills, MINIK8S_SEED={seed}");
    let directory = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let mut acknowledged = [0; WRITERS];
    for _ in 0..kills {
        run_and_kill(directory.path(), &mut random, &mut acknowledged);
        acknowledged = check(directory.path(), acknowledged).await;
    }
    println!("acknowledged writes per writer: {acknowledged:?}");
    assert!(acknowledged.iter().sum::<u64>() > kills, "the children hardly wrote: {acknowledged:?}");
}
