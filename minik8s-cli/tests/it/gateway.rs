//! The gateway of a real cluster: hosts and paths of all three kinds, from pods and from the host, and canaries.

use super::harness::{IMAGE, Kind, Up, until, until_or};
use minik8s_core::testkit::need::{self, Need};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A Deployment of web servers that say the name of their app, and its Service.
pub(super) fn web(name: &str, replicas: usize) -> String {
    let script = format!(
        "mkdir -p /tmp/a/b; for d in /tmp /tmp/a /tmp/a/b; do echo {name} > $d/index.html; done; exec httpd -f -p 8080 -h /tmp"
    );
    Served { image: IMAGE, command: &["sh", "-c", &script], pause: &["sleep", "1"], grace: 5 }.text(name, replicas)
}

/// What answers at port 8080, and how it ends.
pub(super) struct Served<'a> {
    pub(super) image: &'a str,
    pub(super) command: &'a [&'a str],
    pub(super) pause: &'a [&'a str],
    pub(super) grace: u32,
}

impl Served<'_> {
    /// A Deployment and its Service.
    pub(super) fn text(&self, name: &str, replicas: usize) -> String {
        let words = |words: &[&str]| serde_json::to_string(words).unwrap();
        let (image, command, pause, grace) = (self.image, words(self.command), words(self.pause), self.grace);
        format!(
            "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: {grace}
      containers:
      - name: main
        image: '{image}'
        command: {command}
        resources: {{requests: {{cpu: 250m}}}}
        readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
        lifecycle: {{preStop: {{exec: {{command: {pause}}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
"
        )
    }
}

pub(super) const ROUTES: &str = "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  rules:
  - host: shop.example
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: one, port: {number: 80}}}}
      - {path: /a, pathType: Prefix, backend: {service: {name: two, port: {number: 80}}}}
      - {path: /gone, pathType: Prefix, backend: {service: {name: nobody, port: {number: 80}}}}
---
apiVersion: minik8s.io/v1alpha1
kind: Dns
metadata: {name: seed}
spec:
  host: seed.example
  paths:
  - {path: /a, serviceName: one, servicePort: 80}
  - {path: /a/b, serviceName: two, servicePort: 80}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: minik8s
  listeners: [{name: http, port: 8000, protocol: HTTP, hostname: '*.gw.example'}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: split}
spec:
  parentRefs: [{name: gw}]
  hostnames: [www.gw.example]
  rules:
  - backendRefs: [{name: one, port: 80, weight: 9}, {name: two, port: 80, weight: 1}]
  - matches: [{headers: [{name: x-canary, value: 'yes'}]}]
    backendRefs: [{name: two, port: 80}]
  - matches: [{path: {type: RegularExpression, value: '/a/[b-d]/?'}}]
    backendRefs: [{name: two, port: 80}]
";

/// Status and body of an answer to a GET from the cluster's host.
pub(super) fn ask(up: &Up, port: u16, host: &str, path: &str, header: &str) -> (u16, String) {
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET {path} HTTP/1.1\\r\\nHost: {host}\\r\\n{header}Connection: close\\r\\n\\r\\n' >&3 && timeout 5 cat <&3"
    );
    let text = up.program("bash", &["-c", &script]).out;
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, text.split("\r\n\r\n").nth(1).unwrap_or_default().trim().to_owned())
}

pub(super) fn get(up: &Up, what: &str, path: &str) -> String {
    up.minik8s(&["get", what, "-o", &format!("jsonpath={path}")]).out
}

pub(super) fn available(up: &Up, name: &str, count: usize) {
    let ready = || get(up, &format!("deploy/{name}"), "{.status.availableReplicas}") == count.to_string();
    until_or(90, ready, || format!("the Deployment is available: {}", up.minik8s(&["describe", "pods"]).out));
}

