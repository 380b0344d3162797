//! Disks that fail: what callers are told, and what is on the disk afterwards.

use super::*;
use crate::store::engine::State;
use frame::{FileKind, Frames, HEADER, Salt, Step};
use log::{Log, Medium};
use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A file whose operations fail from their n-th call on, until it is mended.
struct Failing {
    file: std::fs::File,
    plan: Arc<FailurePlan>,
}

#[derive(Default)]
struct FailurePlan {
    /// Writes and syncs that still succeed; `usize::MAX` means all.
    writes: AtomicUsize,
    syncs: AtomicUsize,
    resizes: AtomicUsize,
}

impl FailurePlan {
    fn healthy() -> Arc<Self> {
        let plan = Self::default();
        [&plan.writes, &plan.syncs, &plan.resizes].iter().for_each(|left| left.store(usize::MAX, Ordering::SeqCst));
        Arc::new(plan)
    }
}

fn use_up(left: &AtomicUsize) -> std::io::Result<()> {
    match left.load(Ordering::SeqCst) {
        0 => Err(Error::from(ErrorKind::StorageFull)),
        usize::MAX => Ok(()),
        n => {
            left.store(n - 1, Ordering::SeqCst);
            Ok(())
        }
    }
}

impl Medium for Failing {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        if let Err(error) = use_up(&self.plan.writes) {
            // A full disk takes a part of it.
            Medium::write_at(&mut self.file, &bytes[..bytes.len() / 2], offset)?;
            return Err(error);
        }
        Medium::write_at(&mut self.file, bytes, offset)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        use_up(&self.plan.syncs).and_then(|()| Medium::sync(&mut self.file))
    }

    fn set_len(&mut self, length: u64) -> std::io::Result<()> {
        use_up(&self.plan.resizes).and_then(|()| Medium::set_len(&mut self.file, length))
    }
}

/// A store whose log is on a failing disk.
fn failing_store(path: &Path, plan: &Arc<FailurePlan>) -> EmbeddedStore {
    let directory = Arc::new(Directory::open(path).unwrap());
    let (file, salt) = directory.create(&directory.log(1), |file| log::write_header(file, 1)).unwrap();
    let log = Log::new(Failing { file, plan: plan.clone() }, salt);
    let recovered = Recovered { state: State::new(), lifetimes: vec![], log, log_start: 1, snapshot_size: 0 };
    start(path, directory, recovered, EmbeddedOptions::default()).unwrap()
}

async fn put(store: &EmbeddedStore, value: &str) -> Result<Revision, StoreError> {
    let op = Op::Put { key: "/a".into(), value: value.to_owned().into(), ttl: None };
    store.commit(Commit { when: vec![], ops: vec![op] }).await
}

async fn value(store: &EmbeddedStore) -> String {
    String::from_utf8(store.get("/a").await.unwrap().unwrap().value.to_vec()).unwrap()
}

#[tokio::test]
async fn a_full_disk_refuses_commits_until_there_is_room_again() {
    let directory = tempfile::tempdir().unwrap();
    let plan = FailurePlan::healthy();
    let store = failing_store(directory.path(), &plan);
    put(&store, "kept").await.unwrap();
    plan.writes.store(0, Ordering::SeqCst);
    for _ in 0..3 {
        let error = put(&store, "refused").await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    }
    assert_eq!(value(&store).await, "kept");
    plan.writes.store(usize::MAX, Ordering::SeqCst);
    put(&store, "again").await.unwrap();
    drop(store);
    assert_eq!(value(&EmbeddedStore::open(directory.path()).await.unwrap()).await, "again");
}

#[tokio::test]
async fn a_failed_sync_leaves_the_commit_unknown_and_ends_writing() {
    let directory = tempfile::tempdir().unwrap();
    let plan = FailurePlan::healthy();
    let store = failing_store(directory.path(), &plan);
    put(&store, "kept").await.unwrap();
    let mut watch = store.watch("/", WatchStart::Now).await.unwrap();
    plan.syncs.store(0, Ordering::SeqCst);
    let error = put(&store, "unknown").await.unwrap_err();
    assert!(matches!(error, StoreError::Unknown(_)), "{error}");
    // Mended or not: what the disk holds is known only to who reads it anew.
    plan.syncs.store(usize::MAX, Ordering::SeqCst);
    let error = put(&store, "refused").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert_eq!(value(&store).await, "kept");
    assert!(futures::FutureExt::now_or_never(futures::StreamExt::next(&mut watch)).is_none());
    drop(store);
    let found = value(&EmbeddedStore::open(directory.path()).await.unwrap()).await;
    assert!(found == "kept" || found == "unknown", "{found}");
}

