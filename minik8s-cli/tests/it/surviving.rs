//! What a cluster of machines survives, while somebody calls a Service all the time: processes killed, a machine gone, a
//! machine cut off, etcd killed. What is asserted is the state of the kernel and of the containers, not what is reported.

use super::fleet::{Fleet, Part, Seen};
use super::harness::{IMAGE, until};
use minik8s_core::testkit::hosts::{Hosts, NEEDS};
use minik8s_core::testkit::need::{self, Need};
use std::collections::BTreeSet;

/// Short times, so that tests do not wait for minutes.
const PATIENCE: [&str; 4] = ["--node-monitor-grace-period", "5", "--default-unreachable-toleration-seconds", "2"];
const LEASES: [&str; 2] = ["--lease-period", "1"];

/// The processes of all web servers of a host, as that counts them.
fn servers(fleet: &Fleet, host: usize) -> BTreeSet<String> {
    let listed = fleet.hosts[host].command("pgrep").args(["-f", "^httpd"]).output().unwrap();
    String::from_utf8(listed.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
}

#[track_caller]
fn none_failed(seen: &Seen, at_least: usize) {
    let (count, first, last) = (seen.failed.len(), seen.failed.first(), seen.failed.last());
    assert!(count == 0, "{count} calls failed beside {} that did not: from {first:?} to {last:?}", seen.answered);
    assert!(seen.answered >= at_least, "only {} calls went through", seen.answered);
}

#[test]
fn each_part_and_all_at_once_may_be_killed_and_no_call_fails() {
    let Some(mut fleet) = Fleet::start_in_pieces(|| Hosts::shared(3), &[]) else { return };
    fleet.web_on_each();
    let service = fleet.cluster_ip("web");
    until("the rules are everywhere", 60, || (0..3).all(|host| fleet.fetch(host, service, 80).is_ok()));
    let state = |fleet: &Fleet| (0..3).map(|host| (servers(fleet, host), fleet.rules(host))).collect::<Vec<_>>();
    let before = state(&fleet);
    assert!(before.iter().all(|(processes, rules)| processes.len() == 1 && rules.contains(&service.to_string())));
    let callers: Vec<_> = (0..3).map(|host| fleet.call(host, service, 80)).collect();
    for part in fleet.parts() {
        callers.iter().for_each(|caller| caller.hear(20));
        fleet.kill(part);
        callers.iter().for_each(|caller| caller.hear(20));
        fleet.run(part);
        callers.iter().for_each(|caller| none_failed(&caller.seen(), 1));
    }
    fleet.ready();
    for part in fleet.parts() {
        fleet.kill(part);
    }
    callers.iter().for_each(|caller| caller.hear(50));
    for part in fleet.parts() {
        fleet.run(part);
    }
    fleet.ready();
    // The cluster still does what it is told, and what it does reaches every machine.
    let late = super::fleet::web("late", &fleet.hosts[2].name()).replace("app: web", "app: late");
    fleet.apply("late.yaml", &late);
    fleet.until_ready("late");
    fleet.minik8s(&["delete", "pod", "late", "--grace-period", "0"]);
    let after = || state(&fleet);
    until("everything is as it was", 60, || after() == before);
    callers.into_iter().for_each(|caller| none_failed(&caller.stop(), 100));
    let restarts = "{.items[*].status.containerStatuses[0].restartCount}";
    assert_eq!(fleet.get(&["pods"], restarts), "0 0 0");
}

/// Web servers that may run anywhere, but not two on a machine if that can be helped.
fn anywhere(count: usize) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {count}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {{matchLabels: {{app: web}}}}}}
      containers:
      - name: main
        image: '{IMAGE}'
        command: [sh, -c, 'hostname > /tmp/index.html; exec httpd -f -p 8080 -h /tmp']
        readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
"
    )
}

fn places(fleet: &Fleet) -> Vec<String> {
    let path = "{range .items[?(@.status.phase=='Running')]}{.spec.nodeName} {end}";
    let mut nodes: Vec<String> =
        fleet.get(&["pods", "-l", "app=web"], path).split_whitespace().map(str::to_owned).collect();
    nodes.sort();
    nodes
}

/// How many addresses a machine's rules lead the Service to.
fn endpoints(fleet: &Fleet, host: usize) -> BTreeSet<String> {
    let rules = fleet.rules(host);
    let words = rules.split(|c: char| !(c.is_ascii_digit() || c == '.')).filter(|word| word.starts_with("10.244."));
    words.filter(|word| !word.ends_with(".0") && !word.ends_with(".1")).map(str::to_owned).collect()
}