#[test]
fn hosts_and_paths_of_every_kind_lead_to_services_from_pods_and_from_the_host() {
    let Some(up) = Up::start(Kind::Real) else { return };
    up.apply("web.yaml", &(web("one", 1) + &web("two", 2)));
    up.apply("routes.yaml", ROUTES);
    available(&up, "one", 1);
    available(&up, "two", 2);
    until("the Ingress answers", 60, || ask(&up, 80, "shop.example", "/", "").0 == 200);
    let says = |port, host, path, header| ask(&up, port, host, path, header).1;
    assert_eq!(says(80, "shop.example", "/", ""), "one");
    assert_eq!(says(80, "shop.example", "/a/", ""), "two");
    assert_eq!(says(80, "seed.example", "/a/", ""), "one");
    assert_eq!(says(80, "seed.example", "/a/b/", ""), "two");
    let (status, why) = ask(&up, 80, "shop.example", "/gone", "");
    assert!(status == 503 && why.contains("there is no Service default/nobody"), "{status} {why}");
    let (status, why) = ask(&up, 80, "other.example", "/", "");
    assert!(status == 404 && why.contains("other.example"), "{status} {why}");
    until("the Gateway answers", 60, || ask(&up, 8000, "www.gw.example", "/", "").0 == 200);
    let answers: Vec<String> = (0..20).map(|_| says(8000, "www.gw.example", "/", "")).collect();
    assert_eq!(answers.iter().filter(|answer| *answer == "two").count(), 2, "{answers:?}");
    assert_eq!(says(8000, "www.gw.example", "/", "X-Canary: yes\\r\\n"), "two");
    assert_eq!(says(8000, "www.gw.example", "/a/b/", ""), "two");
    assert_eq!(ask(&up, 80, "www.gw.example", "/", "").0, 404, "a route of port 8000 answers at port 80");
    // From a pod, by name.
    let fetch =
        |url: &str| up.minik8s(&["exec", "deploy/two", "--", "wget", "-q", "-O", "-", url]).out.trim().to_owned();
    until("pods reach the host by its name", 60, || fetch("http://shop.example/a/") == "two");
    assert_eq!(fetch("http://seed.example/a/"), "one");
    until("the Gateway's too", 60, || !fetch("http://www.gw.example:8000/").is_empty());
    // From the host, by name: asked once, and then by every program, as long as its configuration says so.
    assert_eq!(up.minik8s(&["dns", "resolve", "shop.example"]).ok().trim(), "10.244.0.1");
    assert!(up.minik8s(&["dns", "resolve", "nobody.shop.example"]).refused().contains("nobody.shop.example"));
    let conf = up.files().join("resolv.conf");
    std::fs::write(&conf, "nameserver 192.0.2.1\noptions timeout:1 attempts:1\n").unwrap();
    let (conf, program) = (conf.display().to_string(), env!("CARGO_BIN_EXE_minik8s"));
    let script = format!(
        "mount --bind {conf} /etc/resolv.conf && {program} dns host-setup && getent ahostsv4 seed.example; \
         {program} dns host-setup --undo"
    );
    let found = up.program("unshare", &["-m", "sh", "-c", &script]).ok();
    assert!(found.starts_with("10.244.0.1"), "{found}");
    assert_eq!(std::fs::read_to_string(&conf).unwrap(), "nameserver 192.0.2.1\noptions timeout:1 attempts:1\n");
    // What the objects say.
    let programmed = "{.status.conditions[?(@.type=='Programmed')].status}";
    until("the Gateway says that it is programmed", 60, || get(&up, "gateway/gw", programmed) == "True");
    until("the Dns says that it is ready", 60, || {
        get(&up, "dns/seed", "{.status.conditions[?(@.type=='Ready')].status}") == "True"
    });
    until("the Ingress says where", 60, || {
        !get(&up, "ingress/shop", "{.status.loadBalancer.ingress[0].ip}").is_empty()
    });
    assert!(up.minik8s(&["get", "ingress"]).ok().contains("shop.example"));
    // And it ends: a host that is gone leads nowhere.
    up.minik8s(&["delete", "ingress/shop", "httproute/split", "gateway/gw"]).ok();
    until("the host is gone", 60, || ask(&up, 80, "shop.example", "/", "").0 == 404);
    until("so is the port", 60, || ask(&up, 8000, "www.gw.example", "/", "").0 == 0);
}