#[tokio::test]
async fn a_write_that_cannot_be_taken_back_is_unknown() {
    let directory = tempfile::tempdir().unwrap();
    let plan = FailurePlan::healthy();
    let store = failing_store(directory.path(), &plan);
    put(&store, "kept").await.unwrap();
    plan.writes.store(0, Ordering::SeqCst);
    plan.resizes.store(0, Ordering::SeqCst);
    assert!(matches!(put(&store, "unknown").await, Err(StoreError::Unknown(_))));
    assert!(matches!(put(&store, "refused").await, Err(StoreError::Unavailable { .. })));
    drop(store);
    assert_eq!(value(&EmbeddedStore::open(directory.path()).await.unwrap()).await, "kept");
}

#[tokio::test]
async fn a_closed_store_ends_its_watches() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).await.unwrap();
    let mut watch = store.watch("/", WatchStart::Now).await.unwrap();
    drop(store);
    let end = futures::StreamExt::next(&mut watch).await;
    assert!(matches!(end, Some(Err(StoreError::Unavailable { .. }))), "{end:?}");
    assert!(futures::StreamExt::next(&mut watch).await.is_none());
}

#[tokio::test]
async fn concurrent_commits_share_syncs() {
    let directory = tempfile::tempdir().unwrap();
    let plan = FailurePlan::healthy();
    plan.syncs.store(1000, Ordering::SeqCst);
    let store = failing_store(directory.path(), &plan);
    futures::future::join_all((0..500).map(|_| put(&store, "x"))).await.into_iter().for_each(|r| {
        r.unwrap();
    });
    let syncs = 1000 - plan.syncs.load(Ordering::SeqCst);
    assert!(syncs < 50, "500 commits took {syncs} syncs");
}

/// Its successor would have the same name, and the compaction in it would be lost if the snapshot then failed.
#[test]
fn a_log_without_commits_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let directory = Arc::new(Directory::open(directory.path()).unwrap());
    let EmbeddedOptions { limits, clock, .. } = EmbeddedOptions::default();
    let engine = Arc::new(Engine::new(State::new(), limits));
    let mut log = recover::create_log(&directory, 1).unwrap();
    log.append(|out| record::write_compact(out, 1)).unwrap();
    let length = log.len();
    let mut rotation = Rotation::new(directory, 1, 1, 0);
    let log = rotation.after_write(log, &engine, &clock);
    rotation.stop();
    assert_eq!(log.len(), length);
}

/// A frame in a value is not a frame: it has another salt than the file.
#[test]
fn a_record_inside_of_a_value_is_not_found_by_recovery() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut file = std::fs::File::create_new(&path).unwrap();
    let salt = log::write_header(&mut file, 1).unwrap();
    let mut forged = Vec::new();
    frame::begin_frame(&mut forged);
    forged.extend(b"payload");
    assert!(frame::finish_frame(&mut forged, Salt::random()));
    let mut log = Log::new(file.try_clone().unwrap(), salt);
    log.append(|out| out.extend(b"first")).unwrap();
    let end = log.len();
    log.append(|out| out.extend(&forged)).unwrap();
    // The frame that holds the forged one is cut short at its beginning.
    Medium::write_at(&mut file, &[0; 4], end).unwrap();
    let mut frames = Frames::open(&path, FileKind::Log, 1).unwrap();
    assert_eq!(frames.offset(), HEADER as u64);
    assert_eq!(frames.next().unwrap(), Step::Payload(b"first".to_vec()));
    assert_eq!(frames.next().unwrap(), Step::End);
    assert_eq!(frames.offset(), end);
}

#[test]
fn lifetimes_end_on_time_and_clock_jumps_never_lengthen_them() {
    use record::Lifetime;
    use std::time::Duration;
    let lifetime = Lifetime::starting(1_000_000, Duration::from_secs(60));
    for (now, left) in [(1_000_000, 60), (1_030_000, 30), (1_060_000, 0), (9_000_000, 0), (0, 60)] {
        assert_eq!(lifetime.remaining(now), Duration::from_secs(left), "at {now}");
    }
}

#[test]
fn payloads_that_are_cut_anywhere_are_refused() {
    let entry = Entry { key: "/k".into(), value: "value".into(), created: 3, revision: 4 };
    let lifetime = record::Lifetime::starting(5, std::time::Duration::from_secs(6));
    let mut payload = Vec::new();
    record::write_entry(&mut payload, &entry, Some(lifetime));
    let whole = payload.len();
    record::write_end(&mut payload, 1);
    let expected = vec![record::Record::Entry { entry, lifetime: Some(lifetime) }, record::Record::End { count: 1 }];
    assert_eq!(record::read_all(&payload), Some(expected));
    for cut in (1..payload.len()).filter(|cut| *cut != whole) {
        assert_eq!(record::read_all(&payload[..cut]), None, "cut at {cut}");
    }
}
