//! Times, ranks and events in, pods out.

use super::timers::looks;
use super::*;

fn nobody() -> Arc<[&'static str]> {
    Arc::from([])
}

fn pod(uid: &str, priority: i32) -> Arc<PodInfo> {
    Arc::new(PodInfo { uid: uid.into(), priority, ..PodInfo::default() })
}

#[tokio::test(start_paused = true)]
async fn the_highest_priority_goes_first_then_the_earliest() {
    let mut q = SchedulingQueue::default();
    for (uid, priority) in [("a", 0), ("b", 5), ("c", 5)] {
        q.put(pod(uid, priority));
    }
    let now = Instant::now();
    let order: Vec<String> = std::iter::from_fn(|| q.pop(now)).map(|p| p.uid.clone()).collect();
    assert_eq!(order, ["b", "c", "a"]);
}

#[tokio::test(start_paused = true)]
async fn a_parked_pod_waits_for_a_change_that_helps_and_for_its_back_off() {
    let mut q = SchedulingQueue::default();
    q.put(pod("a", 0));
    let t0 = Instant::now();
    assert!(q.pop(t0).is_some());
    q.park("a", t0, nobody(), |event| event == ClusterEvent::PodLeft);
    q.wake(ClusterEvent::PodPlaced, |_, _| Wake::Again);
    assert!(q.pop(t0 + Duration::from_secs(60)).is_none());
    q.wake(ClusterEvent::PodLeft, |_, _| Wake::Again);
    assert!(q.pop(t0).is_none(), "not before its back-off is over");
    assert_eq!(q.next_wake(), Some(t0 + Duration::from_secs(1)));
    assert!(q.pop(t0 + Duration::from_secs(1)).is_some());
}

#[tokio::test(start_paused = true)]
async fn back_off_doubles_to_its_bound_and_a_changed_pod_is_tried_at_once() {
    let mut q = SchedulingQueue::default();
    q.put(pod("a", 0));
    let mut now = Instant::now();
    let mut waits = Vec::new();
    for _ in 0..6 {
        assert!(q.pop(now).is_some());
        q.retry("a");
        let next = q.next_wake().unwrap();
        waits.push((next - now).as_secs());
        now = next;
    }
    assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
    assert!(q.pop(now).is_some());
    q.retry("a");
    q.put(pod("a", 7));
    assert!(q.pop(now).is_some());
    q.remove("a");
    assert!(q.is_empty() && q.pop(now).is_none());
}

