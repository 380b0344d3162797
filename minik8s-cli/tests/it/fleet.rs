//! A cluster of machines: hosts joined by a switch, a server on the first and an agent on each other, with real
//! containers; and a caller that never stops asking.

use super::harness::{IMAGE, until};
use minik8s_core::testkit::hosts::{Hosts, NEEDS, Process};
use minik8s_core::testkit::need::{self, Need};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MINIK8S: &str = env!("CARGO_BIN_EXE_minik8s");

/// A process of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The whole control plane and the first node.
    Server,
    /// A second control plane and the second node.
    Second,
    ApiServer,
    Scheduler,
    Controllers,
    /// The agent of a host.
    Agent(usize),
}

impl Part {
    fn host(self) -> usize {
        match self {
            Part::Agent(host) => host,
            Part::Second => 1,
            _ => 0,
        }
    }

    /// How its output begins when it works.
    fn word(self) -> &'static str {
        match self {
            Part::Server | Part::Second | Part::ApiServer => "ready https",
            Part::Scheduler | Part::Controllers => "running with",
            Part::Agent(_) => "joined https",
        }
    }
}

/// The cluster. Fields go in this order: processes before what they run on.
pub(crate) struct Fleet {
    running: BTreeMap<Part, Process>,
    /// What the cluster needs besides.
    _beside: Vec<Process>,
    pub(crate) hosts: Hosts,
    /// The control plane at whose machine the user sits.
    pub(crate) desk: Part,
    /// All that should run, in the order in which it starts.
    parts: Vec<Part>,
    token: String,
    /// What the control plane is told besides.
    arguments: Vec<String>,
    /// What the nodes are told besides.
    node_arguments: Vec<String>,
    _images: TempDir,
}

impl Fleet {
    /// A cluster on these hosts whose nodes are all ready, the server a single process; `None` where the machine cannot.
    pub(crate) fn start(hosts: impl FnOnce() -> Hosts, arguments: &[&str], nodes: &[&str]) -> Option<Self> {
        Self::able().then(|| Self::of(hosts(), vec![Part::Server], Vec::new(), arguments, nodes))
    }

    /// The same, where the last machine has not joined yet: [`run`](Self::run) its agent.
    pub(crate) fn start_but_one(hosts: impl FnOnce() -> Hosts) -> Option<Self> {
        Self::able().then(|| {
            let hosts = hosts();
            let now = (1..hosts.len() - 1).map(Part::Agent);
            let parts = std::iter::once(Part::Server).chain(now).collect();
            Self::with(hosts, parts, Vec::new(), &[], &[])
        })
    }

    /// Three machines, two of them with a control plane and a node, on an etcd that the third one runs beside its node.
    pub(crate) fn start_with_two_control_planes(arguments: &[&str], nodes: &[&str]) -> Option<Self> {
        if !Self::able() || !need::met(&[Need::Etcd]) {
            return None;
        }
        let hosts = Hosts::shared(3);
        let url = format!("http://{}:2379", hosts[2].address());
        let mut command = hosts[2].command("etcd");
        command.arg("--data-dir").arg(hosts[2].data().join("etcd"));
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        let etcd = hosts[2].spawn("etcd", command);
        let (network, to) = (hosts[0].network(), SocketAddr::new(hosts[2].address().into(), 2379));
        let answers = move || {
            network.enter();
            TcpStream::connect(to).is_ok()
        };
        until("etcd answers", 60, || std::thread::scope(|s| s.spawn(&answers).join().unwrap()));
        let arguments = [&["--store", "etcd", "--etcd-endpoints", &url], arguments].concat();
        Some(Self::of(hosts, vec![Part::Server, Part::Second], vec![etcd], &arguments, nodes))
    }

    /// The same, each component of the control plane a process of its own.
    pub(crate) fn start_in_pieces(hosts: impl FnOnce() -> Hosts, arguments: &[&str]) -> Option<Self> {
        let parts = vec![Part::ApiServer, Part::Scheduler, Part::Controllers, Part::Agent(0)];
        Self::able().then(|| Self::of(hosts(), parts, Vec::new(), arguments, &[]))
    }

