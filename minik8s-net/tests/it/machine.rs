//! A machine for one test: a namespace as the host with one outer link, another as a neighbour, more for pods.

use async_trait::async_trait;
use hickory_proto::rr::RecordType;
use minik8s_core::network::{NetworkPlugin, Protocol, SharedNetwork};
use minik8s_core::testkit::inside::{NetNamespace, on_thread};
use minik8s_core::testkit::network::{Answer, Bed, Place, Server};
use minik8s_net::{BridgeConfig, BridgeNetwork, OverlayConfig};
use nix::sched::{CloneFlags, unshare};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

/// Runs `test` on a thread that is alone in a fresh network namespace, which is the host to everything it starts.
pub(crate) fn on_machine<F, Fut>(test: F)
where
    F: FnOnce(Machine) -> Fut + Send + 'static,
    Fut: Future<Output = ()>,
{
    let body = move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test(Machine::new().await).await });
    };
    if let Err(panic) = std::thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) struct Machine {
    host: NetNamespace,
    outside: NetNamespace,
    dir: tempfile::TempDir,
    places: Mutex<HashMap<PathBuf, NetNamespace>>,
    network: Mutex<Option<Arc<BridgeNetwork>>>,
    before: Mutex<BTreeSet<String>>,
}

impl Machine {
    async fn new() -> Self {
        let host = NetNamespace::current();
        let outside = fresh_namespace().await;
        ip("link set lo up");
        let neighbour = format!("/proc/{}/fd/{}", std::process::id(), outside.file().as_raw_fd());
        ip(&format!("link add eth0 type veth peer name eth0 netns {neighbour}"));
        ip(&format!("addr add {NODE}/24 dev eth0"));
        ip("link set eth0 up");
        outside
            .run(|| {
                ip("link set lo up");
                ip(&format!("addr add {NEIGHBOUR}/24 dev eth0"));
                ip("link set eth0 up");
                ip(&format!("route add 203.0.113.0/24 via {NODE}"));
            })
            .await;
        ip(&format!("route add default via {NEIGHBOUR}"));
        let dir = tempfile::tempdir().unwrap();
        let machine =
            Self { host, outside, dir, places: Mutex::default(), network: Mutex::default(), before: Mutex::default() };
        *machine.before.lock() = machine.inventory();
        machine.open(machine.config());
        machine
    }

    pub(crate) fn config(&self) -> BridgeConfig {
        BridgeConfig {
            node: "here".to_owned(),
            pod_cidr: "10.77.0.0/24".parse().unwrap(),
            cluster_cidr: "10.77.0.0/16".parse().unwrap(),
            service_cidr: "10.78.0.0/16".parse().unwrap(),
            upstreams: Some(Vec::new()),
            overlay: Some(OverlayConfig::new(NODE)),
            ..BridgeConfig::new(self.dir.path().join("state"))
        }
    }

    pub(crate) fn open(&self, config: BridgeConfig) -> Arc<BridgeNetwork> {
        let mut network = self.network.lock();
        network.take();
        let opened = Arc::new(BridgeNetwork::new(config).unwrap());
        *network = Some(opened.clone());
        opened
    }

    pub(crate) fn bridge(&self) -> Arc<BridgeNetwork> {
        self.network.lock().clone().unwrap()
    }

    pub(crate) fn namespace(&self, place: &Place) -> NetNamespace {
        match place {
            Place::Host => self.host.again(),
            Place::Outside => self.outside.again(),
            Place::Pod(path) => NetNamespace::open(path),
        }
    }

    /// Everything that a network could leave behind.
    fn inventory(&self) -> BTreeSet<String> {
        let mut all: BTreeSet<String> = BTreeSet::new();
        for command in ["ip -o link", "ip -o -4 addr", "ip -4 route show table all", "ip -4 rule", "nft list ruleset"] {
            let mut part = String::new();
            for line in output(command).lines() {
                if line.starts_with("table ") {
                    line.clone_into(&mut part);
                }
                // Flags of a link follow its peer; its number and name are what counts.
                let line = match command {
                    "ip -o link" => line.split('<').next().unwrap_or_default().to_owned(),
                    _ => line.replace(" linkdown", ""),
                };
                all.insert(format!("{command}: {part} {line}"));
            }
        }
        for name in ["ip_forward", "conf/all/route_localnet", "conf/all/rp_filter", "conf/eth0/route_localnet"] {
            let value = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
            all.insert(format!("sysctl {name} = {}", value.trim()));
        }
        for entry in walk(&self.dir.path().join("state")) {
            all.insert(format!("file {}", entry.display()));
        }
        all
    }
}