#[test]
fn a_machine_that_dies_is_replaced_and_comes_back_empty() {
    let Some(mut fleet) = Fleet::start(|| Hosts::shared(3), &PATIENCE, &LEASES) else { return };
    fleet.apply("web.yaml", &anywhere(3));
    until("each machine has one", 90, || places(&fleet) == ["host-0", "host-1", "host-2"]);
    let service = fleet.cluster_ip("web");
    until("all answer", 60, || endpoints(&fleet, 1).len() == 3);
    fleet.crash(2);
    fleet.until_node(2, "NotReady");
    until("the dead are no endpoints any more", 60, || {
        endpoints(&fleet, 0).len() < 3 && endpoints(&fleet, 1).len() < 3
    });
    // From here on nobody may be sent to the dead.
    let caller = fleet.call(1, service, 80);
    caller.hear(50);
    let alive = || fleet.get(&["deploy", "web"], "{.status.readyReplicas}");
    until("three run again, on two machines", 90, || alive() == "3" && endpoints(&fleet, 1).len() == 3);
    fleet.boot(2);
    fleet.until_node(2, "Ready");
    until("what ran there is gone from the records", 60, || {
        let nodes = fleet.get(&["pods", "-l", "app=web"], "{.items[*].spec.nodeName}");
        !nodes.contains("host-2") && nodes.split_whitespace().count() == 3
    });
    assert!(servers(&fleet, 2).is_empty(), "it came back with what it had");
    caller.hear(50);
    none_failed(&caller.stop(), 100);
    let taints = fleet.get(&["node", "host-2"], "{.spec.taints}");
    assert!(!taints.contains("unreachable"), "{taints}");
    fleet.minik8s(&["scale", "deploy/web", "--replicas", "6"]);
    until("it is used again", 90, || places(&fleet).contains(&"host-2".to_owned()));
}

#[test]
fn a_machine_that_is_cut_off_goes_on_alone_and_heals() {
    let Some(fleet) = Fleet::start(|| Hosts::shared(3), &PATIENCE, &LEASES) else { return };
    fleet.apply("web.yaml", &anywhere(3));
    until("each machine has one", 90, || places(&fleet) == ["host-0", "host-1", "host-2"]);
    let service = fleet.cluster_ip("web");
    until("all answer", 60, || endpoints(&fleet, 1).len() == 3);
    fleet.hosts.cut(2);
    fleet.until_node(2, "NotReady");
    until("it is no endpoint any more", 60, || endpoints(&fleet, 1).len() < 3);
    let caller = fleet.call(1, service, 80);
    until("three run elsewhere", 90, || fleet.get(&["deploy", "web"], "{.status.readyReplicas}") == "3");
    assert!(!servers(&fleet, 2).is_empty(), "nobody told it to stop");
    fleet.hosts.heal(2);
    fleet.until_node(2, "Ready");
    until("it ends what is no longer its own", 60, || servers(&fleet, 2).is_empty());
    until("everybody knows the same", 60, || {
        endpoints(&fleet, 2) == endpoints(&fleet, 1) && endpoints(&fleet, 2).len() == 3
    });
    caller.hear(50);
    none_failed(&caller.stop(), 100);
}

#[test]
fn etcd_may_be_killed_and_nothing_that_was_written_is_lost() {
    if !need::met(&[Need::Etcd]) {
        return;
    }
    let etcd = |hosts: &Hosts| {
        let data = hosts[0].data().join("etcd").display().to_string();
        let mut command = hosts[0].command("etcd");
        command.args(["--data-dir", &data, "--listen-peer-urls", "http://127.0.0.1:2380"]);
        hosts[0].spawn("etcd", command)
    };
    let mut running = None;
    let hosts = || {
        let hosts = Hosts::shared(2);
        running = Some(etcd(&hosts));
        hosts
    };
    let store = ["--store", "etcd", "--etcd-endpoints", "http://127.0.0.1:2379"];
    let Some(fleet) = Fleet::start(hosts, &store, &[]) else { return };
    fleet.web_on_each();
    let service = fleet.cluster_ip("web");
    until("both answer", 60, || endpoints(&fleet, 1).len() == 2);
    let caller = fleet.call(1, service, 80);
    for round in 0..2 {
        let name = format!("kept-{round}");
        let map = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{a: b}}\n");
        fleet.apply("map.yaml", &map);
        running.take().unwrap().kill();
        caller.hear(50);
        let refused = fleet.try_minik8s(&["delete", "configmap", &name, "--no-wait"]);
        assert!(refused.is_err(), "a write went through without a store");
        running = Some(etcd(&fleet.hosts));
        until("writes go through again", 60, || {
            fleet.try_minik8s(&["get", "configmap", &name]).is_ok()
                && fleet
                    .try_minik8s(&["scale", "deploy/none", "--replicas", "1"])
                    .is_err_and(|e| e.contains("not found"))
        });
    }
    fleet.apply("late.yaml", &super::fleet::web("late", "host-1"));
    fleet.until_ready("late");
    none_failed(&caller.stop(), 100);
}