    fn able() -> bool {
        need::met(NEEDS) && need::met(&[Need::Program("containerd"), Need::Program("runc")])
    }

    /// With an agent on every machine on which nothing else is.
    fn of(hosts: Hosts, parts: Vec<Part>, beside: Vec<Process>, arguments: &[&str], nodes: &[&str]) -> Self {
        let taken: Vec<usize> = parts.iter().map(|part| part.host()).collect();
        let others = (0..hosts.len()).filter(|host| !taken.contains(host)).map(Part::Agent);
        let parts = parts.into_iter().chain(others).collect();
        Self::with(hosts, parts, beside, arguments, nodes)
    }

    fn with(hosts: Hosts, parts: Vec<Part>, beside: Vec<Process>, arguments: &[&str], nodes: &[&str]) -> Self {
        let images = tempfile::Builder::new().prefix("mk8s-it").tempdir().unwrap();
        let archive = minik8s_runtime::testing::busybox_image(images.path()).unwrap().display().to_string();
        let words = |all: &[&str]| all.iter().map(ToString::to_string).collect();
        let (arguments, node_arguments, token) = (words(arguments), words(nodes), String::new());
        let (running, desk) = (BTreeMap::new(), Part::Server);
        let mut fleet =
            Self { running, _beside: beside, hosts, desk, parts, token, arguments, node_arguments, _images: images };
        std::thread::scope(|scope| {
            let nodes = fleet.parts.iter().filter(|part| matches!(part, Part::Server | Part::Second | Part::Agent(_)));
            for part in nodes {
                let (fleet, archive) = (&fleet, &archive);
                scope.spawn(move || {
                    let mut command = fleet.command(*part, MINIK8S);
                    let done = command.args(["image", "import", archive, "--name", IMAGE]).output().unwrap();
                    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
                });
            }
        });
        for part in fleet.parts.clone() {
            if let (Part::Agent(_), true) = (part, fleet.token.is_empty()) {
                fleet.token = fleet.minik8s(&["token", "create"]).trim().to_owned();
            }
            fleet.run(part);
        }
        fleet.ready();
        fleet
    }

    /// All parts, in the order in which they start.
    pub(crate) fn parts(&self) -> Vec<Part> {
        self.parts.clone()
    }

    /// Waits until every node is ready.
    pub(crate) fn ready(&self) {
        let hosts: BTreeSet<usize> = self.parts.iter().map(|part| part.host()).collect();
        hosts.into_iter().for_each(|host| self.until_node(host, "Ready"));
    }

    /// Waits until the node of a host shows this status.
    pub(crate) fn until_node(&self, host: usize, status: &str) {
        until(&format!("node {} is {status}", self.hosts[host].name()), 90, || self.node(host) == status);
    }

    fn node(&self, host: usize) -> String {
        let line = self.try_minik8s(&["get", "node", &self.hosts[host].name(), "--no-headers"]).unwrap_or_default();
        line.split_whitespace().nth(1).unwrap_or_default().to_owned()
    }

    fn data(&self, part: Part) -> PathBuf {
        let directory = if let Part::Agent(_) = part { "agent" } else { "server" };
        self.hosts[part.host()].data().join(directory)
    }

    fn command(&self, part: Part, program: &str) -> Command {
        let mut command = self.hosts[part.host()].command(program);
        command.env("MINIK8S_DATA_DIR", self.data(part)).env("HOME", self.hosts[part.host()].data());
        command.env("KUBECONFIG", self.data(self.desk).join("admin.kubeconfig")).env_remove("MINIK8S_TOKEN");
        command
    }

