//! The embedded store under the suite, and what only a directory can suffer: locks, damage, unfinished writes.

use minik8s_core::clock::ManualClock;
use minik8s_core::store::{Commit, EmbeddedOptions, EmbeddedStore, Op, OpenError, RangeRequest, Store, WatchStart};
use minik8s_core::testkit::store::run_all;
use minik8s_core::testkit::wait::until;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

fn options(snapshot_after: u64) -> EmbeddedOptions {
    EmbeddedOptions { snapshot_after, ..EmbeddedOptions::default() }
}

async fn put(store: &EmbeddedStore, key: &str, value: &str) -> u64 {
    let op = Op::Put { key: key.into(), value: value.to_owned().into(), ttl: None };
    store.commit(Commit { when: vec![], ops: vec![op] }).await.unwrap()
}

async fn text(store: &EmbeddedStore, key: &str) -> Option<String> {
    store.get(key).await.unwrap().map(|e| String::from_utf8(e.value.to_vec()).unwrap())
}

/// The only file whose name begins with `kind`.
fn file(directory: &Path, kind: &str) -> PathBuf {
    let mut names = names(directory, kind);
    assert_eq!(names.len(), 1, "{names:?}");
    directory.join(names.remove(0))
}

fn names(directory: &Path, kind: &str) -> Vec<String> {
    let names = directory.read_dir().unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(kind)).collect()
}

/// Where the log's zeros begin.
fn written(path: &Path) -> u64 {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        file.read_to_end(&mut bytes).unwrap();
    }
    bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at as u64 + 1)
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
}

async fn open_error(directory: &Path) -> OpenError {
    EmbeddedStore::open(directory).await.err().expect("the store must not open")
}

#[tokio::test]
async fn embedded_store_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    run_all(move || {
        let path = path.clone();
        async move { Arc::new(EmbeddedStore::open(path).await.unwrap()) as Arc<dyn Store> }
    })
    .await;
}

#[tokio::test]
async fn embedded_store_conforms_while_it_replaces_its_log_all_the_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    run_all(move || {
        let path = path.clone();
        async move { Arc::new(EmbeddedStore::open_with(path, options(1)).await.unwrap()) as Arc<dyn Store> }
    })
    .await;
}

#[tokio::test]
async fn a_second_handle_is_refused_until_the_first_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).await.unwrap();
    let error = open_error(directory.path()).await;
    let OpenError::Locked { holder, .. } = &error else { panic!("{error}") };
    assert_eq!(*holder, std::process::id().to_string());
    let second_handle = store.clone();
    drop(store);
    open_error(directory.path()).await;
    drop(second_handle);
    EmbeddedStore::open(directory.path()).await.unwrap();
}

#[tokio::test]
async fn files_are_readable_by_their_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/store");
    drop(EmbeddedStore::open(&path).await.unwrap());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(file(&path, "log-").metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn an_unfinished_write_at_the_end_is_dropped_at_every_length() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).await.unwrap();
    put(&store, "/a", "kept").await;
    let log = file(directory.path(), "log-");
    // A record may end in one zero.
    let whole = written(&log) + 1;
    let revision = put(&store, "/a", "torn").await;
    drop(store);
    let end = written(&log);
    let bytes = std::fs::read(&log).unwrap();
    for cut in whole..end {
        std::fs::write(&log, &bytes[..usize::try_from(cut).unwrap()]).unwrap();
        let store = EmbeddedStore::open(directory.path()).await.unwrap();
        assert_eq!(text(&store, "/a").await.as_deref(), Some("kept"), "cut at {cut}");
        assert_eq!(store.revision().await.unwrap(), revision - 1);
    }
}

#[tokio::test]
async fn what_an_unfinished_write_left_behind_never_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).await.unwrap();
    put(&store, "/a", "kept").await;
    let log = file(directory.path(), "log-");
    let end = written(&log);
    drop(store);
    // Sectors reach the disk in any order: here the later ones did, and the frame's beginning did not.
    let mut raw = OpenOptions::new().write(true).open(&log).unwrap();
    raw.seek(SeekFrom::Start(end + 40)).unwrap();
    raw.write_all(&[0xAB; 4000]).unwrap();
    drop(raw);
    let store = EmbeddedStore::open(directory.path()).await.unwrap();
    put(&store, "/b", "new").await;
    drop(store);
    let store = EmbeddedStore::open(directory.path()).await.unwrap();
    assert_eq!(text(&store, "/a").await.as_deref(), Some("kept"));
    assert_eq!(text(&store, "/b").await.as_deref(), Some("new"));
}

#[tokio::test]
async fn damage_before_the_end_is_reported_wherever_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).await.unwrap();
    put(&store, "/a", "one").await;
    let log = file(directory.path(), "log-");
    let first = written(&log);
    put(&store, "/a", "two").await;
    drop(store);
    for at in 0..first {
        flip(&log, at);
        let error = open_error(directory.path()).await;
        assert!(matches!(&error, OpenError::Corrupt { path, .. } if *path == log), "byte {at}: {error}");
        flip(&log, at);
    }
    let store = EmbeddedStore::open(directory.path()).await.unwrap();
    assert_eq!(text(&store, "/a").await.as_deref(), Some("two"));
}

