//! Ports of pods from outside, with the program's own command and with kubectl, and what pods have used.

use super::harness::{IMAGE, Kind, Up, have_kubectl, until};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

const BOUND: Duration = Duration::from_secs(30);

/// A command that forwards, and where to. Killed when it is dropped.
struct Forward {
    child: Child,
    address: String,
    /// It says more later on, and ends where nobody can hear it.
    _said: Option<ChildStdout>,
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kubectl(up: &Up, what: &str, port: &str) -> Forward {
    let mut command = up.kubectl_command(&["port-forward", "--address=127.0.0.1", what, port]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    let mut said = child.stdout.take().unwrap();
    BufReader::new(&mut said).read_line(&mut line).unwrap();
    Forward { child, address: address(&line), _said: Some(said) }
}

fn minik8s(up: &Up, what: &str, port: &str) -> Forward {
    let output = up.files().join("forward.out");
    let child = up.minik8s_into(&["port-forward", what, port], &output);
    let said = || std::fs::read_to_string(&output).unwrap_or_default();
    until("it listens", 60, || said().ends_with('\n'));
    Forward { child, address: address(&said()), _said: None }
}

/// Of `Forwarding from 127.0.0.1:40001 -> 80`.
fn address(line: &str) -> String {
    line.split_whitespace().nth(2).unwrap_or_else(|| panic!("it said {line:?}")).to_owned()
}

/// Sends, says that it was all, and reads to the end.
fn exchange(address: String, data: Vec<u8>) -> Vec<u8> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        writer.write_all(&data).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    (&stream).read_to_end(&mut back).unwrap();
    sending.join().unwrap();
    back
}

fn echo(up: &Up) {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: echo, labels: {{app: echo}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: main, image: '{IMAGE}', ports: [{{name: echo, \
         containerPort: 7001}}], command: [sh, -c, 'exec nc -ll -p 7001 -e cat']}}\n---\napiVersion: v1\nkind: \
         Service\nmetadata: {{name: echo}}\nspec: {{selector: {{app: echo}}, ports: [{{port: 80, targetPort: echo}}]}}\n"
    );
    up.apply("echo.yaml", &pod);
    let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
    until("the pod is ready", 60, || up.minik8s(&["get", "pod/echo", "-o", ready]).out == "True");
}

#[test]
fn a_port_of_this_machine_leads_to_a_pod_or_a_service() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    echo(&up);
    for (what, port) in [("echo", ":7001"), ("pod/echo", ":echo"), ("svc/echo", ":80")] {
        let forward = minik8s(&up, what, port);
        assert_eq!(exchange(forward.address.clone(), b"to and fro".to_vec()), b"to and fro", "{what} {port}");
        assert_eq!(exchange(forward.address.clone(), vec![7; 300_000]).len(), 300_000, "{what} {port}");
    }
    let refused = |args: &[&str]| up.minik8s(&[&["port-forward"], args].concat()).refused();
    assert!(refused(&["nope", "80"]).contains("nope"));
    assert!(refused(&["svc/echo", "81"]).contains("has no port 81, only [80]"));
    assert!(refused(&["echo", "http"]).contains("has no port named \"http\", only [echo]"));
    assert!(refused(&["echo", "x:80"]).contains("\"x\" in \"x:80\" is no port"));
    let taken = minik8s(&up, "echo", ":7001");
    let port = taken.address.rsplit(':').next().unwrap();
    let message = refused(&["echo", &format!("{port}:7001")]);
    assert!(message.contains("cannot listen to 127.0.0.1:") && message.contains("LOCAL:REMOTE"), "{message}");
}

#[test]
fn a_real_pod_is_reached_by_its_port_and_says_what_it_uses() {
    if !have_kubectl() {
        return;
    }
    let Some(up) = Up::start(Kind::Real) else { return };
    echo(&up);
    let large: Vec<u8> = (0..2_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    for forward in [kubectl(&up, "pod/echo", ":7001"), kubectl(&up, "svc/echo", ":80"), minik8s(&up, "svc/echo", ":80")]
    {
        for data in [b"to and fro".to_vec(), large.clone()] {
            let (address, sent) = (forward.address.clone(), data.clone());
            let back = up.inside(move || exchange(address, sent)).join().unwrap();
            assert!(back == data, "{} of {} bytes came back", back.len(), data.len());
        }
    }
    let summary = up.kubectl(&["get", "--raw", "/api/v1/nodes/node-1/proxy/stats/summary"]).ok();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    let pods = summary["pods"].as_array().unwrap();
    let pod = pods.iter().find(|p| p["podRef"]["name"] == "echo").unwrap();
    let container = &pod["containers"][0];
    assert_eq!(container["name"], "main");
    assert!(container["cpu"]["usageCoreNanoSeconds"].as_u64() > Some(0), "{summary}");
    let memory = &container["memory"];
    assert!(memory["usageBytes"].as_u64() >= memory["workingSetBytes"].as_u64(), "{summary}");
    assert!(memory["workingSetBytes"].as_u64() > Some(0), "{summary}");
}