/// Each step moves one pod; the table says where it must be found afterwards.
#[tokio::test(start_paused = true)]
async fn a_pod_stands_in_one_place() {
    type Step = (&'static str, fn(&mut SchedulingQueue, Instant), [usize; 4]);
    let steps: [Step; 10] = [
        ("new", |q, _| q.put(pod("a", 0)), [1, 0, 0, 0]),
        ("the same again", |q, _| q.put(pod("a", 0)), [1, 0, 0, 0]),
        ("popped", |q, now| drop(q.pop(now)), [0, 0, 0, 0]),
        ("parked", |q, now| q.park("a", now, nobody(), |e| e != ClusterEvent::PodPlaced), [0, 0, 1, 4]),
        ("parked anew", |q, now| q.park("a", now, nobody(), |e| e == ClusterEvent::PodLeft), [0, 0, 1, 1]),
        ("not helped", |q, _| q.wake(ClusterEvent::NodeAdded, |_, _| Wake::Again), [0, 0, 1, 1]),
        ("helped", |q, _| q.wake(ClusterEvent::PodLeft, |_, _| Wake::Again), [0, 1, 0, 0]),
        ("helped again", |q, _| q.wake(ClusterEvent::PodLeft, |_, _| Wake::Again), [0, 1, 0, 0]),
        ("changed", |q, _| q.put(pod("a", 3)), [1, 0, 0, 0]),
        ("gone", |q, _| q.remove("a"), [0, 0, 0, 0]),
    ];
    let (mut q, now) = (SchedulingQueue::default(), Instant::now());
    for (what, step, places) in steps {
        step(&mut q, now);
        let by_event = q.helped_by.values().map(BTreeSet::len).sum();
        assert_eq!([q.active.len(), q.backing_off.len(), q.flushes.len(), by_event], places, "{what}");
    }
    assert!(q.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_parked_pod_is_tried_in_the_end_though_nothing_helped() {
    let (mut q, t0) = (SchedulingQueue::default(), Instant::now());
    q.put(pod("a", 0));
    assert!(q.pop(t0).is_some());
    q.park("a", t0, nobody(), |_| false);
    assert_eq!(q.next_wake(), Some(t0 + FLUSH_AFTER));
    ClusterEvent::ALL.into_iter().for_each(|event| q.wake(event, |_, _| Wake::Again));
    assert!(q.pop(t0 + FLUSH_AFTER - Duration::from_millis(1)).is_none());
    assert!(q.pop(t0 + FLUSH_AFTER).is_some());
}

/// Looks are counted, not time: a queue that went through all its pods would look ten thousand times.
#[tokio::test(start_paused = true)]
async fn ten_thousand_unschedulable_pods_do_not_slow_a_pop() {
    const MANY: usize = 10_000;
    const FEW: usize = 200;
    let (mut q, t0) = (SchedulingQueue::default(), Instant::now());
    for n in 0..MANY {
        let uid = format!("u{n}");
        q.put(pod(&uid, 0));
        assert!(q.pop(t0).is_some());
        q.park(&uid, t0 + Duration::from_millis(n as u64), nobody(), |event| event == ClusterEvent::NodeAdded && n < 3);
    }
    assert_eq!(q.flushes.len(), MANY);
    q.put(pod("new", 0));
    let now = t0 + Duration::from_secs(60);
    let (popped, looks) = looks::during(|| q.pop(now));
    assert_eq!(popped.unwrap().uid, "new");
    assert!(looks < FEW, "a pop looked {looks} times");
    let (_, looks) = looks::during(|| {
        q.wake(ClusterEvent::PodPlaced, |_, _| Wake::Again);
        q.wake(ClusterEvent::PodLeft, |_, _| Wake::Again);
        q.next_wake()
    });
    assert!(looks < FEW, "events that help nobody made for {looks} looks");
    let (_, looks) = looks::during(|| q.wake(ClusterEvent::NodeAdded, |_, _| Wake::Again));
    assert_eq!((q.backing_off.len(), q.flushes.len()), (3, MANY - 3));
    assert!(looks < 3 * FEW, "moving three pods made for {looks} looks");
    let (woken, looks) = looks::during(|| std::iter::from_fn(|| q.pop(now)).count());
    assert_eq!(woken, 3);
    assert!(looks < 4 * FEW, "popping three pods made for {looks} looks");
}

#[tokio::test(start_paused = true)]
async fn a_change_wakes_exactly_those_that_it_helps() {
    let (mut q, t0) = (SchedulingQueue::default(), Instant::now());
    for (uid, filter) in [("a", "Fit"), ("b", "Fit"), ("c", "Taints")] {
        q.put(pod(uid, 0));
        assert!(q.pop(t0).is_some());
        q.park(uid, t0, Arc::from([filter]), |event| event == ClusterEvent::PodLeft);
    }
    let woken = |q: &mut SchedulingQueue| {
        let now = t0 + Duration::from_secs(60);
        std::iter::from_fn(|| q.pop(now)).map(|p| p.uid.clone()).collect::<Vec<_>>()
    };
    q.wake(ClusterEvent::NodeAdded, |_, _| Wake::Again);
    q.wake(ClusterEvent::PodLeft, |_, _| Wake::Stay);
    assert!(woken(&mut q).is_empty());
    let only_a = |pod: &PodInfo, refused_by: &[&str]| match pod.uid != "b" && refused_by == ["Fit"] {
        true => Wake::Again,
        false => Wake::Stay,
    };
    q.wake(ClusterEvent::PodLeft, only_a);
    assert_eq!(woken(&mut q), ["a"]);
    q.wake(ClusterEvent::PodLeft, |_, _| Wake::Again);
    assert_eq!(woken(&mut q), ["b", "c"], "the others still wait for it");
}

/// Whoever was made room for goes first, by priority; the others keep to their back-off.
#[tokio::test(start_paused = true)]
async fn room_that_was_made_is_taken_at_once_and_others_wait_for_their_turn() {
    let (mut q, t0) = (SchedulingQueue::default(), Instant::now());
    for (uid, priority) in [("helped", 100), ("made-low", 1), ("made-high", 10), ("not", 50)] {
        q.put(pod(uid, priority));
        assert!(q.pop(t0).is_some());
        q.park(uid, t0, nobody(), |event| event == ClusterEvent::PodLeft);
    }
    q.wake(ClusterEvent::PodLeft, |pod, _| match pod.uid.as_str() {
        "not" => Wake::Stay,
        "helped" => Wake::Again,
        _ => Wake::AtOnce,
    });
    let popped =
        |q: &mut SchedulingQueue, now| std::iter::from_fn(|| q.pop(now)).map(|p| p.uid.clone()).collect::<Vec<_>>();
    assert_eq!(popped(&mut q, t0), ["made-high", "made-low"]);
    // A try that fails counts: the next wait is longer, so that nobody is tried without end.
    q.retry("made-low");
    assert_eq!(q.next_wake(), Some(t0 + BACKOFF_START));
    assert_eq!(popped(&mut q, t0 + BACKOFF_START), ["helped"]);
    assert_eq!(popped(&mut q, t0 + 2 * BACKOFF_START), ["made-low"]);
    assert_eq!(popped(&mut q, t0 + FLUSH_AFTER), ["not"], "nobody is forgotten");
}
