//! Functions of JavaScript on real containers, on a base of Debian's node.

use super::functions::{asleep, call, get, ready};
use super::harness::{Kind, Up, until, until_or};
use minik8s_core::testkit::need::{self, Need};

const CODE: &str = "import { writeSync } from 'node:fs';
let calls = 0;
export async function main(p, context) {
  calls += 1;
  if (p.how === 'throw') throw new TypeError('secret');
  if (p.how === 'loop') for (;;) {}
  writeSync(1, `CALL ${context.requestId}\\n`);
  return { n: p.n * 2, calls, id: context.requestId, path: context.path };
}
export const other = (p) => ['other', p];
export const none = 7;
";

fn code(up: &Up, name: &str, text: &str) -> String {
    let directory = up.files().join("code").join(name);
    std::fs::create_dir_all(&directory).expect("a directory");
    std::fs::write(directory.join("main.mjs"), text).expect("a file");
    directory.display().to_string()
}

#[test]
fn javascript_is_called_through_the_gateway_fails_and_is_contained() {
    if !need::met(&[Need::Program("curl")]) {
        return;
    }
    let Some(up) = Up::start(Kind::Real) else { return };
    let Some(base) = up.base("node") else { return };
    up.minik8s(&["function", "base", "node", "-f", &base.display().to_string()]).ok();
    let files = code(&up, "f", CODE);
    let create = ["function", "create", "f", "--runtime", "node", "-f", &files, "--timeout", "5", "--max", "1"];
    up.minik8s(&[&create[..], &["--idle", "600"]].concat()).ok();
    ready(&up, "f");
    let asked = |data: &str| call(&up, "/function/default/f", data);
    let answer = |data: &str| -> serde_json::Value {
        let (status, body) = asked(data);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    };
    let log = || up.minik8s(&["function", "logs", "f"]).out;
    let first = answer(r#"{"n": 21}"#);
    assert_eq!((&first["n"], &first["calls"], &first["path"]), (&42.into(), &1.into(), &"/".into()), "{first}");
    let line = format!("CALL {}", first["id"].as_str().unwrap_or_default());
    until_or(120, || log().contains(&line), || format!("{line} is in the log: {}", log()));
    // What a caller does wrong, and what the function does: its name is told, the rest stands in the log only.
    assert_eq!(asked("{").0, 400);
    let (status, told) = asked(r#"{"how": "throw"}"#);
    assert!(status == 500 && told.contains("TypeError") && !told.contains("secret"), "{status} {told}");
    let stack = || {
        let log = log();
        log.contains("secret") && log.contains("main.mjs")
    };
    until_or(120, stack, || format!("the stack is in the log: {}", log()));
    assert_eq!(answer(r#"{"n": 1}"#)["calls"], 3, "who fails goes on");
    // A loop that lets nothing else run ends the instance, and the next one answers.
    let (status, told) = asked(r#"{"how": "loop"}"#);
    assert_eq!(status, 504, "{told}");
    let restarts = || get(&up, "pods", "{.items[0].status.containerStatuses[0].restartCount}");
    until_or(180, || restarts() == "1", || format!("the loop ends the instance: {:?}", restarts()));
    until("it answers again", 180, || asked(r#"{"n": 1}"#).0 == 200);
    // Another handler, and code that does not load.
    up.minik8s(&["function", "update", "f", "--handler", "main.other"]).ok();
    ready(&up, "f");
    assert_eq!(asked("{}"), (200, r#"["other",{}]"#.to_owned()));
    let bad = code(&up, "bad", "export function main( {\n");
    let told = up.minik8s(&["function", "update", "f", "-f", &bad]).refused();
    assert!(told.contains("SyntaxError") && told.contains("main.mjs"), "{told}");
    let told = up.minik8s(&["function", "update", "f", "-f", &files, "--handler", "main.none"]).refused();
    assert!(told.contains("main.none is no function"), "{told}");
    let told = up.minik8s(&["function", "update", "f", "-f", &files, "--handler", "no.main"]).refused();
    assert!(told.contains("no.mjs"), "{told}");
    assert_eq!(asked("{}").0, 200, "what worked before goes on");
    // From nothing.
    up.minik8s(&["function", "update", "f", "--handler", "main.main", "--idle", "1"]).ok();
    ready(&up, "f");
    asleep(&up, "f");
    assert_eq!(answer(r#"{"n": 5}"#)["n"], 10);
    up.minik8s(&["function", "delete", "f"]).ok();
    until("nothing is left", 180, || up.minik8s(&["get", "pods", "-o", "name"]).ok().is_empty());
}