/// A store with a snapshot and one commit after it.
async fn with_snapshot(directory: &Path) {
    let store = EmbeddedStore::open_with(directory, options(1)).await.unwrap();
    for i in 0..600 {
        put(&store, &format!("/k/{i}"), "before").await;
    }
    drop(store);
    // Nothing is due any more; what the last rotation left unfinished is finished or dropped here.
    let store = EmbeddedStore::open(directory).await.unwrap();
    put(&store, "/k/0", "after").await;
}

#[tokio::test]
async fn a_snapshot_and_the_log_after_it_make_the_state() {
    let directory = tempfile::tempdir().unwrap();
    with_snapshot(directory.path()).await;
    assert_eq!(names(directory.path(), "snapshot-").len(), 1);
    let store = EmbeddedStore::open(directory.path()).await.unwrap();
    let all = store.range(RangeRequest { prefix: "/k/".to_owned(), ..RangeRequest::default() }).await.unwrap();
    assert_eq!((all.entries.len(), all.revision), (600, 602));
    assert_eq!(text(&store, "/k/0").await.as_deref(), Some("after"));
    assert_eq!(text(&store, "/k/599").await.as_deref(), Some("before"));
    assert!(store.watch("/k/", WatchStart::After(2)).await.is_err());
    assert!(store.watch("/k/", WatchStart::After(601)).await.is_ok());
}

#[tokio::test]
async fn a_damaged_or_cut_snapshot_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    with_snapshot(directory.path()).await;
    let snapshot = file(directory.path(), "snapshot-");
    let length = snapshot.metadata().unwrap().len();
    for at in [0, 9, 17, 25, 28, 33, 37, 45, length / 2, length - 1] {
        flip(&snapshot, at);
        let error = open_error(directory.path()).await;
        assert!(matches!(&error, OpenError::Corrupt { path, .. } if *path == snapshot), "byte {at}: {error}");
        flip(&snapshot, at);
    }
    let bytes = std::fs::read(&snapshot).unwrap();
    for cut in [0, 10, 28, 40, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&snapshot, &bytes[..cut]).unwrap();
        let error = open_error(directory.path()).await;
        assert!(matches!(error, OpenError::Corrupt { .. }), "cut at {cut}: {error}");
    }
    std::fs::write(&snapshot, &bytes).unwrap();
    EmbeddedStore::open(directory.path()).await.unwrap();
}

#[tokio::test]
async fn a_missing_log_is_damage_and_not_a_new_store() {
    let directory = tempfile::tempdir().unwrap();
    with_snapshot(directory.path()).await;
    for log in names(directory.path(), "log-") {
        std::fs::remove_file(directory.path().join(log)).unwrap();
    }
    assert!(matches!(open_error(directory.path()).await, OpenError::Corrupt { .. }));
}

#[tokio::test]
async fn files_that_were_never_finished_are_removed_and_those_of_others_are_not() {
    let directory = tempfile::tempdir().unwrap();
    with_snapshot(directory.path()).await;
    std::fs::write(directory.path().join("snapshot-00000000000000009999.unfinished"), "half").unwrap();
    std::fs::write(directory.path().join("notes"), "mine").unwrap();
    EmbeddedStore::open(directory.path()).await.unwrap();
    assert_eq!(names(directory.path(), "snapshot-").len(), 1);
    assert_eq!(names(directory.path(), "notes").len(), 1);
}

#[tokio::test]
async fn the_log_does_not_grow_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open_with(directory.path(), options(64 << 10)).await.unwrap();
    let value = "x".repeat(8 << 10);
    for _ in 0..200 {
        put(&store, "/a", &value).await;
    }
    // A snapshot may still be under way; what it makes superfluous goes when it is done.
    until("most of the 1.6 MB written is gone", Duration::from_secs(30), async || {
        put(&store, "/a", "x").await;
        (used(directory.path()) < 400 << 10).then_some(())
    })
    .await;
}

/// Bytes written into the files of a directory; a file may go while it is looked at.
fn used(directory: &Path) -> u64 {
    let files = directory.read_dir().unwrap().map(|f| f.unwrap().path());
    files.map(|path| written(&path)).sum()
}

#[tokio::test]
async fn lifetimes_outlast_snapshots_and_end_by_the_clock() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
    let options = EmbeddedOptions { clock: clock.clone(), ..options(1) };
    let store = EmbeddedStore::open_with(directory.path(), options.clone()).await.unwrap();
    let hour = Some(Duration::from_secs(3600));
    let op = Op::Put { key: "/brief".into(), value: "x".into(), ttl: hour };
    let written = store.commit(Commit { when: vec![], ops: vec![op] }).await.unwrap();
    until("the log with the lifetime is gone", Duration::from_secs(60), async || {
        put(&store, "/a", "x").await;
        let logs = names(directory.path(), "log-");
        logs.iter().all(|log| log.trim_start_matches("log-").parse::<u64>().unwrap() >= written).then_some(())
    })
    .await;
    drop(store);
    let store = EmbeddedStore::open_with(directory.path(), options.clone()).await.unwrap();
    assert!(store.get("/brief").await.unwrap().is_some());
    drop(store);
    clock.advance("2h".parse().unwrap());
    let store = EmbeddedStore::open_with(directory.path(), options).await.unwrap();
    until("the key is gone", Duration::from_secs(60), async || {
        store.get("/brief").await.unwrap().is_none().then_some(())
    })
    .await;
}
