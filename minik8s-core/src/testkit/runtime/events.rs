//! Events.

use super::scope::{SOON, Scope};
use crate::runtime::RuntimeEvent;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::time::Duration;

/// Waits for news of a container; a resync is news of everything.
async fn news(events: &mut BoxStream<'static, RuntimeEvent>, wanted: &str, sandbox: &str) {
    let found = async {
        while let Some(event) = events.next().await {
            match event {
                RuntimeEvent::Container { sandbox: s, id } if id == wanted => return assert_eq!(s, sandbox),
                RuntimeEvent::Resync => return,
                RuntimeEvent::Container { .. } => {}
            }
        }
        panic!("the stream of events ended");
    };
    tokio::time::timeout(SOON, found).await.unwrap_or_else(|_| panic!("no event of {wanted}"));
}

pub(super) async fn every_change_is_announced(s: &mut Scope) {
    let mut events = s.runtime.events().await.expect("events");
    let mut other = s.runtime.events().await.expect("a second listener");
    let sandbox = s.sandbox("a").await;
    let spec = s.sleeper("c");
    s.start(&sandbox, &spec).await;
    news(&mut events, &spec.id, &sandbox.spec.id).await;
    s.runtime.stop_container(&spec.id, Duration::ZERO).await.expect("stop");
    news(&mut events, &spec.id, &sandbox.spec.id).await;
    s.runtime.remove_container(&spec.id).await.expect("remove");
    news(&mut events, &spec.id, &sandbox.spec.id).await;
    news(&mut other, &spec.id, &sandbox.spec.id).await;
}

pub(super) async fn a_lost_end_is_found_by_listing(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let spec = s.script("c", "sleep 0.3; exit 8");
    s.start(&sandbox, &spec).await;
    s.reopen().await;
    // Listening only now: whether the event comes or was missed, the list tells.
    let _late = s.runtime.events().await.expect("events");
    assert_eq!(s.exit(&spec.id).await.code, 8);
}
