//! What a thousand callers notice, through the gateway and of a Service, of a Deployment that rolls, pods that go, and a
//! process that is started again.

use super::gateway::{ROUTES, Served, ask, available, get, web};
use super::harness::{Kind, Up, until};
use minik8s_core::testkit::wait;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Callers, and what they saw.
#[derive(Default)]
struct Seen {
    answered: AtomicUsize,
    /// Nothing was sent: to try again is anyone's right. What was said of each.
    refused: Mutex<Vec<String>>,
    /// Nothing came back, or not all of an answer. What was seen of each.
    dropped: Mutex<Vec<String>>,
    /// Answers that are none of the Service's.
    failed: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Seen {
    /// Waits for so many more answers.
    fn hear(&self, more: usize) {
        let so_far = self.answered.load(Ordering::Relaxed);
        until("callers are answered", 120, || self.answered.load(Ordering::Relaxed) >= so_far + more);
    }

    /// What was said of calls that were refused, and of those that were dropped.
    fn lost(&self) -> (Vec<String>, Vec<String>) {
        (self.refused.lock().unwrap().clone(), self.dropped.lock().unwrap().clone())
    }

    #[track_caller]
    fn none_lost(&self) {
        assert_eq!(self.lost(), (Vec::new(), Vec::new()));
    }

    #[track_caller]
    fn none_failed(&self) {
        assert_eq!(*self.failed.lock().unwrap(), Vec::<String>::new());
    }
}

async fn call(to: SocketAddr, seen: &Seen) {
    let begun = Instant::now();
    let when = |what: &str| format!("{}: {what} after {:?}", jiff::Timestamp::now(), begun.elapsed());
    let connect = || async {
        let refused = |error| seen.refused.lock().unwrap().push(when(&format!("{error}")));
        TcpStream::connect(to).await.map_err(refused).ok()
    };
    let mut stream = wait::until("somebody takes a connection", Duration::from_secs(60), connect).await;
    let mut text = Vec::new();
    let exchange = async {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n").await?;
        stream.read_to_end(&mut text).await
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), exchange).await;
    let text = String::from_utf8_lossy(&text);
    match &ended {
        Ok(_) if text.starts_with("HTTP/1.1 200") || text.starts_with("HTTP/1.0 200") => {
            // What broke off in the middle is nobody's to mend.
            let whole = text.trim_end().ends_with("one");
            match whole {
                true => drop(seen.answered.fetch_add(1, Ordering::Relaxed)),
                false => seen.dropped.lock().unwrap().push(when("broken off")),
            }
        }
        Ok(ended) if text.is_empty() => seen.dropped.lock().unwrap().push(when(&format!("{ended:?}"))),
        other => seen.failed.lock().unwrap().push(format!("{other:?} {text}")),
    }
}

/// So many callers who call on.
fn callers(up: &Up, to: SocketAddr, count: usize) -> (Arc<Seen>, std::thread::JoinHandle<()>) {
    let seen = Arc::new(Seen::default());
    let callers = seen.clone();
    let calling = up.inside(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            // A task each: of many within one, a runtime that is kept busy may not look at some for a long time.
            let each = (0..count).map(|_| {
                let callers = callers.clone();
                tokio::spawn(async move {
                    while !callers.stop.load(Ordering::Relaxed) {
                        call(to, &callers).await;
                    }
                })
            });
            futures::future::try_join_all(each.collect::<Vec<_>>()).await.expect("callers do not panic");
        });
    });
    (seen, calling)
}

fn pods(up: &Up) -> BTreeSet<String> {
    get(up, "pods", "{.items[*].metadata.name}").split(' ').map(str::to_owned).collect()
}

/// All pods of the Deployment are replaced, and one more is deleted.
fn roll(up: &Up) {
    let before = pods(up);
    up.minik8s(&["rollout", "restart", "deploy/one"]).ok();
    up.minik8s(&["rollout", "status", "deploy/one", "--timeout", "180"]).ok();
    let rolled = || pods(up).iter().filter(|name| name.starts_with("one")).all(|name| !before.contains(name));
    until("the pods from before are gone", 60, rolled);
    let one = pods(up).into_iter().find(|name| name.starts_with("one")).unwrap();
    up.minik8s(&["delete", "pod", &one]).ok();
}

