//! Load in, replicas out, on two machines with real containers: a Service over a target of two to five replicas, whose
//! processes are busy while a file is there.

use super::fleet::Fleet;
use super::harness::{IMAGE, until, until_or};
use minik8s_core::testkit::hosts::Hosts;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The processes use what they may, a tenth of a core each, or next to nothing.
fn web(load: &Path) -> String {
    let script = "hostname > /tmp/index.html; httpd -p 8080 -h /tmp; trap 'exit 0' TERM; while :; do if [ -e /load/on ]; \
                  then i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; else sleep 0.2; fi; done";
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 2\n  selector: {{matchLabels: \
         {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      \
         containers:\n      - name: main\n        image: '{IMAGE}'\n        command: [sh, -c, \"{script}\"]\n        resources: \
         {{requests: {{cpu: 50m, memory: 64Mi}}, limits: {{cpu: 100m}}}}\n        volumeMounts: [{{name: load, mountPath: \
         /load}}]\n      volumes: [{{name: load, hostPath: {{path: '{}'}}}}]\n---\napiVersion: v1\nkind: Service\nmetadata: \
         {{name: web}}\nspec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}\n",
        load.display()
    )
}

/// cpu 35 %, memory 50 %, and this pace downwards.
fn autoscaler(policy: &str) -> String {
    let metric = |name: &str, percent: u32| {
        format!(
            "{{type: Resource, resource: {{name: {name}, target: {{type: Utilization, averageUtilization: {percent}}}}}}}"
        )
    };
    format!(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: web}}\nspec:\n  scaleTargetRef: \
         {{apiVersion: apps/v1, kind: Deployment, name: web}}\n  minReplicas: 2\n  maxReplicas: 5\n  metrics: [{}, {}]\n  behavior:\n    \
         scaleDown: {{stabilizationWindowSeconds: 1, policies: [{policy}]}}\n",
        metric("cpu", 35),
        metric("memory", 50)
    )
}

struct Scaled {
    fleet: Fleet,
    load: PathBuf,
}

impl Scaled {
    fn on(&self) {
        std::fs::write(self.load.join("on"), "").unwrap();
    }

    fn off(&self) {
        std::fs::remove_file(self.load.join("on")).unwrap();
    }

    fn ready(&self) -> usize {
        self.fleet.get(&["deploy", "web"], "{.status.readyReplicas}").parse().unwrap_or_default()
    }

    fn until_ready(&self, want: usize) {
        let told = || {
            let paths = "{.status.conditions[*].message} {.status.currentMetrics[*].resource.current}";
            self.fleet.get(&["hpa", "web"], paths)
        };
        until_or(90, || self.ready() == want, || format!("{want} are ready; {} are: {}", self.ready(), told()));
    }

    /// All replicas answer the Service, on both machines.
    fn all_answer(&self, count: usize) {
        let service = self.fleet.cluster_ip("web");
        let pods = || -> BTreeSet<String> {
            let names = self.fleet.get(&["pods", "-l", "app=web"], "{.items[*].metadata.name}");
            names.split_whitespace().map(str::to_owned).collect()
        };
        until("as many pods as replicas", 60, || pods().len() == count);
        let wanted = pods();
        for host in 0..self.fleet.hosts.len() {
            let heard =
                || (0..count * 8).filter_map(|_| self.fleet.fetch(host, service, 80).ok()).collect::<BTreeSet<_>>();
            until("all replicas answer", 60, || heard() == wanted);
        }
    }

    fn nodes(&self) -> BTreeSet<String> {
        let names = self.fleet.get(&["pods", "-l", "app=web"], "{.items[*].spec.nodeName}");
        names.split_whitespace().map(str::to_owned).collect()
    }

    /// The numbers the target is told to have on its way to two.
    fn descent(&self) -> Vec<(Instant, usize)> {
        let mut seen: Vec<(Instant, usize)> = Vec::new();
        until("it is told to have two", 90, || {
            let now = self.fleet.get(&["deploy", "web"], "{.spec.replicas}").parse().unwrap_or_default();
            if now > 0 && seen.last().is_none_or(|(_, last)| *last != now) {
                seen.push((Instant::now(), now));
            }
            now == 2
        });
        seen
    }

    fn up_and_down(&self, period: Duration) {
        self.on();
        self.until_ready(5);
        self.all_answer(5);
        assert_eq!(self.nodes().len(), 2, "replicas on every machine");
        self.off();
        let steps = self.descent();
        // Asking takes its time: what lies between the first number that was seen and the last is half of it at least.
        let (first, last) = (steps[1.min(steps.len() - 1)], steps[steps.len() - 1]);
        let (took, due) = (last.0 - first.0, period * (first.1 - last.1) as u32 / 2);
        assert!(took >= due, "{took:?} between {first:?} and {last:?}, whose steps are {period:?} apart");
        let told = || self.fleet.get(&["events"], "{range .items[*]}{.message};{end}");
        let one_at_a_time = || ["from 5 to 4", "from 4 to 3", "from 3 to 2"].iter().all(|step| told().contains(step));
        until_or(60, one_at_a_time, || format!("one at a time: {}", told()));
        let far = ["from 5 to 3", "from 5 to 2", "from 4 to 2"];
        assert!(!far.iter().any(|step| told().contains(step)), "{}", told());
        self.until_ready(2);
        self.all_answer(2);
    }
}

#[test]
fn replicas_follow_load_over_two_machines() {
    let arguments = ["--horizontal-pod-autoscaler-sync-period", "1s"];
    let Some(fleet) = Fleet::start(|| Hosts::shared(2), &arguments, &[]) else { return };
    let load = fleet.hosts[0].data().join("load");
    std::fs::create_dir(&load).unwrap();
    fleet.apply("web.yaml", &web(&load));
    let scaled = Scaled { fleet, load };
    scaled.until_ready(2);
    scaled.fleet.apply("hpa.yaml", &autoscaler("{type: Pods, value: 1, periodSeconds: 2}"));
    scaled.up_and_down(Duration::from_secs(2));
    // Ten percent of so few are one.
    scaled.fleet.apply("hpa.yaml", &autoscaler("{type: Percent, value: 10, periodSeconds: 3}"));
    scaled.up_and_down(Duration::from_secs(3));

    let told = scaled.fleet.minik8s(&["describe", "hpa", "web"]);
    for part in
        ["ValidMetricFound", "cpu resource utilization (percentage of request)", "proposes", "SuccessfulRescale"]
    {
        assert!(told.contains(part), "no {part:?} in\n{told}");
    }
    let top = scaled.fleet.minik8s(&["top", "pods", "--containers", "--no-headers"]);
    let lines: Vec<Vec<&str>> = top.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 2, "{top}");
    assert!(lines.iter().all(|l| l[1] == "main" && l[2].ends_with('m') && l[3].ends_with("Mi")), "{top}");
    let nodes = scaled.fleet.minik8s(&["top", "nodes", "--no-headers"]);
    let busy = |line: &str| line.split_whitespace().nth(3).and_then(|m| m.strip_suffix("Mi")?.parse::<u64>().ok());
    assert!(nodes.lines().count() == 2 && nodes.lines().all(|l| busy(l).is_some_and(|m| m > 0)), "{nodes}");
}