    fn program(&self, part: Part) -> Command {
        let (name, server) = (self.hosts[part.host()].name(), self.data(Part::Server));
        let url = format!("https://{}:6443", self.hosts[0].address());
        let mut command = match part {
            Part::Server | Part::Second => self.command(part, MINIK8S),
            Part::ApiServer => self.command(part, env!("CARGO_BIN_EXE_minik8s-apiserver")),
            Part::Scheduler => self.command(part, env!("CARGO_BIN_EXE_minik8s-scheduler")),
            Part::Controllers => self.command(part, env!("CARGO_BIN_EXE_minik8s-controller-manager")),
            Part::Agent(_) => self.command(part, env!("CARGO_BIN_EXE_minik8s-agent")),
        };
        match part {
            Part::Server | Part::Second => {
                command.args(["server", "--node-name", &name]).args(&self.arguments).args(&self.node_arguments)
            }
            Part::ApiServer => command.args(&self.arguments),
            Part::Scheduler => command.arg("--kubeconfig").arg(server.join("scheduler.kubeconfig")),
            Part::Controllers => command
                .arg("--kubeconfig")
                .arg(server.join("controller-manager.kubeconfig"))
                .arg("--pki")
                .arg(server.join("pki")),
            Part::Agent(_) => command
                .args(["--server", &url, "--node-name", &name])
                .env("MINIK8S_TOKEN", &self.token)
                .args(&self.node_arguments),
        };
        command
    }

    /// Starts a part, again after it was killed, and waits until it works.
    pub(crate) fn run(&mut self, part: Part) {
        let process = self.hosts[part.host()].spawn(&format!("{part:?}"), self.program(part));
        let said = |process: &Process| process.output().matches(part.word()).count();
        let before = said(&process);
        until(&format!("{part:?} works"), 60, || said(&process) > before);
        self.running.insert(part, process);
    }

    /// What a part said so far.
    pub(crate) fn log(&self, part: Part) -> String {
        self.running.get(&part).map(Process::output).unwrap_or_default()
    }

    /// SIGKILL; containers live on.
    pub(crate) fn kill(&mut self, part: Part) {
        if let Some(mut process) = self.running.remove(&part) {
            process.kill();
        }
    }

    /// Pulls the plug of a host.
    pub(crate) fn crash(&mut self, host: usize) {
        self.hosts.crash(host);
        self.running.retain(|part, _| part.host() != host);
    }

    /// Turns it on again, with all that ran there.
    pub(crate) fn boot(&mut self, host: usize) {
        self.hosts.boot(host);
        for part in self.parts().into_iter().filter(|part| part.host() == host) {
            self.run(part);
        }
    }

    /// A command of a user who sits at the server's machine.
    pub(crate) fn minik8s(&self, args: &[&str]) -> String {
        let output = self.try_minik8s(args);
        output.unwrap_or_else(|error| panic!("{args:?}: {error}\nthe server's log:\n{}", self.log(self.desk)))
    }

    /// The same, where it may fail.
    pub(crate) fn try_minik8s(&self, args: &[&str]) -> Result<String, String> {
        self.try_minik8s_on(self.desk, args)
    }

    /// The same, at the machine of a part and with its data.
    pub(crate) fn try_minik8s_on(&self, part: Part, args: &[&str]) -> Result<String, String> {
        let output = self.command(part, MINIK8S).args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    pub(crate) fn get(&self, what: &[&str], path: &str) -> String {
        let template = format!("jsonpath={path}");
        self.try_minik8s(&[&["get"], what, &["-o", &template]].concat()).unwrap_or_default()
    }

    pub(crate) fn apply(&self, name: &str, text: &str) {
        let path = self.hosts[self.desk.host()].data().join(name);
        std::fs::write(&path, text).unwrap();
        self.minik8s(&["apply", "-f", &path.display().to_string()]);
    }

    /// A web server on each host, called by the host's name, behind the Service `web` on port 80; waits for all.
    pub(crate) fn web_on_each(&self) {
        let pods = self.hosts.iter().map(|host| web(&host.name(), &host.name()));
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: NodePort, selector: {app: web}, \
            ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}\n";
        self.apply("web.yaml", &(pods.collect::<String>() + service));
        let names: Vec<String> = self.hosts.iter().map(|host| host.name()).collect();
        names.iter().for_each(|name| self.until_ready(name));
    }

    pub(crate) fn until_ready(&self, pod: &str) {
        let path = "{.status.conditions[?(@.type=='Ready')].status}";
        until(&format!("pod {pod} is ready"), 90, || self.get(&["pod", pod], path) == "True");
    }

