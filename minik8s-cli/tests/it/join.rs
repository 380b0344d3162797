//! Machines that join by command: tokens as a user handles them, and an agent that outlives what happens to it. On
//! fakes; several real machines are tested elsewhere.

use super::harness::{Kind, Ran, Up, until};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// `minik8s agent` as a process. Killed when it is dropped.
struct Agent {
    child: Child,
    said: String,
}

impl Agent {
    fn command(up: &Up, data: &Path, node: &str) -> Command {
        let url = up.ready.split_whitespace().nth(1).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_minik8s"));
        command.args(["agent", "--server", url, "--runtime", "fake", "--network", "noop", "--node-name", node]);
        command.arg("--data-dir").arg(data).env_remove("MINIK8S_TOKEN");
        command
    }

    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert!(said.starts_with("joined https://"), "{said:?}");
        Self { child, said }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn refused(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "it was admitted");
    String::from_utf8(output.stderr).unwrap()
}

fn token(up: &Up) -> String {
    up.minik8s(&["token", "create", "--ttl", "1h", "--description", "for a test"]).ok().trim().to_owned()
}

fn data(up: &Up, name: &str) -> PathBuf {
    up.files().join(name)
}

fn is_ready(up: &Up, node: &str) -> bool {
    let ready: Ran = up.minik8s(&["get", "node", node, "--no-headers"]);
    ready.out.split_whitespace().nth(1) == Some("Ready")
}

#[test]
fn a_machine_joins_with_one_command_and_goes_on_without_its_token() {
    let Some(mut up) = Up::start(Kind::Fake) else { return };
    let place = data(&up, "worker");
    std::fs::write(up.files().join("token"), token(&up)).unwrap();
    let manifest = "apiVersion: v1\nkind: Node\nmetadata:\n  name: worker\n  labels: {zone: a, \
        node-role.kubernetes.io/worker: ''}\nspec:\n  taints: [{key: dedicated, value: x, effect: NoSchedule}]\n";
    std::fs::write(up.files().join("node.yaml"), manifest).unwrap();
    let mut command = Agent::command(&up, &place, "worker");
    command.arg("--token-file").arg(up.files().join("token")).arg("--node-manifest").arg(up.files().join("node.yaml"));
    let agent = Agent::start(command);
    assert!(agent.said.contains("as node worker"), "{}", agent.said);
    until("the node is ready", 60, || is_ready(&up, "worker"));
    let shown = up.minik8s(&["get", "node", "worker", "-o", "jsonpath={.metadata.labels.zone} {.spec.taints[0].key}"]);
    assert_eq!(shown.ok().trim(), "a dedicated");
    assert!(up.minik8s(&["get", "node", "worker"]).ok().contains("worker"), "its role is shown");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(place.join("pki/node.key")).unwrap().permissions().mode() & 0o777, 0o600);
    // Killed, and back with what it has.
    drop(agent);
    let agent = Agent::start(Agent::command(&up, &place, "worker"));
    // The server goes, and comes back at another port: the agent must be told, so it is asked to join there.
    drop(agent);
    up.kill();
    up.run();
    let _agent = Agent::start(Agent::command(&up, &place, "worker"));
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: there}\nspec: {nodeName: worker, containers: [{name: c, image: 'x:1'}]}\n";
    up.apply("pod.yaml", pod);
    until("a pod runs there", 60, || up.minik8s(&["get", "pod", "there"]).out.contains("Running"));
    assert!(up.minik8s(&["logs", "there"]).code == 0, "its log is reached");
}

#[test]
fn tokens_are_made_listed_and_revoked_and_their_secrets_shown_once() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    assert!(up.minik8s(&["token", "list"]).ok().contains("token create"));
    let token = token(&up);
    let (id, rest) = token.split_once('.').unwrap();
    let (secret, _) = rest.split_once('@').unwrap();
    let listed = up.minik8s(&["token", "list"]).ok();
    assert!(listed.contains(id) && listed.contains("for a test") && !listed.contains(secret), "{listed}");
    assert!(
        !up.minik8s(&["describe", "secret", &format!("bootstrap-token-{id}"), "-n", "kube-system"])
            .ok()
            .contains(secret)
    );
    assert!(up.minik8s(&["token", "create", "--ttl", "soon"]).refused().contains("30m"));
    assert!(up.minik8s(&["token", "create", "--print-join-command"]).refused().contains("minik8s server"));
    assert!(up.minik8s(&["token", "revoke", id]).ok().contains("revoked"));
    assert!(up.minik8s(&["token", "revoke", id]).refused().contains("token list"));
    let mut command = Agent::command(&up, &data(&up, "late"), "late");
    command.env("MINIK8S_TOKEN", &token);
    let told = refused(command);
    assert!(told.contains("revoked") && !told.contains(secret), "{told}");
}

#[test]
fn what_was_typed_wrongly_is_told_with_the_way_out() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    let place = data(&up, "wrong");
    assert!(refused(Agent::command(&up, &place, "w")).contains("token create"));
    let with = |name: &str, value: &str| {
        let mut command = Agent::command(&up, &place, "w");
        command.args([name, value]);
        refused(command)
    };
    assert!(with("--token", "abcdef.0123456789abcdef").contains("no pin"));
    assert!(with("--token-file", "/no/such/file").contains("/no/such/file"));
    assert!(with("--node-taint", "x").contains("KEY[=VALUE]:EFFECT"));
    let _first = {
        let mut command = Agent::command(&up, &data(&up, "first"), "taken");
        command.env("MINIK8S_TOKEN", token(&up));
        Agent::start(command)
    };
    let mut command = Agent::command(&up, &data(&up, "second"), "taken");
    command.env("MINIK8S_TOKEN", token(&up));
    let told = refused(command);
    assert!(told.contains("NameTaken") && told.contains("--node-name"), "{told}");
}