#[test]
fn a_full_disk_refuses_writes_says_so_and_recovers() {
    if !need::met(NEEDS) {
        return;
    }
    let hosts = Hosts::shared(1);
    let host = &hosts[0];
    let data = host.data().join("small");
    std::fs::create_dir_all(&data).unwrap();
    let place = data.display().to_string();
    host.run(&format!("mount -t tmpfs -o size=4m,mode=0700 small {place}"));
    let start = || {
        let mut command = host.command(env!("CARGO_BIN_EXE_minik8s"));
        command.args(["server", "--runtime", "fake", "--network", "noop", "--data-dir", &place]);
        let process = host.spawn("server", command);
        let before = process.output().matches("ready https").count();
        until("the server is ready", 60, || {
            assert!(!process.output().contains("error:"), "{}", process.output());
            process.output().matches("ready https").count() > before
        });
        process
    };
    let minik8s = |args: &[&str]| {
        let mut command = host.command(env!("CARGO_BIN_EXE_minik8s"));
        let output = command.args(args).args(["--kubeconfig", &format!("{place}/admin.kubeconfig")]).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    };
    let write = |index: usize| {
        let path = host.data().join("map.yaml");
        let value = "x".repeat(200 << 10);
        let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m{index}}}\ndata: {{a: {value}}}\n");
        std::fs::write(&path, text).unwrap();
        minik8s(&["apply", "-f", &path.display().to_string()])
    };
    let mut server = start();
    let (kept, why) = (0..).find_map(|index| write(index).err().map(|why| (index, why))).unwrap();
    assert!(kept > 0 && why.to_lowercase().contains("space"), "refused without a reason: {why}");
    assert!(minik8s(&["get", "configmap", "m0"]).is_ok(), "reading goes on");
    host.run(&format!("mount -o remount,size=64m {place}"));
    until("writes go through again", 60, || write(kept).is_ok());
    server.kill();
    let _server = start();
    let names = minik8s(&["get", "configmaps", "-o", "jsonpath={.items[*].metadata.name}"]).unwrap();
    let lost: Vec<usize> =
        (0..=kept).filter(|index| !names.split(' ').any(|name| name == format!("m{index}"))).collect();
    assert!(lost.is_empty(), "what was acknowledged is gone: {lost:?} of {names}");
}

#[test]
fn a_machine_with_a_control_plane_may_die_and_the_other_takes_over() {
    let Some(mut fleet) = Fleet::start_with_two_control_planes(&PATIENCE, &LEASES) else { return };
    let pods: String = fleet.hosts.iter().skip(1).map(|host| super::fleet::web(&host.name(), &host.name())).collect();
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n";
    fleet.apply("web.yaml", &(pods + service));
    let far = fleet.hosts[2].name();
    fleet.until_ready(&fleet.hosts[1].name());
    fleet.until_ready(&far);
    let addresses = |fleet: &Fleet| {
        let found = fleet.get(&["endpoints", "kubernetes"], "{.subsets[*].addresses[*].ip}");
        found.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let of = |fleet: &Fleet, hosts: &[usize]| {
        hosts.iter().map(|host| fleet.hosts[*host].address().to_string()).collect::<BTreeSet<_>>()
    };
    until("the Service kubernetes leads to both", 60, || addresses(&fleet) == of(&fleet, &[0, 1]));
    // A node in the second's own process is reached from the first,
    let near = fleet.hosts[1].name();
    until("the first reaches the second machine", 60, || {
        fleet.try_minik8s(&["exec", &near, "--", "hostname"]).is_ok_and(|name| name.trim() == near)
    });
    // and a machine that joined the first from the second.
    fleet.desk = Part::Second;
    let reached =
        |fleet: &Fleet| fleet.try_minik8s(&["exec", &far, "--", "hostname"]).is_ok_and(|name| name.trim() == far);
    until("the second reaches the third machine", 60, || reached(&fleet));
    let web = fleet.cluster_ip("web");
    until("the rules are there", 60, || fleet.fetch(2, web, 80).is_ok());
    let caller = fleet.call(2, web, 80);
    caller.hear(20);

    fleet.crash(0);
    caller.hear(50);
    fleet.until_node(0, "NotReady");
    until("the Service kubernetes leads to the one that is left", 60, || addresses(&fleet) == of(&fleet, &[1]));
    assert!(reached(&fleet));
    // The third machine does what the other control plane says; scheduler and controllers are led there now.
    fleet.apply("more.yaml", &anywhere(2).replace("web", "more"));
    let ready = |fleet: &Fleet| fleet.get(&["deployment", "more"], "{.status.readyReplicas}");
    until("what is new runs", 90, || ready(&fleet) == "2");
    fleet.until_node(2, "Ready");
    let api = fleet.cluster_ip("kubernetes");
    let ask = format!("nc -w 3 {api} 443 < /dev/null");
    for _ in 0..5 {
        fleet.minik8s(&["exec", &far, "--", "sh", "-c", &ask]);
    }

    fleet.boot(0);
    fleet.ready();
    until("the Service kubernetes leads to both again", 60, || addresses(&fleet) == of(&fleet, &[0, 1]));
    none_failed(&caller.stop(), 70);
}
