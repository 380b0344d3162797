//! Metrics that pods tell themselves, on real containers: found and read by a real Prometheus, and what autoscalers go by,
//! beside those of a server outside the cluster.

use super::harness::{IMAGE, Kind, Up, until};
use minik8s_core::server::kubeconfig::Kubeconfig;
use minik8s_core::testkit::need::{self, Need};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// Two programs, each with a page of metrics that is a file of the host.
fn programs(directory: &Path) -> String {
    let one = |name: &str, replicas: u32| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  selector: \
             {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}, annotations: \
             {{prometheus.io/scrape: 'true', prometheus.io/path: /page}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      \
             containers:\n      - {{name: main, image: '{IMAGE}', command: [httpd, -f, -p, '8080', -h, /pages], ports: \
             [{{containerPort: 8080}}], volumeMounts: [{{name: pages, mountPath: /pages}}]}}\n      volumes: [{{name: pages, \
             hostPath: {{path: '{}'}}}}]\n---\n",
            directory.display()
        )
    };
    ["queue", "jobs"].map(|name| one(name, 1)).concat()
}

fn autoscaler(target: &str, metric: &str) -> String {
    format!(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: {target}}}\nspec:\n  scaleTargetRef: \
         {{apiVersion: apps/v1, kind: Deployment, name: {target}}}\n  minReplicas: 1\n  maxReplicas: 4\n  metrics: [{metric}]\n"
    )
}

/// A program beside the cluster, in its network; ends with this value.
struct Beside(Child);

