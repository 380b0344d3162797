//! Functions on real containers: called through the gateway, from nothing.

use super::harness::{IMAGE, Kind, Ran, Up, until, until_or};
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
  timeoutSeconds: 20
  {more}
"
    )
}

/// One call by curl: status and body.
fn call(up: &Up, path: &str, data: &str) -> (u16, String) {
    let mut args = vec!["-s", "-m", "60", "-w", "\n%{http_code}"];
    if !data.is_empty() {
        args.extend(["-H", "content-type: application/json", "-d", data]);
    }
    let url = format!("http://127.0.0.1{path}");
    args.push(&url);
    let Ran { out, .. } = up.program("curl", &args);
    let (body, status) = out.rsplit_once('\n').unwrap_or_default();
    (status.parse().unwrap_or(0), body.trim().to_owned())
}

fn get(up: &Up, what: &str, path: &str) -> String {
    up.minik8s(&["get", what, "-o", &format!("jsonpath={path}")]).out
}

fn ready(up: &Up, name: &str) {
    let state = || get(up, &format!("function/{name}"), "{.status}");
    let is = || get(up, &format!("function/{name}"), "{.status.conditions[0].status}") == "True";
    until_or(90, is, || format!("function {name} is ready: {}", state()));
}

fn asleep(up: &Up, name: &str) {
    until("nothing runs", 60, || get(up, &format!("function/{name}"), "{.status.instances}") == "0");
}

#[test]
fn a_call_wakes_a_function_and_an_update_shows() {
    let Some(up) = Up::start(Kind::Real) else { return };
    up.apply("f.yaml", &pages("web", "one", "scale: {idleSeconds: 2}"));
    // Asked before there is anything: held, not bounced, once the route is known.
    until("the function answers", 60, || call(&up, "/function/default/web/", "") == (200, "one".to_owned()));
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
    until("a call fails", 20, || call(&up, "/function/default/web/", "").0 == 404);
    until("nothing is left", 60, || up.minik8s(&["get", "pods", "-o", "name"]).ok().is_empty());
}
