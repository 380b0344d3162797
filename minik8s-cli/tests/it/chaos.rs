//! Functions of a cluster of machines, each component a process of its own, while somebody calls all the time: an
//! instance is killed, the controllers, the agent whose gateway is called, and in the end a machine. What was answered was
//! done, nothing was done twice, and what was accepted is done.

use super::fleet::{Fleet, Part};
use super::front::{ask, later, says, until_done};
use super::functions::Logged;
use super::harness::until_or;
use minik8s_core::testkit::hosts::Hosts;
use minik8s_core::testkit::need::{self, Need};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Calls until a file appears; a line for each: its number, its status (0 where the connection broke, 1 where the answer
/// was another's), and who answered.
const CALLER: &str = "import http.client, threading, json, sys, os
end, host = sys.argv[1:3]
begun, lock = 1000, threading.Lock()
def work():
    global begun
    while not os.path.exists(end):
        with lock: n, begun = begun, begun + 1
        status, who = 0, '-'
        try:
            c = http.client.HTTPConnection(host, 80, timeout=90)
            c.request('POST', '/function/default/said', str(n))
            r = c.getresponse(); body = r.read().decode()
            status = r.status
            if status == 200:
                said = json.loads(body)
                who = said['who']
                if said['got'] != n: status = 1
        except Exception: pass
        with lock: print(n, status, who, flush=True)
threads = [threading.Thread(target=work) for _ in range(6)]
[t.start() for t in threads]; [t.join() for t in threads]
";

/// What became of a call.
struct Call {
    number: String,
    status: u16,
    who: String,
}

fn calls(answers: &PathBuf) -> Vec<Call> {
    let text = std::fs::read_to_string(answers).expect("a file");
    let of = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [number, status, who] = words[..] else { return None };
        Some(Call { number: number.to_owned(), status: status.parse().ok()?, who: who.to_owned() })
    };
    text.lines().filter_map(of).collect()
}

/// Where the instances are: pods by host.
fn places(fleet: &Fleet) -> Vec<(String, String)> {
    let path = "{range .items[*]}{.metadata.name} {.spec.nodeName}{\"\\n\"}{end}";
    let found = fleet.get(&["pods"], path);
    found.lines().filter_map(|line| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()))).collect()
}

#[test]
fn instances_gateway_controllers_and_a_machine_may_go_while_somebody_calls() {
    if !need::met(&[Need::Program("python3"), Need::Program("curl"), Need::Program("pkill")]) {
        return;
    }
    let short = ["--default-unreachable-toleration-seconds", "2"];
    let Some(mut fleet) = Fleet::start_in_pieces(|| Hosts::shared(3), &short) else { return };
    fleet.apply("said.yaml", &says("said", "min: 3, max: 3"));
    let ready = |fleet: &Fleet| {
        let told = fleet.get(&["function", "said"], "{.status.conditions[0].status} {.status.instances}");
        let hosts: BTreeSet<String> = places(fleet).into_iter().map(|(_, host)| host).collect();
        told == "True 3" && hosts.len() == 3
    };
    until_or(180, || ready(&fleet), || format!("an instance runs on each machine: {:?}", places(&fleet)));
    // Whoever calls does so at the second machine, whose gateway goes with its agent.
    let files = fleet.hosts[1].data();
    let (script, end, answers) = (files.join("caller.py"), files.join("end"), files.join("answers"));
    std::fs::write(&script, CALLER).expect("a file");
    let mut caller = fleet.hosts[1].command("python3");
    caller.arg(&script).arg(&end).arg(fleet.hosts[1].address().to_string());
    let mut caller = caller.stdout(std::fs::File::create(&answers).expect("a file")).spawn().expect("python3 starts");
    let logs: Vec<PathBuf> = fleet.hosts.iter().map(|host| host.data().join("agent/node")).collect();
    let logged = RefCell::new(Logged::default());
    let read = || logs.iter().for_each(|place| logged.borrow_mut().read(place));
    let good = || {
        read();
        calls(&answers).iter().filter(|call| call.status == 200).count()
    };
    let more = |what: &str| {
        let before = good();
        let lately = || calls(&answers).iter().rev().take(6).map(|c| (c.number.clone(), c.status)).collect::<Vec<_>>();
        until_or(240, || good() >= before + 50, || format!("calls are answered after {what}: {:?}", lately()));
    };
    more("the start");
    // The web server of one instance: its container ends with it, and is started again.
    fleet.hosts[0].run("pkill -KILL -o -x httpd");
    more("the end of an instance");
    fleet.kill(Part::Controllers);
    more("the end of the controllers");
    fleet.run(Part::Controllers);
    fleet.kill(Part::Agent(1));
    fleet.run(Part::Agent(1));
    more("the end of the gateway and its agent");
    let gone: BTreeSet<String> =
        places(&fleet).into_iter().filter(|(_, host)| *host == fleet.hosts[2].name()).map(|(pod, _)| pod).collect();
    assert!(!gone.is_empty(), "{:?}", places(&fleet));
    let kept: Vec<String> = (0..10).map(|number| later(&fleet, 1, "said", number)).collect();
    fleet.crash(2);
    more("the end of a machine");
    for (number, place) in kept.iter().enumerate() {
        until_done(&fleet, 1, place, number);
    }
    std::fs::write(&end, "").expect("a file");
    assert!(caller.wait().is_ok_and(|status| status.success()));
    let answered = calls(&answers);
    assert!(answered.iter().all(|call| call.status != 1), "somebody was given another's answer");
    // What a machine's instances had said when it lost its power may have been on its way to a file.
    let told = |call: &&Call| call.status == 200 && !gone.contains(&call.who);
    let undone = || -> Vec<String> {
        read();
        let logged = logged.borrow();
        let done: BTreeSet<&str> = logged.calls().into_iter().collect();
        let all = answered.iter().filter(told).map(|call| call.number.clone());
        all.filter(|number| !done.contains(number.as_str())).collect()
    };
    until_or(
        120,
        || undone().is_empty(),
        || format!("what was answered was done, and not {:?}:\n{}", undone(), logged.borrow().files()),
    );
    let logged = logged.into_inner();
    let mut once: Vec<&str> =
        logged.calls().into_iter().filter(|n| n.parse::<u32>().is_ok_and(|number| number >= 1000)).collect();
    let all = once.len();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), all, "a call that somebody waited for was made twice");
    let failed = answered.iter().filter(|call| call.status != 200).count();
    eprintln!("{} calls answered, {failed} of them not well, {all} made", answered.len());
    let (status, told) = ask(&fleet, 0, "/function/default/said", &["-d", "7"]);
    assert_eq!(status, 200, "{told}");
}
