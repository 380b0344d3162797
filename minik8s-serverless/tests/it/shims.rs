//! The plain files that serve functions, as processes of this machine: what they answer, what they give to functions and
//! leave in the log, and that calls which never end take nobody else along for good.

use minik8s_core::testkit::need::{self, Need};
use minik8s_serverless::functions::build::{NODE_SHIM, PYTHON_SHIM};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Far more than a busy machine takes.
const BOUND: Duration = Duration::from_secs(180);
/// Seconds that a call may take: far more than those take that end.
const TIMEOUT: f64 = 5.0;

/// How one language is served.
struct Language {
    program: &'static str,
    shim: (&'static str, &'static str),
    code: (&'static str, &'static str),
}

const PYTHON: Language = Language {
    program: "python3",
    shim: ("shim.py", PYTHON_SHIM),
    code: (
        "code.py",
        "import functools, re
def main(p):
    how = p.get('how')
    if how == 'loop':
        while True: pass
    if how == 'stuck': re.match('(a+)+$', 'a' * 60 + 'b')
    if how == 'throw': raise TypeError('secret')
    return p['n'] * 2
def two(p, c):
    if p.get('how') == 'throw': raise TypeError('secret')
    return {'params': p, 'id': c.request_id, 'key': c.idempotency_key, 'method': c.method, 'path': c.path,
        'header': c.headers.get('x-own'), 'deadline': c.deadline}
def usual(p, verbose=False): return verbose
def wraps(f):
    @functools.wraps(f)
    def inner(*a, **k): return f(*a, **k)
    return inner
@wraps
def wrapped(p, c): return c.request_id
def gives(f):
    @functools.wraps(f)
    def inner(p): return f(p, 'given')
    return inner
@gives
def given(p, db): return db
",
    ),
};

const JAVASCRIPT: Language = Language {
    program: "node",
    shim: ("shim.mjs", NODE_SHIM),
    code: (
        "code.mjs",
        "export async function main(p) {
  if (p.how === 'stuck') for (;;) {}
  if (p.how === 'loop') await new Promise(() => {});
  if (p.how === 'throw') throw new TypeError('secret');
  return p.n * 2;
}
export function two(p, c) {
  if (p.how === 'throw') throw new TypeError('secret');
  return { params: p, id: c.requestId, key: c.idempotencyKey ?? null, method: c.method, path: c.path,
    header: c.headers['x-own'] ?? null, deadline: c.deadline / 1000 };
}
export function usual(p, verbose = false) { return verbose; }
",
    ),
};

/// A shim with one function.
struct Served {
    _dir: tempfile::TempDir,
    child: Child,
    at: SocketAddr,
    /// All that it says on standard error, once it has ended.
    said: Receiver<String>,
}

