//! The plain files that serve functions, as processes of this machine: what they answer, what they give to functions and
//! leave in the log, and that calls which never end take nobody else along for good.

use minik8s_core::cluster::Cluster;
use minik8s_core::testkit::need::{self, Need};
use minik8s_serverless::functions::build::{NODE_SHIM, PYTHON_SHIM};
use minik8s_serverless::workflow::program::Target;
use minik8s_serverless::workflow::spec::FunctionRef;
use minik8s_serverless::workflow::{ClusterInvoker, Gateways, Heartbeat, HttpPolicy, Invocation, Invoker};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
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
        "import functools, os, re, time
def main(p):
    how = p.get('how')
    if how == 'loop':
        while True: pass
    if how == 'stuck': re.match('(a+)+$', 'a' * 60 + 'b')
    if how == 'throw': raise TypeError('secret')
    if how == 'nan': return float('nan')
    if how == 'infinite': return [1, float('-inf')]
    if how == 'deep':
        secret_of_the_log = []
        for _ in range(100000): secret_of_the_log = [secret_of_the_log]
        return secret_of_the_log
    if how == 'list': return ['a', 'b']
    return p['n'] * 2
def waits(p):
    yield ' '
    while not os.path.exists(p['until']): time.sleep(0.01)
    yield ''
    yield b'{\"n\": '
    yield '1}'
def pieces(p):
    how = p['how']
    if how == 'map': return map(str, [1, 2])
    if how == 'bytes': return iter([b'a', bytearray(b'b'), memoryview(b'c')])
    return breaks(how)
def breaks(how):
    if how == 'nothing': return
    if how == 'first': raise TypeError('secret')
    if how == 'number': yield 7
    yield 'half'
    raise TypeError('secret')
def endless(p):
    try:
        while True: yield 'x' * 65536
    finally: open(p['left'], 'w').close()
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
        "import { existsSync, writeFileSync } from 'node:fs';
import { Readable } from 'node:stream';
export async function main(p) {
  if (p.how === 'stuck') for (;;) {}
  if (p.how === 'loop') await new Promise(() => {});
  if (p.how === 'throw') throw new TypeError('secret');
  if (p.how === 'nan') return NaN;
  if (p.how === 'infinite') return [1, -Infinity];
  if (p.how === 'deep') {
    let secretOfTheLog = [];
    for (let i = 0; i < 100000; i++) secretOfTheLog = [secretOfTheLog];
    return secretOfTheLog;
  }
  if (p.how === 'list') return ['a', 'b'];
  return p.n * 2;
}
export async function* waits(p) {
  yield ' ';
  while (!existsSync(p.until)) await new Promise((resolve) => setTimeout(resolve, 10));
  yield '';
  yield Buffer.from('{\"n\": ');
  yield '1}';
}
export function pieces(p) {
  if (p.how === 'map') return Readable.from(['1', '2']);
  if (p.how === 'bytes') return new Set([Buffer.from('ab'), 'c']).values();
  return breaks(p.how);
}
async function* breaks(how) {
  if (how === 'nothing') return;
  if (how === 'first') throw new TypeError('secret');
  if (how === 'number') yield 7;
  yield 'half';
  throw new TypeError('secret');
}
export function* endless(p) {
  try {
    for (;;) yield 'x'.repeat(65536);
  } finally { writeFileSync(p.left, ''); }
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
    dir: tempfile::TempDir,
    child: Child,
    at: SocketAddr,
    /// All that it says on standard error, once it has ended.
    said: Receiver<String>,
}

impl Served {
    fn start(language: &Language, handler: &str, timeout: f64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [language.shim, language.code] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(language.program);
        command.arg(dir.path().join(language.shim.0)).current_dir(dir.path()).env("FUNCTION_HANDLER", handler);
        command.env("PORT", port.to_string()).env("FUNCTION_TIMEOUT", timeout.to_string()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (tell, said) = channel();
        let mut stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            let _ = tell.send(text);
        });
        Self { dir, child, at: ([127, 0, 0, 1], port).into(), said }
    }

    /// One that listens.
    fn ready(language: &Language, handler: &str) -> Self {
        Self::patient(language, handler, TIMEOUT)
    }

    /// One whose calls may take so many seconds.
    fn patient(language: &Language, handler: &str, timeout: f64) -> Self {
        let began = Instant::now();
        let mut served = Self::start(language, handler, timeout);
        while TcpStream::connect(served.at).is_err() {
            assert!(began.elapsed() < BOUND, "{handler} does not listen at {}", served.at);
            if served.child.try_wait().unwrap().is_some() {
                // Somebody else took the port in between.
                served = Self::start(language, handler, timeout);
            }
            std::thread::yield_now();
        }
        served
    }

    fn connect(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect(self.at).ok()?;
        stream.set_read_timeout(Some(BOUND)).unwrap();
        Some(stream)
    }

    /// A connection on which a call with this body was made, which may be followed by others.
    fn begin(&self, body: &str) -> TcpStream {
        let mut stream = self.connect().expect("it listens");
        let (head, length) = ("POST / HTTP/1.1\r\nX-Request-Id: r-1\r\nHost: x", body.len());
        write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        stream
    }

    /// A file of its own.
    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ask(&self, head: &str, body: &str) -> Option<(u16, String)> {
        let mut stream = self.connect()?;
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
    let (code, said) = Served::start(language, "code.nope", TIMEOUT).ended();
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

/// Reads until the text ends so: all of it.
fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        let mut byte = [0];
        let count = stream.read(&mut byte).unwrap();
        assert!(count > 0, "{:?} and then nothing, where {end:?} was to come", String::from_utf8_lossy(&read));
        read.extend_from_slice(&byte);
    }
    String::from_utf8(read).unwrap()
}

