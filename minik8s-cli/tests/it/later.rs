//! Calls that nobody waits for, and ids of requests, through the gateway of a real cluster.

use super::flows::{apply, object, runs};
use super::functions::{ready, with_function};
use super::harness::{Kind, Ran, Up, until, until_or};
use minik8s_core::testkit::need::{self, Need};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const CALLED: &str = "import os
def main(p, context):
    if p.get('how') == 'throw':
        raise ValueError('secret')
    os.write(1, f'CALL {context.request_id}\\n'.encode())
    return {'n': p['n'] * 2, 'id': context.request_id, 'key': context.idempotency_key, 'path': context.path}
";
const CALL: &str = "/function/default/called";
const ASYNC: &str = "Prefer: respond-async";

/// What the gateway answered.
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Value,
}

fn ask(up: &Up, path: &str, headers: &[&str], more: &[&str]) -> Answer {
    let url = format!("http://127.0.0.1{path}");
    let mut args = vec!["-s", "-i", "-m", "150", "-H", "Expect:"];
    headers.iter().for_each(|header| args.extend(["-H", header]));
    args.extend(more);
    args.push(&url);
    let Ran { out, .. } = up.program("curl", &args);
    let (head, body) = out.split_once("\r\n\r\n").unwrap_or((&out, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    let header = |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    Answer { status, headers: lines.filter_map(header).collect(), body: serde_json::from_str(body).unwrap_or_default() }
}

fn post(up: &Up, headers: &[&str], body: &str) -> Answer {
    ask(up, CALL, headers, &["-d", body])
}

/// What came of a call in the end.
fn result(up: &Up, place: &str) -> Value {
    let mut last = Value::Null;
    let over = || {
        let answer = ask(up, place, &[], &[]);
        // 504 while the control plane is not back yet.
        assert!([200, 0, 502, 503, 504].contains(&answer.status), "{place}: {} {}", answer.status, answer.body);
        last = answer.body;
        ["Succeeded", "Failed"].contains(&last["phase"].as_str().unwrap_or_default())
    };
    until_or(180, over, || format!("{place} is over"));
    last
}

#[test]
fn a_call_that_was_accepted_survives_the_process_and_is_told_of_by_its_id() {
    let Some(mut up) = Up::start(Kind::Real) else { return };
    if !with_function(&up, "called", CALLED, &["--idle", "600"]) {
        return;
    }
    ready(&up, "called");
    // One that is waited for keeps its id, or is given one.
    let answer = post(&up, &["X-Request-Id: mine-1", "Idempotency-Key: k 1"], r#"{"n": 2}"#);
    let want = json!({"n": 4, "id": "mine-1", "key": "k 1", "path": "/"});
    assert_eq!((answer.status, &answer.body), (200, &want));
    assert_eq!(answer.headers["x-request-id"], "mine-1");
    let answer = post(&up, &["X-Request-Id: no id"], r#"{"n": 2}"#);
    let id = &answer.headers["x-request-id"];
    assert!(answer.body["id"] == id.as_str() && !id.is_empty() && !id.contains(' '), "{id} {}", answer.body);
    assert!(ask(&up, "/nowhere", &[], &[]).headers.contains_key("x-request-id"), "who is refused has one to tell");
    // Some that nobody waits for, and then the process is gone.
    let mut taken = Vec::new();
    for n in 0..20 {
        let answer = post(&up, &[ASYNC, "Idempotency-Key: batch"], &format!("{{\"n\": {n}}}"));
        assert_eq!(
            (answer.status, answer.headers.get("preference-applied").map(String::as_str)),
            (202, Some("respond-async")),
            "{}",
            answer.body
        );
        taken.push((n, answer.headers["location"].clone(), answer.body["id"].as_str().unwrap_or_default().to_owned()));
    }
    up.kill();
    up.run();
    for (n, place, id) in &taken {
        let told = result(&up, place);
        let want = json!({"n": n * 2, "id": id, "key": "batch", "path": "/"});
        assert_eq!((&told["phase"], &told["result"]), (&json!("Succeeded"), &want), "{told}");
    }
    bad_calls(&up);
    let failed = post(&up, &[ASYNC], r#"{"how": "throw"}"#);
    let told = result(&up, &failed.headers["location"]);
    assert!(told["phase"] == "Failed" && !told.to_string().contains("secret"), "{told}");
    let line = format!("request {} failed", failed.body["id"].as_str().unwrap_or_default());
    let log = || up.minik8s(&["function", "logs", "called"]).out;
    until_or(60, || log().contains(&line), || format!("{line}: {}", log()));
    assert!(log().contains("secret"));
    // What is not kept any more is told from what never was.
    let (_, place, id) = &taken[0];
    up.minik8s(&["delete", "invocation", id]).ok();
    assert_eq!(ask(&up, place, &[], &[]).status, 410);
}

fn bad_calls(up: &Up) {
    let (large, long) = (up.files().join("large"), format!("Idempotency-Key: {}", "k".repeat(300)));
    std::fs::write(&large, format!("\"{}\"", "x".repeat(300 << 10))).expect("a file");
    let large = format!("@{}", large.display());
    let kept = || up.minik8s(&["get", "invocations", "-o", "name"]).ok().lines().count();
    let before = kept();
    let table: [(&str, &[&str], &[&str], u16); 8] = [
        (CALL, &[ASYNC], &["-d", "{"], 400),
        (CALL, &[ASYNC, long.as_str()], &["-d", "{}"], 400),
        (CALL, &[ASYNC], &["--data-binary", large.as_str()], 413),
        ("/function/default/called?a=b", &[], &["-H", ASYNC, "-d", "{}"], 400),
        ("/function/default/none", &[ASYNC], &["-d", "{}"], 404),
        ("/invocation/default/none", &[], &[], 404),
        ("/invocation/default/../x", &[], &["--path-as-is"], 400),
        ("/invocation/default/none", &[], &["-X", "DELETE"], 405),
    ];
    for (path, headers, more, want) in table {
        let answer = ask(up, path, headers, more);
        assert_eq!(answer.status, want, "{path} {headers:?}: {}", answer.body);
    }
    assert_eq!(kept(), before, "what was refused was not written");
}

#[test]
fn events_of_webhooks_are_taken_at_gateways_with_tls() {
    if !need::met(&[Need::Program("curl")]) {
        return;
    }
    let Some(up) = Up::start_with(Kind::Real, &["--node-name", "node-1", "--webhooks-at-gateways"]) else { return };
    let made = rcgen::generate_simple_self_signed(["hooks.example".to_owned()]).expect("a certificate");
    let authority = up.files().join("ca.pem");
    std::fs::write(&authority, made.cert.pem()).expect("a file");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cert"}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": made.cert.pem(), "tls.key": made.signing_key.serialize_pem()}});
    let path = json!({"path": "/else", "pathType": "Prefix", "backend": {"service": {"name": "none", "port": {"number": 80}}}});
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "hooks"}, "spec": {
        "tls": [{"hosts": ["hooks.example"], "secretName": "cert"}],
        "rules": [{"host": "hooks.example", "http": {"paths": [path]}}]}});
    let keep = json!({"startAt": "a", "steps": [{"name": "a", "pass": {}, "end": true}]});
    let hook = json!({"webhook": {}, "target": {"workflow": {"name": "keep"}}, "parameters": "${event.data}"});
    apply(&up, &[secret, ingress, object("Workflow", "keep", &keep), object("Trigger", "hook", &hook)]);
    let authority = authority.display().to_string();
    let send = |url: &str| {
        let kind = "content-type: application/json";
        let args = ["-sS", "-m", "60", "-w", " %{http_code}", "--cacert", &authority, "-H", kind, "-d", "{\"n\": 1}"];
        let ran = up.program("curl", &[&args[..], &["--resolve", "hooks.example:443:127.0.0.1", url]].concat());
        ran.err + &ran.out
    };
    let mut last = String::new();
    let url = "https://hooks.example/trigger/default/hook";
    let taken = || {
        last = send(url);
        last.ends_with(" 202")
    };
    until("an event is taken over TLS", 120, taken);
    assert!(last.contains("deliveries"), "{last}");
    let plain = send("http://127.0.0.1/trigger/default/hook");
    assert!(plain.ends_with(" 202"), "{plain}");
    let unknown = send("https://hooks.example/trigger/default/none");
    assert!(unknown.ends_with(" 404"), "{unknown}");
    let given = || runs(&up).values().filter(|status| status["output"] == json!({"n": 1})).count();
    until_or(120, || given() >= 2, || format!("both events are delivered: {:?}", runs(&up)));
}