#[test]
fn hosts_of_an_ingress_speak_tls_with_the_certificate_of_a_secret() {
    if !need::met(&[Need::Program("curl")]) {
        return;
    }
    let Some(up) = Up::start(Kind::Real) else { return };
    let made = rcgen::generate_simple_self_signed(["shop.example".to_owned()]).unwrap();
    let (authority, key) = (up.files().join("ca.pem"), up.files().join("key.pem"));
    std::fs::write(&authority, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let indented = |text: String| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: cert}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        indented(made.cert.pem()),
        indented(made.signing_key.serialize_pem())
    );
    let shop = ROUTES.split("---\n").next().unwrap();
    let shop = shop.replace("spec:\n", "spec:\n  tls: [{hosts: [shop.example], secretName: cert}]\n");
    up.apply("web.yaml", &web("one", 1));
    up.apply("shop.yaml", &shop);
    available(&up, "one", 1);
    let fetch = |host: &str, version: &str| {
        let authority = authority.display().to_string();
        let (url, place) = (format!("https://{host}/"), format!("{host}:443:127.0.0.1"));
        up.program("curl", &["-s", version, "--cacert", &authority, "--resolve", &place, "--max-time", "5", &url])
    };
    assert_ne!(fetch("shop.example", "--http2").code, 0, "there is no certificate yet");
    up.apply("secret.yaml", &secret);
    until("the host speaks TLS", 60, || fetch("shop.example", "--http2").out.trim() == "one");
    assert_eq!(fetch("shop.example", "--http1.1").ok().trim(), "one");
    assert_ne!(fetch("other.example", "--http2").code, 0, "a name without a certificate");
}

#[test]
fn a_canary_gets_what_it_was_promised_and_one_that_fails_is_taken_back() {
    let Some(up) = Up::start(Kind::Real) else { return };
    up.apply("web.yaml", &(web("one", 1) + &web("two", 1)));
    let route = |canary: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: split}}
spec:
  parentRefs: [{{name: gw}}]
  hostnames: [www.gw.example]
  rules: [{{backendRefs: [{{name: one, port: 80, weight: 100}}, {{name: {canary}, port: 80, weight: 0}}]}}]
"
        )
    };
    let gateway = ROUTES.split("---\n").find(|text| text.contains("kind: Gateway\n")).unwrap();
    let nobody =
        "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {selector: {app: bad}, ports: [{port: 80}]}\n";
    up.apply("routes.yaml", &format!("{gateway}---\n{nobody}---\n{}", route("two")));
    available(&up, "one", 1);
    available(&up, "two", 1);
    until("the Gateway answers", 60, || ask(&up, 8000, "www.gw.example", "/", "").1 == "one");
    let stop = Arc::new(AtomicBool::new(false));
    let calling = ask_on(&up, &stop);
    let limits = ["--interval", "1", "--min-requests", "5", "--max-error-rate", "5"];
    let canary = |to: &str, step: &str| {
        up.minik8s(&[&["rollout", "canary", "split", "--to", to, "--step", step][..], &limits[..]].concat())
    };
    let weights = || get(&up, "httproute/split", "{.spec.rules[0].backendRefs[*].weight}");
    let said = canary("50%", "25").ok();
    for share in ["gets 25 %", "gets 50 %", "has its 50 %"] {
        assert!(said.contains(share), "{said}");
    }
    assert_eq!(weights(), "50 50");
    up.apply("bad.yaml", &route("bad"));
    let why = canary("100", "50").refused();
    assert!(why.contains("taken back at 50 %") && why.contains("failed"), "{why}");
    assert_eq!(weights(), "100 0");
    until("nobody gets to the bad one", 60, || (0..20).all(|_| ask(&up, 8000, "www.gw.example", "/", "").1 == "one"));
    // The failures of that canary are none of the next one's, though its Service has the same name.
    up.apply(
        "mended.yaml",
        &nobody.replace("app: bad", "app: two").replace("port: 80}", "port: 80, targetPort: 8080}"),
    );
    let said = canary("50", "50").ok();
    assert!(said.contains("has its 50 %"), "{said}");
    stop.store(true, Ordering::Relaxed);
    assert_ne!(calling.join().unwrap(), 0, "the bad one failed nobody");
}