impl Served {
    fn start(language: &Language, handler: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [language.shim, language.code] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(language.program);
        command.arg(dir.path().join(language.shim.0)).current_dir(dir.path()).env("FUNCTION_HANDLER", handler);
        command.env("PORT", port.to_string()).env("FUNCTION_TIMEOUT", TIMEOUT.to_string()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (tell, said) = channel();
        let mut stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            let _ = tell.send(text);
        });
        Self { _dir: dir, child, at: ([127, 0, 0, 1], port).into(), said }
    }

    /// One that listens.
    fn ready(language: &Language, handler: &str) -> Self {
        let began = Instant::now();
        let mut served = Self::start(language, handler);
        while TcpStream::connect(served.at).is_err() {
            assert!(began.elapsed() < BOUND, "{handler} does not listen at {}", served.at);
            if served.child.try_wait().unwrap().is_some() {
                // Somebody else took the port in between.
                served = Self::start(language, handler);
            }
            std::thread::yield_now();
        }
        served
    }

    fn ask(&self, head: &str, body: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.at).ok()?;
        stream.set_read_timeout(Some(BOUND)).unwrap();
        let length = body.len();
        write!(stream, "{head}Host: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }

    fn call(&self, body: &str) -> Option<(u16, String)> {
        self.ask("POST / HTTP/1.1\r\n", body)
    }

    /// How it ended, and what it said.
    fn ended(mut self) -> (Option<i32>, String) {
        let said = self.said.recv_timeout(BOUND).expect("it ends");
        (self.child.wait().unwrap().code(), said)
    }

    /// What it said until now, when it is made to end.
    fn killed(mut self) -> String {
        self.child.kill().unwrap();
        self.said.recv_timeout(BOUND).expect("it ends")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn may_run(language: &Language) -> bool {
    need::met(&[Need::Program(language.program)])
}

fn answers_and_ends(language: &Language) {
    if !may_run(language) {
        return;
    }
    let served = Served::ready(language, "code.main");
    assert_eq!(served.call(r#"{"n": 21}"#), Some((200, "42".to_owned())));
    assert_eq!(served.call("{").map(|(status, _)| status), Some(400));
    let (status, told) = served.call(r#"{"how": "throw"}"#).unwrap();
    assert!(status == 500 && told.contains("TypeError") && !told.contains("secret"), "{status} {told}");
    assert_eq!(served.call(r#"{"how": "loop"}"#), None, "nobody is answered");
    let (code, said) = served.ended();
    assert_eq!(code, Some(70), "{said}");
    assert!(said.contains("secret") && said.contains("a call takes longer than it may"), "{said}");
    let stuck = Served::ready(language, "code.main");
    assert_eq!(stuck.call(r#"{"how": "stuck"}"#), None, "nobody is answered");
    assert_ne!(stuck.ended().0, Some(0));
    let (code, said) = Served::start(language, "code.nope").ended();
    assert!(code == Some(65) && said.contains("nope"), "{code:?} {said}");
}

fn tells_of_the_call(language: &Language) {
    if !may_run(language) {
        return;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let served = Served::ready(language, "code.two");
    let head = "PUT /a/b?c=d HTTP/1.1\r\nX-Request-Id: r-1/x\r\nIdempotency-Key: k 1\r\nX-Own: v\r\n";
    let (status, told) = served.ask(head, r#"{"n": 1}"#).unwrap();
    let mut told: Value = serde_json::from_str(&told).unwrap_or_else(|e| panic!("{status} {told}: {e}"));
    let deadline = told["deadline"].take().as_f64().unwrap();
    assert!((now + TIMEOUT - 1.0..now + BOUND.as_secs_f64()).contains(&deadline), "{now} {deadline}");
    let want = json!({"params": {"n": 1}, "id": "r-1/x", "key": "k 1", "method": "PUT", "path": "/a/b?c=d",
        "header": "v", "deadline": null});
    assert_eq!(told, want);
    let (_, told) = served.ask("POST / HTTP/1.1\r\nX-Request-Id: no id\r\n", "{}").unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["id"], &told["key"]), (&json!("-"), &json!(null)), "what is no id does not reach a log");
    let (status, told) = served.ask("POST / HTTP/1.1\r\nX-Request-Id: r-2\r\n", r#"{"how": "throw"}"#).unwrap();
    assert!(status == 500 && !told.contains("secret"), "{status} {told}");
    let said = served.killed();
    let (line, rest) = said.split_once('\n').unwrap_or_default();
    assert!(line == "request r-2 failed" && rest.contains("secret"), "{said}");
    let usual = Served::ready(language, "code.usual");
    assert_eq!(usual.call("{}"), Some((200, "false".to_owned())), "a second argument of its own is left alone");
}

#[test]
fn python_is_served_and_its_endless_calls_end() {
    answers_and_ends(&PYTHON);
}

#[test]
fn javascript_is_served_and_its_endless_calls_end() {
    answers_and_ends(&JAVASCRIPT);
}

#[test]
fn a_handler_of_python_learns_of_its_call_what_it_asks_for() {
    tells_of_the_call(&PYTHON);
    if may_run(&PYTHON) {
        let wrapped = Served::ready(&PYTHON, "code.wrapped");
        let answer = wrapped.ask("POST / HTTP/1.1\r\nX-Request-Id: r-3\r\n", "{}");
        assert_eq!(answer, Some((200, "\"r-3\"".to_owned())), "what a decorator stands around counts");
        let given = Served::ready(&PYTHON, "code.given");
        let answer = given.ask("POST / HTTP/1.1\r\n", "{}");
        assert_eq!(answer, Some((200, "\"given\"".to_owned())), "a decorator that gives an argument itself");
    }
}

#[test]
fn a_handler_of_javascript_learns_of_its_call_what_it_asks_for() {
    tells_of_the_call(&JAVASCRIPT);
}