#[async_trait]
impl Bed for Machine {
    fn network(&self) -> SharedNetwork {
        self.bridge()
    }

    async fn reopen(&self) -> SharedNetwork {
        let config = self.bridge().config().clone();
        self.open(config)
    }

    async fn small(&self) -> SharedNetwork {
        self.bridge().teardown().await.unwrap();
        let config = BridgeConfig {
            pod_cidr: "10.77.0.0/29".parse().unwrap(),
            state_dir: self.dir.path().join("small"),
            ..self.config()
        };
        Arc::new(BridgeNetwork::new(config).unwrap())
    }

    async fn place(&self) -> PathBuf {
        let namespace = fresh_namespace().await;
        let path = self.dir.path().join(format!("pod-{}", namespace.file().as_raw_fd()));
        std::os::unix::fs::symlink(format!("/proc/self/fd/{}", namespace.file().as_raw_fd()), &path).unwrap();
        self.places.lock().insert(path.clone(), namespace);
        path
    }

    async fn remove_place(&self, place: &Path) {
        std::fs::remove_file(place).unwrap();
        self.places.lock().remove(place);
    }

    async fn serve(&self, at: &Place, protocol: Protocol, port: u16, words: &str) -> Server {
        crate::traffic::serve(self.namespace(at), protocol, port, words).await
    }

    async fn ask(&self, from: &Place, protocol: Protocol, to: SocketAddr, port: Option<u16>) -> Answer {
        crate::traffic::ask(self.namespace(from), protocol, to, port).await
    }

    async fn resolve(&self, from: &Place, name: &str) -> Vec<IpAddr> {
        let server = SocketAddr::new(self.bridge().dns().servers[0], 53);
        let answer = crate::names::ask_udp(self.namespace(from), server, name, RecordType::A).await;
        answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect()
    }

    fn node_address(&self) -> Ipv4Addr {
        NODE
    }

    async fn flush_rules(&self) {
        nft("delete table ip minik8s");
    }

    async fn remove_links(&self) {
        ip("link del mk8s0");
    }

    async fn add_foreign(&self) {
        let before = self.inventory();
        ip("link add foreign0 type bridge");
        ip("addr add 198.51.100.1/24 dev foreign0");
        ip("link set foreign0 up");
        nft(
            "add table ip theirs { chain c { type nat hook prerouting priority -100; tcp dport 1 dnat to 192.0.2.77; }; }",
        );
        let theirs: Vec<String> = self.inventory().difference(&before).cloned().collect();
        self.before.lock().extend(theirs);
    }

    async fn leftovers(&self) -> Vec<String> {
        // The kernel takes namespaces and their links away in its own time.
        let end = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let (before, now) = (self.before.lock().clone(), self.inventory());
            if before == now || tokio::time::Instant::now() > end {
                return before.symmetric_difference(&now).cloned().collect();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|e| e.path()).flat_map(|p| if p.is_dir() { walk(&p) } else { vec![p] }).collect()
}

/// A namespace that lives as long as the file.
pub(crate) async fn fresh_namespace() -> NetNamespace {
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        NetNamespace::current()
    })
    .await
}

pub(crate) fn ip(arguments: &str) {
    output(&format!("ip {arguments}"));
}

pub(crate) fn nft(script: &str) {
    let status = Command::new("nft").arg(script).status().unwrap();
    assert!(status.success(), "nft {script}");
}

/// Runs a program in the calling thread's namespace.
pub(crate) fn output(command: &str) -> String {
    let mut words = command.split_whitespace();
    let out = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}
