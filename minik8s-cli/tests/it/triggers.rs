//! Triggers of a process that is killed while they deliver.

use super::flows::{apply, is_over, object, runs};
use super::functions::{ready, with_function};
use super::harness::{Kind, Up, until, until_or};
use minik8s_core::testkit::need::{self, Need};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Sends one event after the other and remembers those that were accepted.
struct Sender {
    accepted: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Sender {
    fn start(to: SocketAddr) -> Self {
        let (accepted, stop) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicBool::new(false)));
        let (told, ended) = (accepted.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            for n in 0.. {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let id = format!("e{n}");
                if send(to, &id).is_some_and(|answer| answer.starts_with("HTTP/1.1 202")) {
                    told.lock().expect("nobody panics").insert(id);
                } else {
                    // Nobody listens just now.
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self { accepted, stop, thread }
    }

    fn accepted(&self) -> usize {
        self.accepted.lock().expect("nobody panics").len()
    }

    fn stop(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the sender ends");
        self.accepted.lock().expect("nobody panics").clone()
    }
}

fn send(to: SocketAddr, id: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(30)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let event = json!({"specversion": "1.0", "id": id, "source": "/test", "type": "t", "data": {"id": id}}).to_string();
    let head = "POST /trigger/default/hook HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-type: application/cloudevents+json\r\n";
    write!(stream, "{head}content-length: {}\r\n\r\n{event}", event.len()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// What runs of a workflow were given, and how often.
fn given(all: &BTreeMap<String, Value>, kind: &str) -> BTreeMap<String, usize> {
    let mut given = BTreeMap::new();
    for status in all.values().filter(|status| status["output"]["kind"] == kind) {
        *given.entry(status["output"]["id"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    given
}

#[test]
fn what_was_accepted_is_delivered_however_often_the_process_is_killed() {
    const KILLS: usize = 8;
    const BURST: usize = 25;
    // Beyond the ports that others are given by chance.
    let port = 20_000 + std::process::id() % 10_000;
    let address = format!("127.0.0.1:{port}");
    let watched = tempfile::tempdir().expect("a directory");
    let inbox = watched.path().display().to_string();
    let arguments = ["--node-name", "node-1", "--webhooks", &address, "--trigger-path", &inbox];
    let Some(mut up) = Up::start_with(Kind::Fake, &arguments) else { return };
    let workflow = json!({"keepFinished": 100_000, "startAt": "a", "steps": [{"name": "a", "pass": {}, "end": true}]});
    let trigger = |name: &str, source: &str, what: Value, id: &str| {
        let parameters = json!({"kind": name, "id": id});
        let spec = json!({source: what, "target": {"workflow": {"name": "keep"}}, "parameters": parameters});
        object("Trigger", name, &spec)
    };
    let maps = json!({"apiVersion": "v1", "resource": "configmaps", "selector": {"matchLabels": {"app": "test"}}});
    apply(
        &up,
        &[
            object("Workflow", "keep", &workflow),
            trigger("hook", "webhook", json!({}), "${event.data.id}"),
            trigger("maps", "object", maps, "${event.data.object.metadata.name}"),
            trigger("files", "file", json!({"path": inbox, "events": ["Modified"]}), "${event.data.name}"),
            trigger("time", "cron", json!({"schedule": "* * * * *"}), "${event.data.time}"),
        ],
    );
    let is_ready = |name: &str| {
        up.minik8s(&["get", "trigger", name, "-o", "jsonpath={.status.conditions[0].status}"]).out == "True"
    };
    until("objects and files are watched", 60, || is_ready("maps") && is_ready("files"));
    // From then on nothing that changes is forgotten.
    until("it is known when files were looked at", 60, || {
        !up.minik8s(&["get", "trigger", "files", "-o", "jsonpath={.status.seenAt}"]).out.is_empty()
    });
    let sender = Sender::start(address.parse().expect("an address"));
    let mut made = BTreeSet::new();
    for kill in 0..KILLS {
        let before = sender.accepted();
        until("events are accepted", 120, || sender.accepted() >= before + 5 + kill);
        for n in 0..3 {
            let name = format!("m{kill}-{n}");
            let map =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": "test"}}});
            if up.minik8s_with(&["apply", "-f", "-"], &map.to_string()).code == 0 {
                made.insert(name);
            }
        }
        // In the middle of a burst of files.
        let directory = watched.path().to_owned();
        let burst = std::thread::spawn(move || {
            (0..BURST).for_each(|n| std::fs::write(directory.join(format!("f{kill}-{n}")), "x").expect("a file"));
        });
        let moment = Instant::now();
        while !watched.path().join(format!("f{kill}-{kill}")).exists() {
            assert!(moment.elapsed() < Duration::from_secs(60), "the burst does not begin");
            std::thread::yield_now();
        }
        up.kill();
        burst.join().expect("files are written");
        up.run();
    }
    let accepted = sender.stop();
    let files: Vec<String> = (0..KILLS).flat_map(|kill| (0..BURST).map(move |n| format!("f{kill}-{n}"))).collect();
    let missing = |all: &BTreeMap<String, Value>| {
        let (events, objects, told) = (given(all, "hook"), given(all, "maps"), given(all, "files"));
        let events = accepted.iter().filter(|id| !events.contains_key(*id)).count();
        let objects = made.iter().filter(|name| !objects.contains_key(*name)).count();
        (events, objects, files.iter().filter(|name| !told.contains_key(*name)).count())
    };
    let mut last = BTreeMap::new();
    let mut done = || {
        last = runs(&up);
        last.values().all(is_over) && missing(&last) == (0, 0, 0) && !given(&last, "time").is_empty()
    };
    let began = Instant::now();
    while !done() {
        let left = missing(&runs(&up));
        assert!(began.elapsed() < Duration::from_secs(240), "events, objects, files that are not delivered: {left:?}");
    }
    assert!(
        made.len() == 3 * KILLS && accepted.len() >= 5 * KILLS,
        "{} objects, {} events",
        made.len(),
        accepted.len()
    );
    let twice: Vec<_> = given(&last, "hook").into_iter().filter(|(_, times)| *times > 1).collect();
    assert!(twice.is_empty(), "an event is one run: {twice:?}");
    assert!(given(&last, "time").values().all(|times| *times == 1), "a time is one run: {:?}", given(&last, "time"));
    eprintln!("{} events, {} objects, {} times", accepted.len(), made.len(), given(&last, "time").len());
}

#[test]
fn a_dead_delivery_is_tried_again_when_somebody_says_so() {
    if !need::met(&[Need::Program("python3")]) {
        return;
    }
    let Some(up) = Up::start(Kind::Real) else { return };
    let maps = json!({"apiVersion": "v1", "resource": "configmaps", "selector": {"matchLabels": {"app": "test"}}});
    let target = json!({"function": {"name": "late"}});
    let trigger = json!({"object": maps, "target": target, "retry": {"maxAttempts": 1}});
    let told = |what: &str, path: &str| up.minik8s(&["get", what, "-o", &format!("jsonpath={path}")]).out;
    apply(&up, &[object("Trigger", "maps", &trigger)]);
    until("objects are watched", 120, || told("trigger/maps", "{.status.conditions[0].status}") == "True");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "labels": {"app": "test"}}});
    up.minik8s_with(&["apply", "-f", "-"], &map.to_string()).ok();
    let all = || told("triggerdeliveries", "{.items[*].metadata.name} {.items[*].status.phase}");
    // Nobody is there to be called.
    until_or(180, || all().ends_with(" Dead"), || format!("the delivery is given up: {}", all()));
    let name = all().split(' ').next().expect("a name").to_owned();
    let refused = up.minik8s(&["trigger", "redeliver", "nobody"]).refused();
    assert!(refused.contains("nobody") && refused.contains("not found"), "{refused}");
    if !with_function(&up, "late", "def main(p):\n    return p\n", &[]) {
        return;
    }
    ready(&up, "late");
    let said = up.minik8s(&["trigger", "redeliver", &name]).ok();
    assert!(said.contains(&format!("{name} is tried again")), "{said}");
    let state = || told(&format!("triggerdelivery/{name}"), "{.status.phase} {.status.attempts}");
    until_or(180, || state().starts_with("De"), || format!("it is over: {}", state()));
    assert_eq!(state(), "Delivered 1", "{}", told(&format!("triggerdelivery/{name}"), "{.status}"));
    assert_eq!(all(), format!("{name} Delivered"), "it is the same one");
    let refused = up.minik8s(&["trigger", "redeliver", &name]).refused();
    assert!(refused.contains(&format!("{name} is delivered")), "{refused}");
}
