//! The components as processes of their own, on fakes: together they are a cluster, and each may be killed at any time.

use super::harness::until;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// One of them. Killed when it is dropped.
struct Running {
    child: Child,
    said: String,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert!(!said.is_empty(), "{command:?} ended without a word");
        Self { child, said }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cluster in pieces.
struct Pieces {
    dir: TempDir,
    port: String,
}

impl Pieces {
    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn apiserver(&self) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_minik8s-apiserver"));
        command.args(["--listen", &format!("127.0.0.1:{}", self.port), "--data-dir"]).arg(self.data());
        Running::start(command)
    }

    fn scheduler(&self) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_minik8s-scheduler"));
        command.arg("--kubeconfig").arg(self.data().join("scheduler.kubeconfig"));
        Running::start(command)
    }

    fn controllers(&self) -> Running {
        self.controllers_with(&[])
    }

    fn controllers_with(&self, more: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_minik8s-controller-manager"));
        command.arg("--kubeconfig").arg(self.data().join("controller-manager.kubeconfig"));
        command.arg("--pki").arg(self.data().join("pki")).args(more);
        Running::start(command)
    }

    fn agent(&self, node: &str, token: Option<&str>) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_minik8s-agent"));
        command.args(["--server", &format!("https://127.0.0.1:{}", self.port), "--node-name", node]);
        command.args(["--runtime", "fake", "--network", "noop", "--data-dir"]);
        command.arg(self.dir.path().join(node));
        if let Some(token) = token {
            command.env("MINIK8S_TOKEN", token);
        }
        Running::start(command)
    }

    fn minik8s(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_minik8s"));
        command.args(args).env("KUBECONFIG", self.data().join("admin.kubeconfig")).output().unwrap()
    }

    fn text(&self, args: &[&str]) -> String {
        let output = self.minik8s(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn running(&self, name: &str) -> usize {
        let output = self.minik8s(&["get", "pods", "-l", &format!("app={name}"), "--no-headers"]);
        String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains("Running")).count()
    }
}

fn deploy(pieces: &Pieces, dir: &Path, name: &str) {
    let text = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: 3\n  selector: \
         {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec: {{containers: \
         [{{name: c, image: 'x:1'}}]}}\n"
    );
    let path = dir.join(format!("{name}.yaml"));
    std::fs::write(&path, text).unwrap();
    pieces.text(&["apply", "-f", &path.display().to_string()]);
}

/// A port that is free now, for a server that comes back to it.
fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

#[test]
fn pieces_make_a_cluster_and_each_may_be_killed() {
    let pieces = Pieces { dir: tempfile::Builder::new().prefix("mk8s-it").tempdir().unwrap(), port: free_port() };
    let mut apiserver = pieces.apiserver();
    assert!(apiserver.said.starts_with("ready https://127.0.0.1:"), "{}", apiserver.said);
    let (mut scheduler, mut controllers) = (pieces.scheduler(), pieces.controllers());
    let token = pieces.text(&["token", "create"]);
    let mut agent = pieces.agent("worker", Some(token.trim()));
    deploy(&pieces, pieces.dir.path(), "first");
    until("three pods run", 60, || pieces.running("first") == 3);

    // Each tells what it counts, and Prometheus is led to all of them.
    let raw = |path: &str| pieces.text(&["get", "--raw", path]);
    let discovered = || raw("/minik8s/prometheus/sd");
    until("both loops are discovered", 60, || {
        let found = discovered();
        ["components/kube-scheduler", "components/kube-controller-manager", "nodes/worker"]
            .iter()
            .all(|path| found.contains(&format!("/minik8s/prometheus/{path}")))
    });
    let page = raw("/minik8s/prometheus/components/kube-controller-manager");
    assert!(page.contains("# TYPE controller"), "{page}");
    let all = raw("/minik8s/prometheus/federate");
    assert!(all.contains("component=\"kube-controller-manager\""), "{all}");

    // One after another is killed and comes back; the rest waits for it.
    drop(scheduler);
    scheduler = pieces.scheduler();
    drop(controllers);
    controllers = pieces.controllers();
    drop(agent);
    agent = pieces.agent("worker", None);
    drop(apiserver);
    apiserver = pieces.apiserver();
    deploy(&pieces, pieces.dir.path(), "second");
    until("three more run", 60, || pieces.running("second") == 3);

    // All at once.
    drop((scheduler, controllers, agent, apiserver));
    let _apiserver = pieces.apiserver();
    let _rest = (pieces.scheduler(), pieces.controllers(), pieces.agent("worker", None));
    deploy(&pieces, pieces.dir.path(), "third");
    until("all nine run", 60, || ["first", "second", "third"].iter().all(|name| pieces.running(name) == 3));
}

