//! Nodes with pods in, victims out.

use super::super::{Budget, Outcome, Policy, Resources, Scheduler};
use super::*;
use k8s_openapi::api::core::v1::Taint;

fn node(name: &str) -> NodeInfo {
    let allocatable = Resources { milli_cpu: 1000, memory: 1 << 30, pods: 10, ..Resources::default() };
    NodeInfo { name: name.into(), allocatable, ..NodeInfo::default() }
}

fn pod(uid: &str, on: &str, priority: i32, milli_cpu: i64, started: i64) -> PodInfo {
    PodInfo {
        uid: uid.into(),
        name: uid.into(),
        namespace: "default".into(),
        node_name: on.into(),
        requests: Resources { milli_cpu, ..Resources::default() },
        priority,
        started: Some(Timestamp::from_second(started).unwrap()),
        ..PodInfo::default()
    }
}

fn world(pods: &[PodInfo]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let nodes: std::collections::BTreeSet<&str> = pods.iter().map(|p| p.node_name.as_str()).collect();
    nodes.into_iter().for_each(|name| snapshot.put_node(node(name)));
    pods.iter().for_each(|p| snapshot.put_pod(Arc::new(p.clone())));
    snapshot
}

fn scheduler() -> FrameworkScheduler {
    FrameworkScheduler::new(Policy::Default.profile())
}

fn preempt(snapshot: &Snapshot, pod: &PodInfo) -> Result<Preemption, NoRoom> {
    match scheduler().schedule(snapshot, pod) {
        Outcome::Unschedulable(why) => scheduler().preempt(snapshot, pod, &why),
        Outcome::Node(choice) => panic!("there is room: {choice:?}"),
    }
}

/// The node and who has to go, in the order of their names.
fn choice(pods: &[PodInfo], new: &PodInfo) -> Option<(String, Vec<String>)> {
    let room = preempt(&world(pods), new).ok()?;
    let mut victims: Vec<String> = room.victims.iter().map(|v| v.uid.clone()).collect();
    victims.sort();
    Some((room.node, victims))
}

#[test]
fn victims_are_chosen_as_documented() {
    let new = pod("new", "", 100, 600, 0);
    // what it shows, the pods, the node and the victims
    type Row = (&'static str, Vec<PodInfo>, Option<(&'static str, &'static [&'static str])>);
    let table: Vec<Row> = vec![
        ("equals stay", vec![pod("a", "n1", 100, 900, 1)], None),
        ("the lowest go first", vec![pod("a", "n1", 10, 500, 1), pod("b", "n1", 5, 500, 1)], Some(("n1", &["a", "b"]))),
        (
            "no more than needed, and the less important",
            vec![pod("a", "n1", 10, 400, 1), pod("b", "n1", 5, 600, 1)],
            Some(("n1", &["b"])),
        ),
        (
            "the younger of two equals",
            vec![pod("a", "n1", 5, 600, 100), pod("b", "n1", 5, 400, 1)],
            Some(("n1", &["a"])),
        ),
        (
            "the lowest highest priority",
            vec![pod("a", "n1", 50, 900, 1), pod("b", "n2", 5, 450, 1), pod("c", "n2", 5, 450, 1)],
            Some(("n2", &["b", "c"])),
        ),
        (
            "then the fewest",
            vec![pod("a", "n1", 5, 450, 1), pod("b", "n1", 5, 450, 1), pod("c", "n2", 5, 900, 1)],
            Some(("n2", &["c"])),
        ),
        ("then the latest start", vec![pod("a", "n1", 5, 900, 1), pod("b", "n2", 5, 900, 2)], Some(("n2", &["b"]))),
    ];
    for (shows, pods, expected) in table {
        let expected =
            expected.map(|(node, victims)| (node.to_owned(), victims.iter().map(ToString::to_string).collect()));
        assert_eq!(choice(&pods, &new), expected, "{shows}");
    }
}

#[test]
fn who_makes_no_room_says_why() {
    let mut snapshot = world(&[pod("a", "n1", 5, 900, 1)]);
    let never = PodInfo { never_preempts: true, ..pod("new", "", 100, 600, 0) };
    let why = preempt(&snapshot, &never).unwrap_err().to_string();
    assert_eq!(why, " preemption: not eligible due to preemptionPolicy=Never.");
    let taint = Taint { key: "k".into(), effect: "NoSchedule".into(), ..Taint::default() };
    snapshot.put_node(NodeInfo { taints: vec![taint], ..node("tainted") });
    let why = preempt(&snapshot, &pod("low", "", 5, 600, 0)).unwrap_err().to_string();
    let reasons = "1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling";
    assert_eq!(why, format!(" preemption: 0/2 nodes are available: {reasons}."));
    let new = PodInfo { nominated: "n1".into(), ..pod("new", "", 100, 600, 0) };
    snapshot.nominate(Arc::new(new.clone()));
    snapshot.put_pod(Arc::new(PodInfo { terminating: true, ..pod("a", "n1", 5, 900, 1) }));
    assert_eq!(preempt(&snapshot, &new), Err(NoRoom::Waiting));
}