impl Beside {
    fn start(up: &Up, program: &str, args: &[&str]) -> Self {
        let mut command = up.command(Path::new(program));
        Self(command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The data of an answer of Prometheus.
fn prometheus(up: &Up, path: &str) -> Option<Value> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n");
    let work = move || {
        let mut stream = TcpStream::connect("127.0.0.1:9090").ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let body: Value = serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()?;
        Some(body["data"].clone())
    };
    up.inside(work).join().unwrap()
}

fn start_prometheus(up: &Up) -> Beside {
    let directory = up.files().join("prometheus");
    std::fs::create_dir(&directory).unwrap();
    let known = Kubeconfig::read(&up.data().join("admin.kubeconfig")).unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let tls = format!(
        "{{ca_file: {}, cert_file: {}, key_file: {}}}",
        file("ca.crt", &known.ca_certificate),
        file("client.crt", &known.user.certificate),
        file("client.key", &known.user.key)
    );
    let (server, host) = (&known.server, known.server.trim_start_matches("https://"));
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: each\n  tls_config: {tls}\n  http_sd_configs: \
         [{{url: '{server}/minik8s/prometheus/sd', refresh_interval: 1s, tls_config: {tls}}}]\n- job_name: all\n  scheme: https\n  \
         honor_labels: true\n  metrics_path: /minik8s/prometheus/federate\n  tls_config: {tls}\n  static_configs: [{{targets: ['{host}']}}]\n"
    );
    let config = format!("--config.file={}", file("prometheus.yml", &config));
    let data = format!("--storage.tsdb.path={}", directory.join("data").display());
    Beside::start(up, "prometheus", &[&config, &data, "--web.listen-address=127.0.0.1:9090"])
}

fn targets(up: &Up) -> Vec<Value> {
    let data = prometheus(up, "/api/v1/targets?state=active").unwrap_or_default();
    data["activeTargets"].as_array().cloned().unwrap_or_default()
}

/// What a query finds: the values, by what `label` says.
fn found(up: &Up, query: &str, label: &str) -> BTreeSet<(String, String)> {
    let data = prometheus(up, &format!("/api/v1/query?query={query}")).unwrap_or_default();
    let all = data["result"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    all.iter().map(|series| (text(&series["metric"][label]), text(&series["value"][1]))).collect()
}

#[test]
fn a_real_prometheus_finds_and_reads_everything() {
    if !need::met(&[Need::Program("prometheus")]) {
        return;
    }
    let Some(up) = Up::start(Kind::Real) else { return };
    let pages = up.files().join("pages");
    std::fs::create_dir(&pages).unwrap();
    std::fs::write(
        pages.join("page"),
        "# TYPE waiting gauge\nwaiting{kind=\"a\",pod=\"own\"} 5\nwaiting{kind=\"b\"} 2\n",
    )
    .unwrap();
    up.apply("programs.yaml", &programs(&pages));
    let _prometheus = start_prometheus(&up);
    // An API server, a node, two pods, each for itself; and all on one page.
    until("everything is found and answers", 90, || {
        let all = targets(&up);
        all.len() == 5 && all.iter().all(|target| target["health"] == "up")
    });
    let all = targets(&up);
    let of = |component: &str| all.iter().filter(|t| t["labels"]["component"] == component).count();
    assert_eq!((of("apiserver"), of("node"), of("pod")), (1, 1, 2), "{all:#?}");
    until("the pods' own metrics are there", 60, || {
        found(&up, "waiting%7Bjob=%22each%22,kind=%22b%22%7D", "pod").len() == 2
    });
    for job in ["each", "all"] {
        let query = format!("sum%20by%20(namespace)%20(waiting%7Bjob=%22{job}%22%7D)");
        let want = BTreeSet::from([("default".to_owned(), "14".to_owned())]);
        until(&format!("the sum of job {job}"), 60, || found(&up, &query, "namespace") == want);
        let query = format!("container_memory_working_set_bytes%7Bjob=%22{job}%22,container=%22main%22%7D%3E0");
        until(&format!("usage of containers by job {job}"), 60, || {
            found(&up, &query, "pod").len() >= 2 || !found(&up, &query, "exported_pod").is_empty()
        });
        let query = format!("count(apiserver_request_total%7Bjob=%22{job}%22%7D)");
        until(&format!("the server's own metrics by job {job}"), 60, || !found(&up, &query, "job").is_empty());
    }
    let query = "minik8s_federate_silent_targets";
    assert_eq!(found(&up, query, "job"), BTreeSet::from([("all".to_owned(), "0".to_owned())]));
    // A pod that goes is no target any more.
    up.minik8s(&["scale", "deploy/jobs", "--replicas", "0"]).ok();
    until("it is gone", 60, || targets(&up).len() == 4);
}

#[test]
fn replicas_follow_what_pods_tell_and_what_others_know() {
    let arguments = [
        "--node-name",
        "node-1",
        "--horizontal-pod-autoscaler-sync-period",
        "1s",
        "--metrics-adapter",
        "http://127.0.0.1:9200",
    ];
    let Some(up) = Up::start_with(Kind::Real, &arguments) else { return };
    let pages = up.files().join("pages");
    std::fs::create_dir(&pages).unwrap();
    std::fs::write(pages.join("page"), "waiting{kind=\"a\"} 30\nwaiting{kind=\"b\"} 1000\n").unwrap();
    let known = up.files().join("adapter/apis/external.metrics.k8s.io/v1beta1/namespaces/default");
    std::fs::create_dir_all(&known).unwrap();
    let told = |jobs: &str| {
        let list = format!("{{\"items\":[{{\"metricName\":\"jobs\",\"value\":\"{jobs}\"}}]}}");
        std::fs::write(known.join("jobs.new"), list)
            .and_then(|()| std::fs::rename(known.join("jobs.new"), known.join("jobs")))
            .unwrap();
    };
    told("90");
    let hits = up.files().join("adapter/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/shop");
    std::fs::create_dir_all(&hits).unwrap();
    std::fs::write(hits.join("hits"), "{\"items\":[{\"metric\":{\"name\":\"hits\"},\"value\":\"7\"}]}").unwrap();
    let root = up.files().join("adapter").display().to_string();
    let _adapter = Beside::start(&up, "busybox", &["httpd", "-f", "-p", "127.0.0.1:9200", "-h", &root]);
    up.apply("programs.yaml", &programs(&pages));
    let pods = "{type: Pods, pods: {metric: {name: waiting, selector: {matchLabels: {kind: a}}}, target: {type: \
                AverageValue, averageValue: 15}}}";
    let outside = "{type: External, external: {metric: {name: jobs}, target: {type: AverageValue, averageValue: 30}}}";
    up.apply("queue.yaml", &autoscaler("queue", pods));
    up.apply("jobs.yaml", &autoscaler("jobs", outside));
    // A Service is hit seven times, four to be borne by each.
    let object = "{type: Object, object: {describedObject: {apiVersion: v1, kind: Service, name: shop}, metric: {name: hits}, \
                  target: {type: AverageValue, averageValue: 4}}}";
    let third = programs(&pages).split("---\n").next().unwrap().replace("queue", "shop");
    up.apply("shop.yaml", &(third + "---\n" + &autoscaler("shop", object)));
    let ready = |name: &str| up.minik8s(&["get", "deploy", name, "-o", "jsonpath={.status.readyReplicas}"]).out;
    // Each pod says thirty, however many there are: to the limit. Outside ninety wait, thirty for each.
    until("as many as may be follow what they tell", 60, || ready("queue").trim() == "4");
    until("three follow what others know", 60, || ready("jobs").trim() == "3");
    until("two follow what is known of the Service", 60, || ready("shop").trim() == "2");
    // What an autoscaler found when it scaled is told until it looks again.
    until("autoscalers tell what they see", 60, || {
        let table = up.minik8s(&["get", "hpa"]).ok();
        table.contains("30/15") && table.contains("30/30 (avg)")
    });
    if up.kubectl.is_some() {
        let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/waiting?metricLabelSelector=kind%3Da";
        let list: Value = serde_json::from_str(&up.kubectl(&["get", "--raw", path]).ok()).unwrap();
        assert_eq!((&list["kind"], &list["items"][0]["value"]), (&Value::from("MetricValueList"), &Value::from("30")));
        assert_eq!(list["items"][0]["describedObject"]["kind"], "Pod");
        let path = "/apis/custom.metrics.k8s.io/v1beta1";
        let known: Value = serde_json::from_str(&up.kubectl(&["get", "--raw", path]).ok()).unwrap();
        let named = known["resources"].as_array().is_some_and(|all| all.iter().any(|r| r["name"] == "pods/waiting"));
        assert!(named, "discovery names what pods tell: {known}");
        let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/shop/hits";
        let list: Value = serde_json::from_str(&up.kubectl(&["get", "--raw", path]).ok()).unwrap();
        assert_eq!(list["items"][0]["value"], "7", "of another object, by the adapter");
        let top = || up.kubectl(&["top", "pods", "--containers", "--no-headers"]).out;
        until("kubectl shows what all nine use", 60, || top().lines().count() == 9);
        assert!(top().lines().all(|line| line.split_whitespace().nth(1) == Some("main")), "{}", top());
        assert!(up.kubectl(&["top", "nodes"]).ok().contains("node-1"));
    }
    // Who knows nothing any more is a condition.
    std::fs::remove_file(known.join("jobs")).unwrap();
    let why = || {
        up.minik8s(&["get", "hpa", "jobs", "-o", "jsonpath={.status.conditions[?(@.type=='ScalingActive')].message}"])
            .out
    };
    until("it says so", 60, || why().contains("the metrics adapter at 127.0.0.1:9200: it answered 404"));
    assert_eq!(ready("jobs").trim(), "3");
}
