//! A cluster of machines: hosts joined by a switch, a server on the first and an agent on each other, with real
//! containers; and a caller that never stops asking.

use super::harness::{IMAGE, until};
use minik8s_core::testkit::hosts::{Hosts, NEEDS, Process};
use minik8s_core::testkit::need::{self, Need};
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

/// The cluster. Fields go in this order: processes before what they run on.
pub(crate) struct Fleet {
    /// Server first; `None` for one that was killed.
    parts: Vec<Option<Process>>,
    pub(crate) hosts: Hosts,
    token: String,
    /// What the server and the agents are told besides.
    arguments: Vec<String>,
    _images: TempDir,
}

impl Fleet {
    /// A cluster on these hosts whose nodes are all ready; `None` where the machine cannot.
    pub(crate) fn start(hosts: impl FnOnce() -> Hosts, arguments: &[&str]) -> Option<Self> {
        let containers = [Need::Program("containerd"), Need::Program("runc")];
        if !need::met(NEEDS) || !need::met(&containers) {
            return None;
        }
        let images = tempfile::Builder::new().prefix("mk8s-it").tempdir().unwrap();
        let archive = minik8s_runtime::testing::busybox_image(images.path()).unwrap();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let hosts = hosts();
        let parts = (0..hosts.len()).map(|_| None).collect();
        let mut fleet = Self { parts, hosts, token: String::new(), arguments, _images: images };
        let archive = archive.display().to_string();
        std::thread::scope(|scope| {
            for host in 0..fleet.hosts.len() {
                let (fleet, archive) = (&fleet, &archive);
                scope.spawn(move || fleet.on(host, &["image", "import", archive, "--name", IMAGE]));
            }
        });
        fleet.run(0);
        fleet.token = fleet.minik8s(&["token", "create"]).trim().to_owned();
        (1..fleet.hosts.len()).for_each(|host| fleet.run(host));
        fleet.ready();
        Some(fleet)
    }

    /// Waits until every node is ready.
    pub(crate) fn ready(&self) {
        (0..self.hosts.len()).for_each(|host| self.until_node(host, "Ready"));
    }

    /// Waits until the node of a host shows this status.
    pub(crate) fn until_node(&self, host: usize, status: &str) {
        until(&format!("node {} is {status}", self.hosts[host].name()), 90, || self.node(host) == status);
    }

    fn node(&self, host: usize) -> String {
        let line = self.try_minik8s(&["get", "node", &self.hosts[host].name(), "--no-headers"]).unwrap_or_default();
        line.split_whitespace().nth(1).unwrap_or_default().to_owned()
    }

    fn data(&self, host: usize) -> PathBuf {
        self.hosts[host].data().join("minik8s")
    }

    fn command(&self, host: usize) -> Command {
        let mut command = self.hosts[host].command(MINIK8S);
        command.env("MINIK8S_DATA_DIR", self.data(host)).env("HOME", self.hosts[host].data());
        command.env("KUBECONFIG", self.data(0).join("admin.kubeconfig")).env_remove("MINIK8S_TOKEN");
        command
    }

    /// Starts the server or an agent, again after it was killed.
    pub(crate) fn run(&mut self, host: usize) {
        let mut command = self.command(host);
        let name = self.hosts[host].name();
        if host == 0 {
            command.args(["server", "--node-name", &name]).args(&self.arguments);
        } else {
            let server = format!("https://{}:6443", self.hosts[0].address());
            command.args(["agent", "--server", &server, "--node-name", &name]).env("MINIK8S_TOKEN", &self.token);
        }
        let process = self.hosts[host].spawn(if host == 0 { "server" } else { "agent" }, command);
        let before = process.output().matches(if host == 0 { "ready https" } else { "joined https" }).count();
        self.parts[host] = Some(process);
        if host == 0 {
            // Others need it; an agent comes when it can.
            until("the server is ready", 60, || self.log(0).matches("ready https").count() > before);
        }
    }

    /// What the process of a host said so far.
    pub(crate) fn log(&self, host: usize) -> String {
        self.parts[host].as_ref().map(Process::output).unwrap_or_default()
    }

    /// SIGKILL for the server or an agent; containers live on.
    pub(crate) fn kill(&mut self, host: usize) {
        if let Some(mut process) = self.parts[host].take() {
            process.kill();
        }
    }

    /// Pulls the plug of a host.
    pub(crate) fn crash(&mut self, host: usize) {
        self.hosts.crash(host);
        self.parts[host] = None;
    }

    /// Turns it on again, agent and all.
    pub(crate) fn boot(&mut self, host: usize) {
        self.hosts.boot(host);
        self.run(host);
    }

    fn on(&self, host: usize, args: &[&str]) -> String {
        let output = self.command(host).args(args).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}\nthe server's log:\n{}", self.log(0));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A command of a user who sits at the server's machine.
    pub(crate) fn minik8s(&self, args: &[&str]) -> String {
        self.on(0, args)
    }

    /// The same, where it may fail.
    pub(crate) fn try_minik8s(&self, args: &[&str]) -> Result<String, String> {
        let output = self.command(0).args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    pub(crate) fn get(&self, what: &[&str], path: &str) -> String {
        let template = format!("jsonpath={path}");
        self.try_minik8s(&[&["get"], what, &["-o", &template]].concat()).unwrap_or_default()
    }

    pub(crate) fn apply(&self, name: &str, text: &str) {
        let path = self.hosts[0].data().join(name);
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
        let network = self.hosts[host].network();
        let work = move || {
            network.enter();
            get_page(SocketAddr::new(address.into(), port))
        };
        std::thread::spawn(work).join().unwrap()
    }

    /// What a pod is answered.
    pub(crate) fn fetch_from_pod(&self, pod: &str, address: Ipv4Addr, port: u16) -> String {
        let script = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {address} {port} | tail -n 1");
        let answer = self.try_minik8s(&["exec", pod, "--", "sh", "-c", &script]);
        answer.unwrap_or_else(|error| error).trim().to_owned()
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

fn get_page(to: SocketAddr) -> Result<String, String> {
    let limit = Duration::from_secs(3);
    let page = || {
        let mut stream = TcpStream::connect_timeout(&to, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
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
                let answer = get_page(to);
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