/// Asks the Gateway until it is told to stop, and says how often the answer was none of a Service's.
fn ask_on(up: &Up, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<usize> {
    let over = stop.clone();
    up.inside(move || {
        let mut failed = 0;
        while !over.load(Ordering::Relaxed) {
            let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", 8000)) else { continue };
            let request = b"GET / HTTP/1.1\r\nHost: www.gw.example\r\nConnection: close\r\n\r\n";
            let mut text = String::new();
            let sent = std::io::Write::write_all(&mut stream, request)
                .and_then(|()| std::io::Read::read_to_string(&mut stream, &mut text));
            failed += usize::from(sent.is_err() || !text.starts_with("HTTP/1.1 200"));
        }
        failed
    })
}

#[test]
fn a_deployment_gets_the_template_of_its_canary_and_a_slow_one_is_taken_back() {
    let Some(up) = Up::start(Kind::Real) else { return };
    let gateway = ROUTES.split("---\n").find(|text| text.contains("kind: Gateway\n")).unwrap();
    let route = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: www}
spec:
  parentRefs: [{name: gw}]
  hostnames: [www.gw.example]
  rules: [{backendRefs: [{name: one, port: 80}]}]
";
    up.apply("web.yaml", &(web("one", 2) + gateway + "---\n" + route));
    available(&up, "one", 2);
    let says = |word: &str| ask(&up, 8000, "www.gw.example", "/", "").1 == word;
    until("the Gateway answers", 60, || says("one"));
    let command = |script: &str| {
        let script = format!("{script}; exec httpd -f -p 8080 -h /tmp");
        serde_json::json!({"spec": {"containers": [{"name": "main", "command": ["sh", "-c", script]}]}}).to_string()
    };
    let canary = |script: &str, options: &[&str]| {
        let (patch, limits) = (command(script), ["--to", "100%", "--step", "50", "--interval", "1"]);
        up.minik8s(&[&["rollout", "canary", "one", "--patch", &patch][..], &limits, options].concat())
    };
    let why = up.minik8s(&["rollout", "canary", "deploy/one", "--to", "10%"]).refused();
    assert!(why.contains("say what is to be tried"), "{why}");
    let stop = Arc::new(AtomicBool::new(false));
    let calling = ask_on(&up, &stop);
    let slow = "mkdir /tmp/cgi-bin; printf '#!/bin/sh\nsleep 1\nprintf \"Content-Type: text/plain\\r\\n\\r\\nslow\"\n' > /tmp/cgi-bin/index.cgi; chmod +x /tmp/cgi-bin/index.cgi";
    let why = canary(slow, &["--max-latency", "300", "--min-requests", "5"]).refused();
    assert!(why.contains("taken back at 50 %: one request in a hundred took more than"), "{why}");
    let made = || get(&up, "deployments,services", "{.items[*].metadata.name}").contains("one-canary");
    until("what was made for the canary goes", 60, || !made());
    let backends = || get(&up, "httproute/www", "{.spec.rules[0].backendRefs[*].name}");
    assert_eq!(backends(), "one");
    until("the slow one is not asked", 60, || (0..20).all(|_| says("one")));
    let said = canary("echo new > /tmp/index.html", &[]).ok();
    for part in ["gets 50 %", "gets 100 %", "its template becomes that of all", "has its 100 %"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(backends(), "one");
    assert!(get(&up, "deploy/one", "{.spec.template.spec.containers[0].command[2]}").contains("echo new"));
    until("what was made for the canary goes", 60, || !made());
    assert!((0..20).all(|_| says("new")));
    stop.store(true, Ordering::Relaxed);
    assert_eq!(calling.join().unwrap(), 0, "calls failed");
}