    pub(crate) fn cluster_ip(&self, service: &str) -> Ipv4Addr {
        self.get(&["svc", service], "{.spec.clusterIP}").parse().unwrap()
    }

    /// The service rules of a host, as the kernel has them.
    pub(crate) fn rules(&self, host: usize) -> String {
        self.hosts[host].run("nft -s list table ip minik8s")
    }

    /// What a host, not a pod, is answered.
    pub(crate) fn fetch(&self, host: usize, address: Ipv4Addr, port: u16) -> Result<String, String> {
        self.fetch_path(host, address, port, "/")
    }

    /// The same, at a path.
    pub(crate) fn fetch_path(&self, host: usize, address: Ipv4Addr, port: u16, path: &str) -> Result<String, String> {
        let (network, path) = (self.hosts[host].network(), path.to_owned());
        let work = move || {
            network.enter();
            get_page(SocketAddr::new(address.into(), port), &path, Duration::from_secs(3))
        };
        std::thread::spawn(work).join().unwrap()
    }

    /// What a pod is answered.
    pub(crate) fn fetch_from_pod(&self, pod: &str, address: Ipv4Addr, port: u16) -> String {
        let script = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {address} {port} | tail -n 1");
        let answer = self.try_minik8s(&["exec", pod, "--", "sh", "-c", &script]);
        answer.unwrap_or_else(|error| error).trim().to_owned()
    }

    /// The images that a part's runtime has.
    pub(crate) fn images(&self, part: Part) -> String {
        let output = self.command(part, MINIK8S).args(["image", "ls"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Begins to call a service from a host, and goes on until [`Caller::stop`].
    pub(crate) fn call(&self, host: usize, address: Ipv4Addr, port: u16) -> Caller {
        Caller::start(self.hosts[host].network(), SocketAddr::new(address.into(), port))
    }
}

/// A pod that says its name at port 8080.
pub(crate) fn web(name: &str, node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: web}}}}\nspec:\n  nodeName: {node}\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: main, image: '{IMAGE}', command: [sh, -c, 'hostname > \
         /tmp/index.html; exec httpd -f -p 8080 -h /tmp']}}\n---\n"
    )
}

/// No step of it takes longer than `limit`.
fn get_page(to: SocketAddr, path: &str, limit: Duration) -> Result<String, String> {
    let page = || {
        let mut stream = TcpStream::connect_timeout(&to, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        std::io::Result::Ok(text)
    };
    let text = page().map_err(|error| error.to_string())?;
    if !text.starts_with("HTTP/1.") || !text.contains(" 200 ") {
        return Err(format!("an answer of {} bytes: {text:?}", text.len()));
    }
    Ok(text.lines().last().unwrap_or_default().trim().to_owned())
}

/// Somebody who calls all the time, a new connection each time.
pub(crate) struct Caller {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

/// What became of the calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) answered: usize,
    /// When, counted from the first call, and why.
    pub(crate) failed: Vec<(Duration, String)>,
}

impl Caller {
    fn start(network: minik8s_core::testkit::inside::NetNamespace, to: SocketAddr) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let (ended, told) = (stop.clone(), seen.clone());
        let thread = std::thread::spawn(move || {
            network.enter();
            let began = Instant::now();
            while !ended.load(Ordering::SeqCst) {
                // Longer than a busy machine, or one lost packet, may take.
                let answer = get_page(to, "/", Duration::from_secs(10));
                let mut seen = told.lock().unwrap();
                match answer {
                    Ok(_) => seen.answered += 1,
                    Err(error) => seen.failed.push((began.elapsed(), error)),
                }
            }
        });
        Self { stop, seen, thread: Some(thread) }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    /// Waits for this many more answers, so that what follows happens while calls go through.
    pub(crate) fn hear(&self, more: usize) {
        let before = self.seen().answered;
        until("calls are answered", 60, || self.seen().answered >= before + more);
    }

    /// Ends, and says what became of all calls.
    pub(crate) fn stop(mut self) -> Seen {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        self.seen()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}