/// What chunks say together, and whether they were all.
fn chunks(mut text: &str) -> (String, bool) {
    let mut said = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (said, rest == "\r\n");
        }
        said += &rest[..size];
        text = rest[size..].strip_prefix("\r\n").unwrap();
    }
    (said, false)
}

/// What cannot be read, or cannot be said: each with its status, and a word of the answer.
fn refuses(language: &Language, deep: (u16, &str), rows: &[(&str, u16, &str)], error: &str) {
    if !may_run(language) {
        return;
    }
    let served = Served::ready(language, "code.main");
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let (status, told) = served.call(&format!(r#"{{"n": 1, "x": {nested}}}"#)).expect("an answer");
    assert!(status == deep.0 && told.contains(deep.1), "{status} {told}");
    for (body, want, word) in rows {
        let (status, told) = served.call(body).unwrap_or_else(|| panic!("{body} has no answer"));
        assert!(status == *want && told.contains(word), "{body}: {status} {told}");
        assert!(!told.contains("Traceback") && !told.contains("code."), "{body}: {told}");
    }
    // Whoever leaves in the middle of a body takes nobody along.
    let mut leaving = served.connect().unwrap();
    write!(leaving, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{").unwrap();
    drop(leaving);
    assert_eq!(served.call(r#"{"n": 21}"#), Some((200, "42".to_owned())));
    assert_eq!(served.call(r#"{"how": "list"}"#).unwrap().0, 200, "what is whole is sent as JSON");
    let said = served.killed();
    assert!(said.contains(error) && !said.contains("aborted"), "{said}");
}

fn sends_what_is_yielded(language: &Language) {
    if !may_run(language) {
        return;
    }
    let served = Served::patient(language, "code.waits", BOUND.as_secs_f64());
    let until = served.file("until");
    let mut stream = served.begin(&json!({ "until": until }).to_string());
    let head = read_until(&mut stream, "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && head.to_lowercase().contains("transfer-encoding: chunked"), "{head}");
    // The handler does not go on before this has come.
    assert_eq!(read_until(&mut stream, "1\r\n \r\n"), "1\r\n \r\n");
    std::fs::write(&until, "").unwrap();
    let rest = read_until(&mut stream, "0\r\n\r\n");
    assert_eq!(chunks(&rest), (r#"{"n": 1}"#.to_owned(), true));
    // The connection takes another call.
    let body = json!({ "until": until }).to_string();
    write!(stream, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    read_until(&mut stream, "\r\n\r\n");
    assert_eq!(chunks(&read_until(&mut stream, "0\r\n\r\n")), (r#" {"n": 1}"#.to_owned(), true));
    let (status, body) = served.ask("HEAD / HTTP/1.1\r\n", &body).unwrap();
    assert_eq!((status, body.as_str()), (200, ""));
}

fn breaks_off_what_fails(language: &Language, bytes: &str) {
    if !may_run(language) {
        return;
    }
    let served = Served::ready(language, "code.pieces");
    let asked = |how: &str| {
        let (status, body) = served.call(&json!({ "how": how }).to_string()).unwrap();
        (status, if status == 200 { chunks(&body) } else { (body, true) })
    };
    assert_eq!(asked("map"), (200, ("12".to_owned(), true)));
    assert_eq!(asked("bytes"), (200, (bytes.to_owned(), true)));
    assert_eq!(asked("nothing"), (200, (String::new(), true)));
    for how in ["first", "number"] {
        let (status, (told, _)) = asked(how);
        assert!(status == 500 && told.contains("TypeError") && !told.contains("secret"), "{how}: {status} {told}");
    }
    let mut stream = served.begin(r#"{"how": "half"}"#);
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && !body.contains("secret"), "{all}");
    assert_eq!(chunks(body), ("half".to_owned(), false), "it is not said that this is all");
    assert_eq!(asked("map").0, 200, "others go on");
    let said = served.killed();
    let failed = said.split("request r-1 failed").nth(1).unwrap_or_default();
    assert!(failed.contains("secret") && failed.contains("code."), "{said}");
}

/// Callers that leave, and callers that take nothing, in the middle of an answer without an end.
fn lets_callers_go(language: &Language) {
    if !may_run(language) {
        return;
    }
    let served = Served::ready(language, "code.endless");
    let begin = |name: &str| {
        let left = served.file(name);
        let mut stream = served.begin(&json!({ "left": left }).to_string());
        read_until(&mut stream, "\r\n\r\n");
        (stream, left)
    };
    let gone = |left: &Path| {
        let began = Instant::now();
        while !left.exists() {
            assert!(began.elapsed() < BOUND, "{} is not there: who yields goes on", left.display());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let (leaving, left) = begin("leaving");
    drop(leaving);
    gone(&left);
    // Its time is over, and the instance's is not.
    let (slow, left) = begin("slow");
    gone(&left);
    let (third, left) = begin("third");
    drop(third);
    gone(&left);
    drop(slow);
    let said = served.killed();
    assert!(!said.contains("takes longer than it may") && !said.contains("failed"), "{said}");
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

#[test]
fn what_python_cannot_read_or_say_is_told_and_hurts_nobody() {
    let rows = [
        (r#"{"n": NaN}"#, 400, "JSON"),
        (r#"{"how": "nan"}"#, 500, "ValueError"),
        (r#"{"how": "infinite"}"#, 500, "ValueError"),
        (r#"{"how": "deep"}"#, 500, "RecursionError"),
    ];
    refuses(&PYTHON, (400, "too deeply"), &rows, "RecursionError");
}

#[test]
fn what_javascript_cannot_read_or_say_is_told_and_hurts_nobody() {
    // JavaScript reads what is nested however deeply, and says null for what is no number.
    let rows = [
        (r#"{"n": NaN}"#, 400, "JSON"),
        (r#"{"how": "nan"}"#, 200, "null"),
        (r#"{"how": "infinite"}"#, 200, "[1,null]"),
        (r#"{"how": "deep"}"#, 500, "RangeError"),
    ];
    refuses(&JAVASCRIPT, (200, "2"), &rows, "RangeError");
}

#[test]
fn what_python_yields_comes_before_it_has_ended() {
    sends_what_is_yielded(&PYTHON);
}

#[test]
fn what_javascript_yields_comes_before_it_has_ended() {
    sends_what_is_yielded(&JAVASCRIPT);
}

#[test]
fn python_that_fails_while_it_yields_breaks_its_answer_off() {
    breaks_off_what_fails(&PYTHON, "abc");
}

#[test]
fn javascript_that_fails_while_it_yields_breaks_its_answer_off() {
    breaks_off_what_fails(&JAVASCRIPT, "abc");
}

#[test]
fn callers_of_python_that_leave_or_take_nothing_end_what_yields_and_nothing_else() {
    lets_callers_go(&PYTHON);
}

#[test]
fn callers_of_javascript_that_leave_or_take_nothing_end_what_yields_and_nothing_else() {
    lets_callers_go(&JAVASCRIPT);
}

/// White space that code yields reaches who counts signs of life before the code has gone on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_yielded_first_is_a_sign_of_life_for_a_workflow() {
    let cluster = Cluster::builder().without_controllers().start().await.unwrap();
    for language in [&PYTHON, &JAVASCRIPT] {
        if !may_run(language) {
            continue;
        }
        let served = Served::patient(language, "code.waits", BOUND.as_secs_f64());
        let until = served.file("until");
        let place = Gateways::At(served.at.to_string());
        let invoker = ClusterInvoker::new(cluster.client(), place, HttpPolicy::default());
        let function = FunctionRef { name: "waits".into(), namespace: "default".into() };
        let call = Invocation {
            key: "u/a/1".into(),
            namespace: "default".into(),
            run: "r".into(),
            step: "a".into(),
            target: Target::Function(function),
            input: json!({ "until": until }),
        };
        let alive = Heartbeat::default();
        let goes_on = async {
            alive.heard().await;
            std::fs::write(&until, "").unwrap();
        };
        let both = async { tokio::join!(invoker.invoke(&call, &alive), goes_on) };
        let (result, ()) = tokio::time::timeout(BOUND, both).await.expect("a sign of life");
        assert_eq!(result, Ok(json!({"n": 1})));
    }
    cluster.stop().await;
}