#[test]
fn those_that_only_wait_to_lead_are_discovered_too() {
    let pieces = Pieces { dir: tempfile::Builder::new().prefix("mk8s-it").tempdir().unwrap(), port: free_port() };
    let _apiserver = pieces.apiserver();
    let [first, second] = [pieces.scheduler(), pieces.scheduler()];
    let _managers = [pieces.controllers(), pieces.controllers()];
    let raw = |path: &str| pieces.text(&["get", "--raw", path]);
    let known = |component: &str| -> Vec<String> {
        let all: serde_json::Value = serde_json::from_str(&raw("/minik8s/prometheus/sd")).unwrap();
        let of = all.as_array().unwrap().iter().map(|target| &target["labels"]).filter(|l| l["component"] == component);
        of.map(|labels| labels["__metrics_path__"].as_str().unwrap().to_owned()).collect()
    };
    for component in ["kube-scheduler", "kube-controller-manager"] {
        until(&format!("two of {component} are discovered"), 120, || known(component).len() == 2);
        let leads = format!("leader_election_master_status{{name=\"{component}\"}} ");
        until(&format!("one {component} of both leads"), 120, || {
            let pages = known(component).iter().map(|path| raw(path)).collect::<Vec<_>>();
            let said = pages.iter().filter_map(|page| page.lines().find_map(|line| line.strip_prefix(&leads)));
            let mut said: Vec<&str> = said.collect();
            said.sort_unstable();
            said == ["0", "1"]
        });
    }
    let page = raw("/minik8s/prometheus/federate");
    for path in known("kube-scheduler").iter().chain(&known("kube-controller-manager")) {
        let instance = format!("instance=\"{}\"", path.rsplit('/').next().unwrap());
        assert!(page.contains(&instance), "{instance} on {page}");
    }
    // Killed, so that it says no last word.
    drop(first);
    until("one is left", 120, || known("kube-scheduler").len() == 1);
    drop(second);
    until("none is left", 120, || known("kube-scheduler").is_empty());
}

#[test]
fn the_scheduler_may_only_schedule() {
    let pieces = Pieces { dir: tempfile::Builder::new().prefix("mk8s-it").tempdir().unwrap(), port: free_port() };
    let _apiserver = pieces.apiserver();
    let kubeconfig = pieces.data().join("scheduler.kubeconfig").display().to_string();
    assert!(pieces.minik8s(&["--kubeconfig", &kubeconfig, "get", "nodes"]).status.success());
    let refused = pieces.minik8s(&["--kubeconfig", &kubeconfig, "get", "secrets", "-A"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("system:kube-scheduler") && told.contains("cannot list resource \"secrets\""), "{told}");
}

#[test]
fn functions_are_built_where_the_registry_is_and_nowhere_else() {
    let pieces = Pieces { dir: tempfile::Builder::new().prefix("mk8s-it").tempdir().unwrap(), port: free_port() };
    let _apiserver = pieces.apiserver();
    let without = pieces.controllers();
    let dir = |name: &str| pieces.dir.path().join(name).display().to_string();
    for (place, file) in [("base", "etc"), ("code", "main.py")] {
        std::fs::create_dir(dir(place)).unwrap();
        std::fs::write(pieces.dir.path().join(place).join(file), "def main(p):\n    return p\n").unwrap();
    }
    pieces.text(&["image", "build", &dir("base"), "-t", "base/python:latest", "-o", &dir("base.tar")]);
    pieces.text(&["function", "base", "python", "-f", &dir("base.tar")]);
    pieces.text(&["function", "create", "f", "-f", &dir("code"), "--no-wait"]);
    let told = |path: &str| pieces.text(&["get", "functionrevisions", "-o", &format!("jsonpath={{.items[0].{path}}}")]);
    until("it is told that nobody builds", 120, || {
        told("status").contains("minik8s-controller-manager --data-dir DIR")
    });
    assert_eq!(told("status.image"), "");
    drop(without);
    let _with = pieces.controllers_with(&["--data-dir", &pieces.data().display().to_string()]);
    until("there is an image", 120, || {
        told("status.image").starts_with("minik8s.internal/functions/default/f@sha256:")
    });
}
