//! `minik8s top`: as tables, and live on a terminal that tmux plays.

use super::harness::{Kind, Up, until};
use minik8s_core::testkit::need::{self, Need};
use std::process::Command;

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: app, image: 'example.org/web:1'}, {name: side, image: 'example.org/side:1'}]}
";

#[test]
fn top_prints_tables() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    up.apply("pod.yaml", POD);
    let top = |args: &[&str]| up.minik8s(&[&["top"], args].concat());
    until("the pod is measured", 60, || top(&["pods"]).out.contains("web"));
    let lines = |args: &[&str]| -> Vec<Vec<String>> {
        let text = top(args).ok();
        text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    assert_eq!(lines(&["pods"]), [["NAME", "CPU(cores)", "MEMORY(bytes)"], ["web", "20m", "8Mi"]]);
    let containers = lines(&["pods", "--containers", "-A", "--no-headers", "--sum"]);
    assert_eq!(containers[0][..3], ["default", "web", "app"]);
    assert_eq!(containers[2], ["20m", "8Mi"]);
    assert!(top(&["pods", "-l", "app=other"]).ok().is_empty());
    assert!(top(&["pods", "nope"]).refused().contains("not found"));
    let nodes = lines(&["nodes"]);
    assert_eq!((nodes[0][2].as_str(), nodes[1][0].as_str(), nodes[1][1].as_str()), ("CPU(%)", "node-1", "20m"));
    let both = top(&[]).ok();
    assert!(both.contains("node-1") && both.contains("web"), "{both}");
}

/// A terminal of its own, gone with this value.
struct Terminal(String);

impl Terminal {
    fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux").args(["-L", &self.0]).args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn picture(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

#[test]
fn top_is_live_on_a_terminal_and_gives_it_back() {
    if !need::met(&[Need::Program("tmux")]) {
        return;
    }
    let Some(up) = Up::start(Kind::Fake) else { return };
    let kubeconfig = up.data().join("admin.kubeconfig");
    let terminal = Terminal(format!("minik8s-top-{}", std::process::id()));
    let program = env!("CARGO_BIN_EXE_minik8s");
    terminal.tmux(&["new-session", "-d", "-x", "100", "-y", "20", "sh"]);
    let line = format!("echo before; {program} --kubeconfig {} top", kubeconfig.display());
    terminal.tmux(&["send-keys", &line, "Enter"]);
    let shows = |what: &str, part: &str| {
        let mut picture = String::new();
        until(&format!("{what} ({part})"), 60, || {
            picture = terminal.picture();
            picture.contains(part)
        });
        picture
    };
    shows("the screen is there", "q quit");
    up.apply("pod.yaml", POD);
    let picture = shows("the pod appears by itself", "web ");
    assert!(picture.contains("node-1") && picture.contains("[|") && !picture.contains("before"), "{picture}");
    terminal.tmux(&["send-keys", "m"]);
    shows("it sorts", "by memory");
    terminal.tmux(&["send-keys", "k"]);
    shows("containers are split", "side");
    terminal.tmux(&["send-keys", "C-c"]);
    let after = shows("the terminal is as before", "before\n");
    assert!(!after.contains("q quit"), "{after}");
    // Keys are echoed again, and lines end as lines do.
    terminal.tmux(&["send-keys", "echo again", "Enter"]);
    shows("the shell is usable", "\nagain\n");
}
