//! What the recorder writes. The correlation of repeats has its own tables.

use super::*;
use crate::clock::ManualClock;
use crate::testkit::StubTransport;
use k8s_openapi::api::core::v1::ObjectReference;

#[test]
fn an_event_fills_both_generations_of_fields() {
    let writer =
        Writer { client: nowhere(), component: "kubelet".into(), node: "n1".into(), last: AtomicU64::default() };
    let about = ObjectReference { name: Some("web-0".into()), ..ObjectReference::default() };
    let at = Timestamp::from_second(1_700_000_000).unwrap();
    let note = Note { about, kind: EventType::Warning, reason: "Failed".into(), message: "m".into(), at };
    let event = writer.first(&note);
    assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
    assert!(event.metadata.name.unwrap().starts_with("web-0."));
    let source = event.source.unwrap();
    assert_eq!((source.component.as_deref(), source.host.as_deref()), (Some("kubelet"), Some("n1")));
    assert_eq!(event.reporting_component.as_deref(), Some("kubelet"));
    assert_eq!((event.type_.as_deref(), event.count), (Some("Warning"), Some(1)));
}

#[tokio::test]
async fn telling_never_blocks_even_when_nothing_can_be_written() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_second(1).unwrap()));
    let (queue, _unread) = mpsc::channel(QUEUE);
    let recorder = EventRecorder { queue, clock };
    for i in 0..QUEUE * 2 {
        recorder.event(&ObjectReference::default(), EventType::Normal, "R", i.to_string());
    }
    assert_eq!(recorder.queue.capacity(), 0, "full, and the rest was dropped");
}

fn nowhere() -> Client {
    Client::new(Arc::new(StubTransport::default()))
}
