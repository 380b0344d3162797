//! The front of several control planes, on machines of which the one that leads loses its power.

use super::fleet::{Fleet, Part};
use super::harness::{IMAGE, until_or};
use minik8s_core::testkit::need::{self, Need};
use serde_json::Value;

/// A function that is any web server: a script answers with what it was sent and says so in the log.
pub(super) fn says(name: &str, more: &str) -> String {
    format!(
        "apiVersion: minik8s.io/v1alpha1
kind: Function
metadata: {{name: {name}}}
spec:
  image: '{IMAGE}'
  timeoutSeconds: 60
  scale: {{{more}}}
  command:
  - sh
  - -c
  - |
    mkdir -p /tmp/www/cgi-bin
    cat > /tmp/www/cgi-bin/index.cgi <<'END'
    #!/bin/sh
    read -r body
    echo \"CALL $body\" >&2
    echo Content-Type: application/json
    echo
    echo \"{{\\\"got\\\": $body, \\\"who\\\": \\\"$(hostname)\\\"}}\"
    END
    chmod +x /tmp/www/cgi-bin/index.cgi
    trap exit TERM
    httpd -f -p $PORT -h /tmp/www & wait
"
    )
}

/// What a host's own gateway answers: status and body.
pub(super) fn ask(fleet: &Fleet, host: usize, path: &str, more: &[&str]) -> (u16, String) {
    let url = format!("http://{}{path}", fleet.hosts[host].address());
    let mut command = fleet.hosts[host].command("curl");
    command.args(["-s", "-m", "90", "-w", "\n%{http_code}"]).args(more).arg(&url);
    let output = command.output().expect("curl starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or_default();
    (status.parse().unwrap_or(0), body.trim().to_owned())
}

const ASYNC: &str = "Prefer: respond-async";

/// A call that nobody waits for: where its result will be.
#[track_caller]
pub(super) fn later(fleet: &Fleet, host: usize, function: &str, number: usize) -> String {
    let (status, told) =
        ask(fleet, host, &format!("/function/default/{function}"), &["-H", ASYNC, "-d", &number.to_string()]);
    assert_eq!(status, 202, "{told}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    told["location"].as_str().expect("a place").to_owned()
}

/// Waits until a call that nobody waited for went well, as a host's gateway tells it.
pub(super) fn until_done(fleet: &Fleet, host: usize, place: &str, number: usize) {
    let mut last = String::new();
    let mut done = || {
        let (status, told) = ask(fleet, host, place, &[]);
        let said: Value = serde_json::from_str(&told).unwrap_or_default();
        last = format!("{status} {told}");
        assert_ne!((status, said["phase"].as_str()), (200, Some("Failed")), "{place}: {told}");
        said["phase"] == "Succeeded" && said["result"]["got"] == number
    };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(240);
    while !done() {
        assert!(std::time::Instant::now() < end, "{place} does not come to its end: {last}");
        std::thread::yield_now();
    }
}

/// Where the front's Service leads.
fn fronts(fleet: &Fleet) -> Vec<String> {
    let slices = ["endpointslices", "-n", "kube-system", "-l", "kubernetes.io/service-name=serverless"];
    let found = fleet.get(&slices, "{.items[*].endpoints[*].addresses[0]}");
    let mut all: Vec<String> = found.split_whitespace().map(str::to_owned).collect();
    all.sort();
    all
}

#[test]
fn calls_that_were_taken_are_made_and_more_are_taken_when_the_leading_machine_dies() {
    if !need::met(&[Need::Program("curl")]) {
        return;
    }
    let short = ["--node-monitor-grace-period", "5", "--default-unreachable-toleration-seconds", "2"];
    let arguments = [&short[..], &["--webhooks-at-gateways"]].concat();
    let Some(mut fleet) = Fleet::start_with_two_control_planes(&arguments, &["--lease-period", "1"]) else { return };
    let both: Vec<String> = [0, 1].map(|host| fleet.hosts[host].address().to_string()).into();
    until_or(120, || fronts(&fleet) == both, || format!("both fronts are led to: {:?}", fronts(&fleet)));
    // One instance on the machine that stays, so that what is tested is the front.
    fleet.minik8s(&["cordon", &fleet.hosts[0].name()]);
    fleet.apply("said.yaml", &says("said", "min: 1, max: 1"));
    let hook = "apiVersion: minik8s.io/v1alpha1\nkind: Trigger\nmetadata: {name: hook}\nspec: {webhook: {}, target: {function: {name: said}}}\n";
    fleet.apply("hook.yaml", hook);
    let called = |fleet: &Fleet, number: usize| {
        let (status, told) = ask(fleet, 2, "/function/default/said", &["-d", &number.to_string()]);
        (status == 200 && told.contains(&format!("\"got\": {number}")), format!("{status} {told}"))
    };
    until_or(180, || called(&fleet, 1).0, || format!("the function answers: {}", called(&fleet, 1).1));
    let event =
        |fleet: &Fleet| ask(fleet, 2, "/trigger/default/hook", &["-H", "content-type: application/json", "-d", "{}"]);
    until_or(120, || event(&fleet).0 == 202, || format!("events are taken: {:?}", event(&fleet)));
    let mut places: Vec<String> = (0..12).map(|number| later(&fleet, 2, "said", number)).collect();
    fleet.crash(0);
    fleet.desk = Part::Second;
    // Nobody has noticed yet: half of the front is a machine that does not answer.
    places.extend((12..18).map(|number| later(&fleet, 2, "said", number)));
    let (status, told) = event(&fleet);
    assert_eq!(status, 202, "an event while one machine is dead: {told}");
    for (number, place) in places.iter().enumerate() {
        until_done(&fleet, 2, place, number);
    }
    until_or(120, || called(&fleet, 2).0, || format!("the function answers as before: {}", called(&fleet, 2).1));
    until_or(120, || fronts(&fleet) == both[1..], || format!("nobody is led to the dead: {:?}", fronts(&fleet)));
    let delivered = || fleet.get(&["triggerdeliveries"], "{.items[*].status.phase}");
    let all = || delivered().split_whitespace().all(|phase| phase == "Delivered");
    until_or(180, all, || format!("events are delivered: {}", delivered()));
    fleet.boot(0);
    until_or(120, || fronts(&fleet) == both, || format!("both fronts are led to again: {:?}", fronts(&fleet)));
}