/// The web server of a pod is killed, without a word to anybody.
fn kill_one(up: &Up) {
    let containers = |name: &str| get(up, &format!("pod/{name}"), "{.status.containerStatuses[0].containerID}");
    let mut name = None;
    until("a pod runs", 60, || {
        name = pods(up).into_iter().find(|name| name.starts_with("one") && !containers(name).is_empty());
        name.is_some()
    });
    let name = name.unwrap();
    let restarts =
        || get(up, &format!("pod/{name}"), "{.status.containerStatuses[0].restartCount}").parse().unwrap_or(0);
    let before: u32 = restarts();
    let id = containers(&name).rsplit('/').next().unwrap().to_owned();
    assert!(id.len() >= 32, "{id:?} is no container");
    let cgroup = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let all = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let found: Vec<String> = all.filter(|pid| pid.parse::<u32>().is_ok() && cgroup(pid).contains(&id)).collect();
    assert!(!found.is_empty(), "no process of container {id}");
    for pid in found {
        let _ = std::process::Command::new("kill").args(["-KILL", &pid]).status();
    }
    until("the container is started again", 60, || restarts() > before);
}

/// A base image with Python.
const PYTHON: &str = "localhost/python:1";

/// A web server at which thousands may wait.
const WAITING_ROOM: &str = "import asyncio
async def answer(r, w):
  try:
    await r.readuntil(b'\\r\\n\\r\\n')
    w.write(b'HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\nConnection: close\\r\\n\\r\\none')
    await w.drain()
  except Exception: pass
  w.close()
async def main():
  await (await asyncio.start_server(answer, '0.0.0.0', 8080, backlog=4096)).serve_forever()
asyncio.run(main())";

/// The Deployment `one` and its Service. A server that cannot hold so many who wait (busybox's holds nine) would lose
/// some of them by itself, or keep them waiting for as long as the kernel takes to try again.
fn waiting_room(up: &Up) -> Option<String> {
    let archive = up.python_base()?;
    up.minik8s(&["image", "import", &archive.display().to_string(), "--name", PYTHON]).ok();
    let pause = ["python3", "-c", "import time; time.sleep(6)"];
    let served = Served { image: PYTHON, command: &["python3", "-c", WAITING_ROOM], pause: &pause, grace: 12 };
    Some(served.text("one", 3))
}

/// A thousand callers are enough for a machine at a time.
static CALLING: Mutex<()> = Mutex::new(());

#[test]
fn a_thousand_callers_notice_nothing_of_rollouts_lost_pods_and_restarts() {
    const CALLERS: usize = 1000;
    let _alone = CALLING.lock();
    let Some(mut up) = Up::start(Kind::Real) else { return };
    let Some(one) = waiting_room(&up) else { return };
    up.apply("web.yaml", &(one + &web("two", 1)));
    up.apply("routes.yaml", ROUTES);
    available(&up, "one", 3);
    until("the Ingress answers", 60, || ask(&up, 80, "shop.example", "/", "").0 == 200);
    let (seen, calling) = callers(&up, ([127, 0, 0, 1], 80).into(), CALLERS);
    seen.hear(CALLERS);
    roll(&up);
    seen.hear(CALLERS);
    seen.none_lost();
    kill_one(&up);
    seen.hear(CALLERS);
    available(&up, "one", 3);
    seen.none_failed();
    assert_eq!(seen.lost().0, Vec::<String>::new(), "the gateway refused somebody");
    let before = seen.lost();
    up.again();
    seen.hear(CALLERS);
    seen.none_failed();
    assert_eq!(seen.lost(), before, "of a restart in place");
    assert!(up.stop(), "the process ended badly");
    up.run();
    seen.hear(CALLERS);
    seen.none_failed();
    // Who had no answer yet loses the connection; nobody gets a wrong one.
    up.kill();
    up.run();
    seen.hear(CALLERS);
    seen.stop.store(true, Ordering::Relaxed);
    calling.join().unwrap();
    seen.none_failed();
}

#[test]
fn a_thousand_callers_of_a_service_notice_nothing_of_rollouts() {
    const CALLERS: usize = 1000;
    let _alone = CALLING.lock();
    let Some(up) = Up::start(Kind::Real) else { return };
    let Some(one) = waiting_room(&up) else { return };
    up.apply("web.yaml", &one);
    available(&up, "one", 3);
    let address: std::net::IpAddr = get(&up, "svc/one", "{.spec.clusterIP}").parse().unwrap();
    let (seen, calling) = callers(&up, (address, 80).into(), CALLERS);
    seen.hear(CALLERS);
    roll(&up);
    seen.hear(CALLERS);
    seen.none_failed();
    seen.none_lost();
    // Those who were connected to it lose their connection; whoever calls again is answered by another.
    kill_one(&up);
    seen.hear(CALLERS);
    seen.stop.store(true, Ordering::Relaxed);
    calling.join().unwrap();
    // Who was connected and never accepted is told when the pod is gone.
    seen.none_failed();
}
