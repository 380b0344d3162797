//! Functions on real containers: called through the gateway, from nothing.

use super::harness::{IMAGE, Kind, Ran, Up, until, until_or};
use minik8s_core::testkit::need::{self, Need};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A function that is any HTTP server: busybox' with one page.
fn pages(name: &str, says: &str, more: &str) -> String {
    format!(
        "apiVersion: minik8s.io/v1alpha1
kind: Function
metadata: {{name: {name}}}
spec:
  image: '{IMAGE}'
  command: [sh, -c, 'echo {says} > /tmp/index.html; trap exit TERM; httpd -f -p $PORT -h /tmp & wait']
  timeoutSeconds: 120
  {more}
"
    )
}

/// One call by curl: status and body.
pub(super) fn call(up: &Up, path: &str, data: &str) -> (u16, String) {
    let mut args = vec!["-s", "-m", "150", "-w", "\n%{http_code}"];
    if !data.is_empty() {
        args.extend(["-H", "content-type: application/json", "-d", data]);
    }
    let url = format!("http://127.0.0.1{path}");
    args.push(&url);
    let Ran { out, .. } = up.program("curl", &args);
    let (body, status) = out.rsplit_once('\n').unwrap_or_default();
    (status.parse().unwrap_or(0), body.trim().to_owned())
}

pub(super) fn get(up: &Up, what: &str, path: &str) -> String {
    up.minik8s(&["get", what, "-o", &format!("jsonpath={path}")]).out
}

/// What is said of a function's instances.
pub(super) fn of_instances(up: &Up, function: &str, path: &str) -> String {
    let (label, path) = (format!("minik8s.io/function={function}"), format!("jsonpath={{.items[*].{path}}}"));
    up.minik8s(&["get", "pods", "-l", &label, "-o", &path]).out
}

/// Ready, as it is now: what is said of the function before its last change does not count.
pub(super) fn ready(up: &Up, name: &str) {
    let state = || get(up, &format!("function/{name}"), "{.status}");
    let told = "{.status.conditions[0].status} {.status.observedGeneration} {.metadata.generation}";
    let is = || {
        let told = get(up, &format!("function/{name}"), told);
        let words: Vec<&str> = told.split(' ').collect();
        matches!(words[..], ["True", seen, now] if seen == now)
    };
    until_or(180, is, || format!("function {name} is ready: {}", state()));
}

pub(super) fn asleep(up: &Up, name: &str) {
    until("nothing runs", 120, || {
        matches!(get(up, &format!("function/{name}"), "{.status.instances}").as_str(), "" | "0")
    });
}

#[test]
fn a_call_wakes_a_function_and_an_update_shows() {
    let Some(up) = Up::start(Kind::Real) else { return };
    up.apply("f.yaml", &pages("web", "one", "scale: {idleSeconds: 2}"));
    // Asked before there is anything: held, not bounced, once the route is known.
    until("the function answers", 180, || call(&up, "/function/default/web/", "") == (200, "one".to_owned()));
    ready(&up, "web");
    asleep(&up, "web");
    let began = Instant::now();
    assert_eq!(call(&up, "/function/default/web/", ""), (200, "one".to_owned()));
    eprintln!("from zero: {:?}", began.elapsed());
    up.apply("f.yaml", &pages("web", "two", "scale: {idleSeconds: 2}"));
    ready(&up, "web");
    for _ in 0..5 {
        assert_eq!(call(&up, "/function/default/web/", ""), (200, "two".to_owned()));
    }
    up.minik8s(&["delete", "function", "web"]).ok();
    until("a call fails", 120, || call(&up, "/function/default/web/", "").0 == 404);
    until("nothing is left", 180, || up.minik8s(&["get", "pods", "-o", "name"]).ok().is_empty());
}

/// A directory with one Python file.
pub(super) fn code(up: &Up, name: &str, text: &str) -> String {
    let directory = up.files().join("code").join(name);
    std::fs::create_dir_all(&directory).expect("a directory");
    std::fs::write(directory.join("main.py"), text).expect("a file");
    directory.display().to_string()
}