#[test]
fn room_made_for_a_pod_is_not_taken_by_lesser_ones() {
    let mut snapshot = world(&[pod("a", "n1", 5, 300, 1)]);
    let nominee = PodInfo { nominated: "n1".into(), ..pod("nominee", "", 50, 600, 0) };
    snapshot.nominate(Arc::new(nominee.clone()));
    let fits = |snapshot: &Snapshot, priority| {
        matches!(scheduler().schedule(snapshot, &pod("x", "", priority, 300, 0)), Outcome::Node(_))
    };
    assert!(!fits(&snapshot, 49) && !fits(&snapshot, 50), "lower and equal priorities see it as taken");
    assert!(fits(&snapshot, 51), "higher ones do not");
    assert!(matches!(scheduler().schedule(&snapshot, &nominee), Outcome::Node(_)), "it does not stand in its own way");
    snapshot.put_node(node("n0"));
    assert!(matches!(scheduler().schedule(&snapshot, &nominee), Outcome::Node(c) if c.node == "n1"), "its node first");
    snapshot.withdraw("nominee");
    snapshot.remove_node("n0");
    assert!(fits(&snapshot, 0));
}

#[test]
fn anti_affinity_can_be_preempted_too() {
    let alone = serde_json::json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "host", "labelSelector": {"matchLabels": {"app": "db"}}}]}});
    let mut snapshot = Snapshot::default();
    snapshot.put_node(NodeInfo { labels: [("host".to_owned(), "n1".to_owned())].into(), ..node("n1") });
    let labels: std::collections::BTreeMap<_, _> = [("app".to_owned(), "db".to_owned())].into();
    snapshot.put_pod(Arc::new(PodInfo { labels, ..pod("a", "n1", 5, 100, 1) }));
    snapshot.put_pod(Arc::new(pod("b", "n1", 5, 100, 1)));
    let affinity = Some(Arc::new(serde_json::from_value(alone).unwrap()));
    let room = preempt(&snapshot, &PodInfo { affinity, ..pod("new", "", 100, 100, 0) }).unwrap();
    assert_eq!(room.victims.iter().map(|v| v.uid.as_str()).collect::<Vec<_>>(), ["a"], "the other one does not bother");
}

#[test]
fn budgets_are_kept_where_that_is_possible() {
    let labelled = |pod: PodInfo, app: &str| PodInfo { labels: [("app".to_owned(), app.to_owned())].into(), ..pod };
    let budget = |app: &str, allowed: i32| {
        let selector = crate::api::Selector::parse(&format!("app={app}")).unwrap();
        let (namespace, name) = ("default".to_owned(), app.to_owned());
        Budget { namespace, name, selector, allowed, let_go: Default::default() }
    };
    let new = pod("new", "", 100, 600, 0);
    let chosen = |pods: &[PodInfo], budgets: &[Budget]| {
        let mut snapshot = world(pods);
        budgets.iter().for_each(|b| snapshot.put_budget(b.clone()));
        let room = preempt(&snapshot, &new).unwrap();
        (room.node, room.victims.iter().map(|v| v.uid.clone()).collect::<Vec<_>>().join(","))
    };
    let is = |node: &str, victims: &str| (node.to_owned(), victims.to_owned());
    // The cheaper node by priority, but nobody may be missed there.
    let pods = [labelled(pod("a", "n1", 5, 900, 1), "web"), labelled(pod("b", "n2", 50, 900, 1), "db")];
    assert_eq!(chosen(&pods, &[]), is("n1", "a"));
    assert_eq!(chosen(&pods, &[budget("web", 0)]), is("n2", "b"));
    assert_eq!(chosen(&pods, &[budget("web", 1), budget("db", 0)]), is("n1", "a"));
    assert_eq!(chosen(&pods, &[budget("web", 0), budget("db", 0)]), is("n1", "a"), "it goes on nevertheless");
    // On one node: the more important one goes, as the other one may not.
    let pods = [labelled(pod("a", "n1", 5, 500, 1), "web"), labelled(pod("b", "n1", 50, 500, 1), "db")];
    let small = PodInfo { requests: Resources { milli_cpu: 400, ..Resources::default() }, ..new.clone() };
    let mut snapshot = world(&pods);
    snapshot.put_budget(budget("web", 0));
    let room = preempt(&snapshot, &small).unwrap();
    assert_eq!(room.victims.iter().map(|v| v.uid.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_nominated_node_that_is_closed_meanwhile_is_not_waited_for() {
    let mut snapshot = world(&[pod("a", "n1", 5, 900, 1), pod("b", "n2", 5, 900, 1)]);
    let new = PodInfo { nominated: "n1".into(), ..pod("new", "", 100, 600, 0) };
    snapshot.nominate(Arc::new(new.clone()));
    snapshot.put_pod(Arc::new(PodInfo { terminating: true, ..pod("a", "n1", 5, 900, 1) }));
    assert_eq!(preempt(&snapshot, &new), Err(NoRoom::Waiting));
    snapshot.put_node(NodeInfo { unschedulable: true, ..node("n1") });
    assert_eq!(preempt(&snapshot, &new).unwrap().node, "n2");
}
