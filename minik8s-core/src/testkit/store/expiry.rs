//! Keys that vanish. Nothing here asserts how long something took, only what came before what.

use super::scope::{Scope, put_op, text};
use crate::api::Revision;
use crate::store::{Event, Op, StoreError, WatchStart};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(100);
const LONGER: Duration = Duration::from_millis(400);

pub(super) async fn put_for(s: &Scope, name: &str, value: &str, ttl: Duration) -> Result<Revision, StoreError> {
    let value = bytes::Bytes::copy_from_slice(value.as_bytes());
    s.apply(&[], &[Op::Put { key: s.key(name), value, ttl: Some(ttl) }]).await
}

/// What the contract says of a store without expiry.
pub(super) async fn assert_refused(s: &Scope) {
    assert!(matches!(put_for(s, "a", "1", SHORT).await, Err(StoreError::Unsupported(_))));
    assert_eq!(s.get("a").await, None);
}

pub(super) async fn a_key_vanishes_after_its_lifetime(s: &mut Scope) {
    s.create("stays", "x").await.unwrap();
    let mut watch = s.watch("", WatchStart::Now).await;
    let written = put_for(s, "a", "brief", SHORT).await.unwrap();
    let events = watch.events(2).await;
    let Event::Delete(entry) = &events[1] else { panic!("expected a delete, got {events:?}") };
    assert_eq!((text(entry).as_str(), entry.created), ("brief", written));
    assert!(entry.revision > written);
    assert_eq!(s.get("a").await, None);
    assert!(s.get("stays").await.is_some());
}

pub(super) async fn a_write_without_lifetime_ends_expiry(s: &mut Scope) {
    put_for(s, "a", "brief", SHORT).await.unwrap();
    s.apply(&[], &[put_op(&s.key("a"), "for ever")]).await.unwrap();
    let mut watch = s.watch("", WatchStart::Now).await;
    put_for(s, "clock", "", LONGER).await.unwrap();
    let events = watch.events(2).await;
    assert!(matches!(&events[1], Event::Delete(e) if e.key == s.key("clock")), "{events:?}");
    assert_eq!(s.text("a").await.unwrap(), "for ever");
}

pub(super) async fn a_later_write_with_lifetime_extends_it(s: &mut Scope) {
    put_for(s, "a", "brief", SHORT).await.unwrap();
    put_for(s, "a", "long", Duration::from_secs(600)).await.unwrap();
    let mut watch = s.watch("", WatchStart::Now).await;
    put_for(s, "clock", "", LONGER).await.unwrap();
    let events = watch.events(2).await;
    assert!(matches!(&events[1], Event::Delete(e) if e.key == s.key("clock")), "{events:?}");
    assert_eq!(s.text("a").await.unwrap(), "long");
}