/// A pod that looks like an instance of a function and is never started.
fn stuck(function: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: stuck, labels: {{minik8s.io/function: {function}}}}}
spec: {{nodeSelector: {{no: node}}, containers: [{{name: function, image: '{IMAGE}'}}]}}
"
    )
}

pub(super) const F1: &str = "def main(p):\n    return {'x': p['x'] - p['y'], 'y': p['y'] - p['x']}\n";
pub(super) const F2: &str = "def main(p):\n    return {'x': p['x'] + p['y'], 'y': p['x'] - p['y']}\n";
pub(super) const F3: &str = "def main(p):\n    return {'x': p['x'] ** 2, 'y': p['y'] ** 2}\n";
const COUNTS: &str = "import os, socket, time
def main(p):
    time.sleep(0.02)
    os.write(1, f'CALL {p[\"n\"]}\\n'.encode())
    return {'n': p['n'], 'square': p['n'] ** 2, 'who': socket.gethostname()}
";

/// So many calls, twenty at once, and more until several instances have answered: how many there were, which were
/// answered wrongly, and by whom the others were.
fn load(up: &Up, calls: usize) -> (usize, Vec<String>, BTreeSet<String>) {
    let script = up.files().join("load.py");
    std::fs::write(
        &script,
        format!(
            "import http.client, threading, json, time
begun, who, end, lock = 0, set(), time.monotonic() + 120, threading.Lock()
def work():
    global begun
    while True:
        with lock:
            if begun >= {calls} and (len(who) > 1 or time.monotonic() > end): return
            n, begun = begun, begun + 1
        c = http.client.HTTPConnection('127.0.0.1', 80, timeout=150)
        c.request('POST', '/function/default/counts', json.dumps({{'n': n}}))
        r = c.getresponse(); body = r.read().decode()
        good = r.status == 200 and json.loads(body)['square'] == n * n
        with lock:
            if good: who.add(json.loads(body)['who'])
            print('good ' + json.loads(body)['who'] if good else f'bad {{n}} {{r.status}} {{body}}')
threads = [threading.Thread(target=work) for _ in range(20)]
[t.start() for t in threads]; [t.join() for t in threads]
"
        ),
    )
    .expect("a file");
    let out = up.program("python3", &[&script.display().to_string()]).ok();
    let bad = out.lines().filter(|line| !line.starts_with("good ")).map(str::to_owned).collect();
    let who: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("good ")).collect();
    let count = out.lines().count();
    assert!(count >= calls, "{count} of {calls}");
    (count, bad, who.into_iter().map(str::to_owned).collect())
}

#[test]
fn python_functions_are_made_of_files_called_changed_and_undone() {
    if !need::met(&[Need::Program("python3"), Need::Program("curl")]) {
        return;
    }
    let Some(up) = Up::start(Kind::Real) else { return };
    let Some(base) = up.python_base() else { return };
    up.minik8s(&["function", "base", "python", "-f", &base.display().to_string()]).ok();
    for (name, text) in [("f1", F1), ("f2", F2), ("f3", F3)] {
        up.minik8s(&["function", "create", name, "-f", &code(&up, name, text), "--idle", "600"]).ok();
    }
    let invoke = |name: &str, data: &str| up.minik8s(&["invoke", &format!("default/{name}"), "-d", data]).ok();
    assert_eq!(invoke("f1", r#"{"x": 1, "y": 2}"#).trim(), r#"{"x": -1, "y": 1}"#);
    // f2 and then f3 on (1, 2).
    let second = invoke("f2", r#"{"x": 1, "y": 2}"#);
    assert_eq!(invoke("f3", &second).trim(), r#"{"x": 9, "y": 1}"#);
    // A call that nobody waits for.
    let name = up.minik8s(&["invoke", "f3", "-d", r#"{"x": 3, "y": 4}"#, "--async"]).ok().trim().to_owned();
    let result = |path: &str| get(&up, &format!("invocation/{name}"), path);
    until("the result is there", 180, || result("{.status.phase}") == "Succeeded");
    assert_eq!(result("{.status.body}"), r#"{"x":9,"y":16}"#);
    // What a caller does wrong, and what the function does.
    assert_eq!(call(&up, "/function/default/f1", "{").0, 400);
    let (status, told) = call(&up, "/function/default/f1", "{}");
    assert!(status == 500 && told.contains("KeyError") && !told.contains("Traceback"), "{status} {told}");
    let log = || up.minik8s(&["function", "logs", "f1"]).ok();
    until_or(120, || log().contains("Traceback"), || format!("the traceback is in the log: {}", log()));
    // What has not started yet has no log, and hides nobody else's.
    up.apply("stuck.yaml", &stuck("f1"));
    let logs = up.minik8s(&["function", "logs", "f1"]);
    assert!(logs.err.contains("stuck has not started yet"), "{}", logs.err);
    assert!(logs.ok().contains("Traceback"));
    up.minik8s(&["delete", "pod", "stuck"]).ok();
    assert_eq!(call(&up, "/function/default/nobody", "{}").0, 404);
    // From nothing.
    up.minik8s(&["function", "update", "f1", "--idle", "1"]).ok();
    asleep(&up, "f1");
    let began = Instant::now();
    assert_eq!(call(&up, "/function/default/f1", r#"{"x": 5, "y": 3}"#), (200, r#"{"x": 2, "y": -2}"#.to_owned()));
    eprintln!("a Python function from zero: {:?}", began.elapsed());
    // Another revision, one that cannot work, and back.
    up.minik8s(&["function", "update", "f1", "-f", &code(&up, "f1b", F3)]).ok();
    assert_eq!(invoke("f1", r#"{"x": 2, "y": 3}"#).trim(), r#"{"x": 4, "y": 9}"#);
    let told = up.minik8s(&["function", "update", "f1", "-f", &code(&up, "bad", "def main(:\n")]).refused();
    assert!(told.contains("SyntaxError") && told.contains("main.py"), "{told}");
    assert_eq!(invoke("f1", r#"{"x": 2, "y": 3}"#).trim(), r#"{"x": 4, "y": 9}"#);
    let told = up.minik8s(&["function", "update", "f1", "-f", &code(&up, "f1", F1), "--handler", "no.main"]).refused();
    assert!(told.contains("no.py") && told.contains("main.py"), "{told}");
    up.minik8s(&["function", "rollback", "f1", "--to", "1"]).ok();
    ready(&up, "f1");
    assert_eq!(invoke("f1", r#"{"x": 1, "y": 2}"#).trim(), r#"{"x": -1, "y": 1}"#);
    up.minik8s(&["function", "delete", "f1", "f2", "f3"]).ok();
    until("nothing is left", 180, || up.minik8s(&["get", "pods", "-o", "name"]).ok().is_empty());
}

/// With the Python base, and one function made of this.
pub(super) fn with_function(up: &Up, name: &str, text: &str, more: &[&str]) -> bool {
    let Some(base) = up.python_base() else { return false };
    up.minik8s(&["function", "base", "python", "-f", &base.display().to_string()]).ok();
    let files = code(up, name, text);
    up.minik8s(&[&["function", "create", name, "-f", &files], more].concat()).ok();
    true
}

const REMEMBERS: &str = "count = 0
def main(p):
    global count
    count += 1
    return count
";

#[test]
fn a_paused_instance_keeps_its_memory_and_wakes_for_a_call() {
    if !need::met(&[Need::Program("python3"), Need::Program("curl")]) {
        return;
    }
    let Some(up) = Up::start(Kind::Real) else { return };
    if !with_function(&up, "counts", REMEMBERS, &["--idle", "1", "--paused", "3600"]) {
        return;
    }
    let counted = || call(&up, "/function/default/counts", "{}");
    let (status, first) = counted();
    assert_eq!(status, 200, "{first}");
    let first: u32 = first.parse().expect("a number");
    for round in 1..=2 {
        let pod = |path: &str| up.minik8s(&["get", "pods", "-o", &format!("jsonpath={{.items[*].{path}}}")]).out;
        let state = || format!("{} {}", pod("metadata.annotations"), pod("status.containerStatuses[0].ready"));
        let rests = || state().contains("minik8s.io/paused") && state().ends_with("false");
        until_or(120, rests, || format!("the instance is paused: {}", state()));
        let began = Instant::now();
        assert_eq!(counted(), (200, (first + round).to_string()), "its memory is kept");
        eprintln!("from paused: {:?}", began.elapsed());
    }
    up.minik8s(&["function", "delete", "counts"]).ok();
    until("a paused one goes too", 180, || up.minik8s(&["get", "pods", "-o", "name"]).ok().is_empty());
}

/// Calls that never end: one in Python's own steps, one in a single long step of C code. Each says that it came.
const HANGS: &str = "import os, re
def main(p):
    os.write(1, f'CALL {p[\"n\"]}\\n'.encode())
    if p['how'] == 'loop':
        while True: pass
    if p['how'] == 'match':
        re.match('(a+)+$', 'a' * 60 + 'b')
    return 'well'
";

#[test]
fn calls_that_never_end_are_contained_and_the_log_is_followed_over_restarts() {
    if !need::met(&[Need::Program("python3"), Need::Program("curl")]) {
        return;
    }
    let Some(up) = Up::start(Kind::Real) else { return };
    if !with_function(&up, "hangs", HANGS, &["--timeout", "4", "--min", "1", "--max", "1"]) {
        return;
    }
    let said = up.files().join("said");
    let mut following = up.minik8s_into(&["function", "logs", "-f", "hangs"], &said);
    let asked = std::cell::Cell::new(0);
    let ask = |how: &str| {
        asked.set(asked.get() + 1);
        call(&up, "/function/default/hangs", &format!("{{\"how\": \"{how}\", \"n\": {}}}", asked.get()))
    };
    let heard = |call: u32| {
        let log = std::fs::read_to_string(&said).expect("a file");
        log.lines().filter(|line| *line == format!("CALL {call}")).count()
    };
    let restarts = || get(&up, "pods", "{.items[0].status.containerStatuses[0].restartCount}");
    until("it answers", 180, || ask("well") == (200, "\"well\"".to_owned()));
    let mut came = vec![asked.get()];
    for (number, how) in ["loop", "match"].into_iter().enumerate() {
        assert_eq!(ask(how).0, 504, "{how}");
        came.push(asked.get());
        until_or(180, || restarts() > number.to_string(), || format!("{how} ends the instance: {}", restarts()));
        until("it answers again", 180, || ask("well").0 == 200);
        came.push(asked.get());
    }
    // Of each life of the instance, what it said, once.
    for call in &came {
        until_or(120, || heard(*call) > 0, || format!("call {call} of {came:?} is heard"));
    }
    up.minik8s(&["function", "delete", "hangs"]).ok();
    assert!(following.wait().is_ok_and(|status| status.success()), "who follows a function ends with it");
    let counts: Vec<usize> = came.iter().map(|call| heard(*call)).collect();
    assert!(counts.iter().all(|count| *count == 1), "calls {came:?} were heard {counts:?} times");
}

/// Ends one instance's process, found by the host name it sees: other clusters on this machine have such, too.
fn kill_instance(pod: &str) {
    let of = |entry: std::fs::DirEntry| {
        let path = entry.path();
        let shim = std::fs::read_to_string(path.join("cmdline")).is_ok_and(|line| line.contains("/minik8s/shim.py"));
        let host = std::fs::read_to_string(path.join("root/etc/hostname")).unwrap_or_default();
        (shim && host.trim() == pod).then(|| entry.file_name().to_string_lossy().into_owned())
    };
    let mut pid = None;
    until("the instance runs", 60, || {
        pid = std::fs::read_dir("/proc").expect("/proc").flatten().find_map(&of);
        pid.is_some()
    });
    let pid = pid.unwrap();
    assert!(std::process::Command::new("kill").args(["-KILL", &pid]).status().is_ok_and(|status| status.success()));
}

/// Calls that instances have logged, by file. A file that is gone again is remembered: of an instance that is started
/// more than once, only the last two lives have logs.
#[derive(Default)]
pub(super) struct Logged(BTreeMap<PathBuf, Vec<String>>);

impl Logged {
    /// Reads lines that begin with CALL in the logs of all instances, as they lie on the node.
    pub(super) fn read(&mut self, directory: &Path) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                self.read(&path);
            } else if path.extension().is_some_and(|ending| ending == "log")
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                let calls = text.lines().filter_map(|line| Some(line.split_once(" CALL ")?.1.to_owned()));
                self.0.insert(path, calls.collect());
            }
        }
    }

    pub(super) fn calls(&self) -> Vec<&str> {
        self.0.values().flatten().map(String::as_str).collect()
    }

    pub(super) fn files(&self) -> String {
        self.0.iter().map(|(path, calls)| format!("{} calls in {}\n", calls.len(), path.display())).collect()
    }
}

/// Calls until a file appears; one line for each: its number and its status, 0 where the connection broke.
const CALLER: &str = "import http.client, threading, json, sys, os
begun, lock = 0, threading.Lock()
def work():
    global begun
    while not os.path.exists(sys.argv[1]):
        with lock: n, begun = begun, begun + 1
        status = 0
        try:
            c = http.client.HTTPConnection('127.0.0.1', 80, timeout=60)
            c.request('POST', '/function/default/counts', json.dumps({'n': n}))
            r = c.getresponse(); body = r.read().decode()
            status = r.status if r.status != 200 or json.loads(body)['square'] == n * n else 1
        except Exception: pass
        with lock: print(n, status, flush=True)
threads = [threading.Thread(target=work) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
";

#[test]
fn chaos_under_load_doubles_no_call_and_loses_none_that_was_kept() {
    if !need::met(&[Need::Program("python3")]) {
        return;
    }
    let Some(mut up) = Up::start(Kind::Real) else { return };
    if !with_function(&up, "counts", COUNTS, &["--min", "2", "--max", "2"]) {
        return;
    }
    let (script, end, answers) = (up.files().join("caller.py"), up.files().join("end"), up.files().join("answers"));
    std::fs::write(&script, CALLER).expect("a file");
    let mut caller = up.command(std::path::Path::new("python3"));
    caller.arg(&script).arg(&end).stdout(std::fs::File::create(&answers).expect("a file"));
    let mut caller = caller.spawn().expect("python3 starts");
    let up_data = up.data();
    let answered = || -> Vec<(String, u16)> {
        let text = std::fs::read_to_string(&answers).expect("a file");
        let pair = |line: &str| line.split_once(' ').map(|(n, s)| (n.to_owned(), s.parse().expect("a status")));
        text.lines().filter_map(pair).collect()
    };
    let logged = RefCell::new(Logged::default());
    let good = || {
        logged.borrow_mut().read(&up_data.join("node"));
        answered().iter().filter(|(_, status)| *status == 200).count()
    };
    let fifty_more = |what: &str| {
        let before = good();
        until_or(240, || good() >= before + 50, || format!("calls go on after {what}: {:?}", answered().last()));
    };
    fifty_more("the start");
    let pods = get(&up, "pods", "{.items[*].metadata.name}");
    kill_instance(pods.split(' ').next().expect("an instance"));
    fifty_more("the end of an instance");
    up.again();
    fifty_more("a restart in place");
    let kept: Vec<String> = (0..10)
        .map(|n| {
            let body = format!("{{\"n\": {}}}", 1_000_000 + n);
            up.minik8s(&["invoke", "counts", "-d", &body, "--async"]).ok().trim().to_owned()
        })
        .collect();
    up.kill();
    up.run();
    fifty_more("a crash");
    for name in &kept {
        let phase = || get(&up, &format!("invocation/{name}"), "{.status.phase}");
        until_or(240, || phase() == "Succeeded", || format!("{name} is {}", phase()));
    }
    std::fs::write(&end, "").expect("a file");
    assert!(caller.wait().is_ok_and(|status| status.success()));
    let answered = answered();
    assert!(answered.iter().all(|(_, status)| *status != 1), "a wrong answer");
    let undone = || -> Vec<&String> {
        let mut logged = logged.borrow_mut();
        logged.read(&up_data.join("node"));
        let calls: BTreeSet<&str> = logged.calls().into_iter().collect();
        answered.iter().filter(|(n, status)| *status == 200 && !calls.contains(n.as_str())).map(|(n, _)| n).collect()
    };
    let told = || {
        let pods = up.minik8s(&["get", "pods"]).ok() + &up.minik8s(&["get", "events"]).ok();
        format!("what was answered was done, and not {:?}:\n{}{pods}", undone(), logged.borrow().files())
    };
    until_or(120, || undone().is_empty(), told);
    let logged = logged.into_inner();
    // Calls that are kept may be made again: that is their promise.
    let mut once = logged.calls();
    once.retain(|n| n.parse::<u32>().is_ok_and(|n| n < 1_000_000));
    let all = once.len();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), all, "a call that somebody waited for was made twice");
    let failed = answered.iter().filter(|(_, status)| *status != 200).count();
    eprintln!("{} calls answered, {failed} of them not well, {all} made", answered.len());
}

#[test]
fn five_hundred_calls_are_answered_by_several_instances_each_once() {
    if !need::met(&[Need::Program("python3")]) {
        return;
    }
    let Some(up) = Up::start(Kind::Real) else { return };
    let Some(base) = up.python_base() else { return };
    up.minik8s(&["function", "base", "python", "-f", &base.display().to_string()]).ok();
    let code = code(&up, "counts", COUNTS);
    up.minik8s(&["function", "create", "counts", "-f", &code, "--concurrency", "5", "--idle", "120"]).ok();
    // From before the first call: an instance that is not needed any more takes its log with it.
    let said = up.files().join("said");
    let mut following = up.minik8s_into(&["function", "logs", "-f", "counts"], &said);
    let (count, bad, who) = load(&up, 500);
    assert!(bad.is_empty(), "{} of {count} went wrong: {:?}", bad.len(), &bad[..bad.len().min(5)]);
    assert!(who.len() > 1, "only {who:?} answered");
    let calls = || -> Vec<String> {
        let log = std::fs::read_to_string(&said).expect("a file");
        log.lines().filter(|line| line.starts_with("CALL")).map(str::to_owned).collect()
    };
    until_or(120, || calls().len() >= count, || format!("{} of {count} calls are in the log", calls().len()));
    // Once it has ended, it has printed all there was.
    up.minik8s(&["function", "delete", "counts"]).ok();
    assert!(following.wait().is_ok_and(|status| status.success()), "who follows a function ends with it");
    let mut calls = calls();
    assert_eq!(calls.len(), count, "calls that reached the code");
    calls.sort_unstable();
    calls.dedup();
    assert_eq!(calls.len(), count, "calls that reached the code once");
}

/// Takes one to two seconds, and says which version it is.
fn slow(version: u32) -> String {
    format!(
        "import os, time
def main(p):
    os.write(1, f'CALL {{p[\"n\"]}}\\n'.encode())
    time.sleep(1 + p['n'] % 10 / 10)
    return {{'n': p['n'], 'version': {version}}}
"
    )
}

/// Twelve callers, until a file appears. One line for each call: its number, its status (0 where the connection broke), the
/// version that answered, and the one that was said to be all there is when the call began.
const SLOW_CALLER: &str = "import http.client, threading, json, sys, os
begun, lock = 0, threading.Lock()
def work():
    global begun
    while not os.path.exists(sys.argv[1]):
        with lock: n, begun = begun, begun + 1
        with open(sys.argv[2]) as f: said = f.read()
        status, version, why = 0, 0, ''
        try:
            c = http.client.HTTPConnection('127.0.0.1', 80, timeout=150)
            c.request('POST', '/function/default/slow', json.dumps({'n': n}))
            r = c.getresponse(); body = r.read().decode()
            status, why = r.status, body
            if status == 200:
                answer = json.loads(body)
                status, version = 200 if answer['n'] == n else 1, answer['version']
        except Exception as e: why = repr(e)
        with lock: print(n, status, version, said, why.replace('\\n', ' '), flush=True)
threads = [threading.Thread(target=work) for _ in range(12)]
[t.start() for t in threads]; [t.join() for t in threads]
";

/// What the callers of a slow function saw.
struct Calls {
    answers: PathBuf,
    /// The version that is all there is.
    said: PathBuf,
}

impl Calls {
    fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(&self.answers).expect("a file").lines().map(str::to_owned).collect()
    }

    /// Waits for answers to as many more calls as surely began only now.
    fn hear(&self, what: &str) {
        let before = self.lines().len();
        until_or(
            240,
            || self.lines().len() >= before + 36,
            || format!("calls go on while {what}: {:?}", self.lines().last()),
        );
    }

    /// From now on, nobody but this version answers.
    fn all_is(&self, version: u32) {
        let new = self.said.with_extension("new");
        std::fs::write(&new, version.to_string()).expect("a file");
        std::fs::rename(&new, &self.said).expect("a file");
    }
}

#[test]
fn instances_that_go_under_load_end_their_calls_and_after_an_update_nothing_old_answers() {
    if !need::met(&[Need::Program("python3")]) {
        return;
    }
    let Some(up) = Up::start(Kind::Real) else { return };
    let three = ["--min", "3", "--max", "3"];
    if !with_function(&up, "slow", &slow(1), &[&three[..], &["--concurrency", "4"]].concat()) {
        return;
    }
    let logged = up.files().join("logged");
    let mut following = up.minik8s_into(&["function", "logs", "-f", "slow"], &logged);
    let (script, end) = (up.files().join("slow.py"), up.files().join("end"));
    std::fs::write(&script, SLOW_CALLER).expect("a file");
    let calls = Calls { answers: up.files().join("answers"), said: up.files().join("said") };
    calls.all_is(1);
    let instances = |count: &str| {
        let told = || get(&up, "function/slow", "{.status.instances} {.status.ready}");
        until_or(180, || told() == format!("{count} {count}"), || format!("{count} instances: {}", told()));
    };
    instances("3");
    let mut caller = up.command(std::path::Path::new("python3"));
    caller.arg(&script).args([&end, &calls.said]).stdout(std::fs::File::create(&calls.answers).expect("a file"));
    let mut caller = caller.spawn().expect("python3 starts");
    let update = |args: &[&str]| up.minik8s(&[&["function", "update", "slow"], args].concat()).ok();
    calls.hear("there are three instances");
    update(&["--min", "1", "--max", "1"]);
    instances("1");
    calls.hear("there is one instance");
    update(&["-f", &code(&up, "slow2", &slow(2))]);
    calls.all_is(2);
    calls.hear("the second version is all there is");
    update(&three);
    instances("3");
    calls.hear("there are three instances again");
    // Both at once: three old ones go, and one new one takes their calls.
    update(&["-f", &code(&up, "slow3", &slow(3)), "--min", "1", "--max", "1"]);
    calls.all_is(3);
    calls.hear("the third version is all there is");
    std::fs::write(&end, "").expect("a file");
    assert!(caller.wait().is_ok_and(|status| status.success()));
    let lines = calls.lines();
    let bad: Vec<&String> = lines.iter().filter(|line| line.split(' ').nth(1) != Some("200")).collect();
    assert!(bad.is_empty(), "{} of {} calls failed: {:?}", bad.len(), lines.len(), &bad[..bad.len().min(5)]);
    let is_old = |line: &&String| {
        let words: Vec<u32> = line.split(' ').skip(2).take(2).map(|word| word.parse().expect("a version")).collect();
        words[0] < words[1]
    };
    let old: Vec<&String> = lines.iter().filter(is_old).collect();
    assert!(old.is_empty(), "an old version answered (call, status, version, all there is): {old:?}");
    let made = || -> Vec<String> {
        let log = std::fs::read_to_string(&logged).expect("a file");
        log.lines().filter(|line| line.starts_with("CALL")).map(str::to_owned).collect()
    };
    until_or(120, || made().len() >= lines.len(), || format!("{} of {} calls are logged", made().len(), lines.len()));
    up.minik8s(&["function", "delete", "slow"]).ok();
    assert!(following.wait().is_ok_and(|status| status.success()), "who follows a function ends with it");
    let mut made = made();
    made.sort_unstable();
    made.dedup();
    let count =
        std::fs::read_to_string(&logged).expect("a file").lines().filter(|line| line.starts_with("CALL")).count();
    assert_eq!((made.len(), count), (lines.len(), lines.len()), "each call was made, and once");
}
