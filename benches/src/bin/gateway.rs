//! Requests through the gateway beside requests through Debian's nginx: the same routes, the same backend, the same
//! client (`wrk`), each alone. Both add the same headers: who asked and how, and an id of the request. Runs as root in a
//! network namespace of its own, and needs `nginx` and `wrk`.
//!
//! Once more with a function's route, as gateways have it: what is below its path goes to `/`, requests wait in line where
//! its instance has ten already, and bodies and time have limits. nginx only rewrites the path.
//!
//! The backend is another nginx that answers a few bytes. All of it shares the machine, so that only the ratio between
//! the two says anything.

#![allow(clippy::print_stdout, reason = "a report")]

use anyhow::{Context, Result, bail};
use minik8s_benches::{Table, cpu_time, cpu_time_of, in_own_network, processors, progress, show};
use minik8s_core::network::{Endpoint, ServiceEntry, ServicePortEntry, ServiceTable};
use minik8s_core::routing::{
    Backend, Hold, Host, NewPath, Owner, PathRule, Plan, Rewrite, RouteSet, Rule, Speaks, Weighted,
};
use minik8s_net::gateway::{Gateway, GatewayConfig, GatewayMetrics, listener};
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BACKEND: u16 = 9000;
const NGINX: u16 = 9001;
const OURS: u16 = 9002;
/// Routes are spread over so many hosts.
const HOSTS: usize = 100;
/// Where a function is called.
const FUNCTION: &str = "/function/d/web";
const SECONDS: &str = "8";

fn main() -> Result<()> {
    in_own_network(measure)
}

fn measure() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let _backend = Nginx::start(dir.path(), "backend", BACKEND, &backend())?;
    let mut table = Table::new([
        "routes, connections",
        "ours/s",
        "nginx/s",
        "ratio",
        "ours p50",
        "nginx p50",
        "ours p99",
        "nginx p99",
        "ours CPU",
        "nginx CPU",
    ]);
    let direct = wrk(BACKEND, 256, &place(0))?;
    let plain = |routes: usize| {
        let locations: Vec<_> = (0..routes).map(|route| Location { place: place(route), to: "" }).collect();
        (routes.to_string(), rules(routes), locations, place(routes - 1))
    };
    let function = || {
        let (host, below) = (place(0).0, format!("{FUNCTION}/"));
        let location = Location { place: (host.clone(), below), to: "/" };
        ("a function".to_owned(), of_function(), vec![location], (host, format!("{FUNCTION}/hello")))
    };
    for (what, rules, locations, asked) in sizes().into_iter().map(plain).chain([function()]) {
        progress(&what);
        let ours = Ours::start(rules)?;
        let nginx = Nginx::start(dir.path(), "proxy", NGINX, &proxy(&locations))?;
        for connections in [1, 256] {
            let (a, cpu_a) = costing(cpu_time, || wrk(OURS, connections, &asked))?;
            let (b, cpu_b) = costing(|| nginx.cpu_time(), || wrk(NGINX, connections, &asked))?;
            let ratio = format!("{:.2}×", a.rate / b.rate);
            let rate = |found: &Found| format!("{:.0}", found.rate);
            let name = format!("{what}, {connections}");
            table.row([name, rate(&a), rate(&b), ratio, a.half, b.half, a.most, b.most, cpu_a, cpu_b]);
        }
        drop((ours, nginx));
    }
    table.print("Requests through the gateway and through nginx");
    println!("Without either, with 256 connections: {:.0}/s, p50 {}, p99 {}", direct.rate, direct.half, direct.most);
    Ok(())
}

/// Numbers of routes: those that are named, or all that the table is about.
fn sizes() -> Vec<usize> {
    let named: Vec<usize> = std::env::args().skip(1).filter_map(|size| size.parse().ok()).collect();
    if named.is_empty() { vec![1, 1_000, 10_000] } else { named }
}

/// What wrk found, and what a request cost in CPU, which says more than the rate where others use the machine.
fn costing(cpu: impl Fn() -> Duration, run: impl FnOnce() -> Result<Found>) -> Result<(Found, String)> {
    let before = cpu();
    let found = run()?;
    let each = (cpu() - before).as_secs_f64() / found.requests.max(1.0);
    Ok((found, show(Duration::from_secs_f64(each))))
}

/// The gateway in this process, on threads of its own.
struct Ours {
    _gateway: Gateway,
    _runtime: tokio::runtime::Runtime,
}

impl Ours {
    fn start(rules: RouteSet) -> Result<Self> {
        // Threads are made by this one, and so belong to its network namespace.
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let _inside = runtime.enter();
        let config =
            GatewayConfig { http_port: Some(OURS), https_port: None, lanes: processors(), ..GatewayConfig::default() };
        let gateway = Gateway::new(config, GatewayMetrics::default());
        gateway.set_services(services());
        let began = Instant::now();
        let broken = gateway.set_routes(Arc::new(rules));
        anyhow::ensure!(broken.is_empty(), "{broken:?}");
        progress(&format!("table made in {:.1?}", began.elapsed()));
        gateway.listen(listener(SocketAddr::from((Ipv4Addr::LOCALHOST, OURS)), 4096)?, OURS, false);
        drop(_inside);
        Ok(Self { _gateway: gateway, _runtime: runtime })
    }
}

fn services() -> Arc<ServiceTable> {
    let endpoints = vec![Endpoint::new(Ipv4Addr::LOCALHOST, BACKEND)];
    let ports = vec![ServicePortEntry { port: 80, endpoints, ..ServicePortEntry::default() }];
    let entry = ServiceEntry { namespace: "d".into(), name: "web".into(), ports, ..ServiceEntry::default() };
    Arc::new(ServiceTable { services: [(("d".into(), "web".into()), Arc::new(entry))].into() })
}

/// Host and path of a route.
fn place(route: usize) -> (String, String) {
    (format!("h{}.example", route % HOSTS), format!("/p{route}"))
}

/// Where all requests go.
fn web() -> Plan {
    let backend = Backend::Service { namespace: "d".into(), name: "web".into(), port: 80, speaks: Speaks::Http };
    let (request_headers, response_headers) = Default::default();
    Plan { backends: vec![Weighted { backend, weight: 1, request_headers, response_headers }], ..Plan::default() }
}

/// A function's route.
fn of_function() -> RouteSet {
    let limit = Duration::from_secs(60);
    let plan = Plan {
        rewrite: Rewrite { host: None, path: Some(NewPath::Prefix("/".into())) },
        timeout: Some(limit),
        try_timeout: Some(limit),
        max_body: Some(6 << 20),
        hold: Some(Hold { queue: 1000, patience: limit, concurrency: Some(10) }),
        ..web()
    };
    let owner = Owner { namespace: "d".into(), name: "web".into(), kind: "Bench", created: 0 };
    let rule = Rule { owner, path: PathRule::prefix(FUNCTION), plan: Arc::new(plan), ..Rule::default() };
    RouteSet { rules: vec![rule], ..RouteSet::default() }
}

fn rules(routes: usize) -> RouteSet {
    let rule = |route: usize| {
        let (host, path) = place(route);
        Rule {
            owner: Owner { namespace: "d".into(), name: format!("r{route}"), kind: "Bench", created: 0 },
            host: Host::Exact(host),
            path: PathRule::Prefix(path),
            plan: Arc::new(web()),
            ..Rule::default()
        }
    };
    RouteSet { rules: (0..routes).map(rule).collect(), ..RouteSet::default() }
}

fn backend() -> String {
    format!("server {{ listen 127.0.0.1:{BACKEND} backlog=4096; location / {{ return 200 'hello world\\n'; }} }}\n")
}

/// A route of nginx.
struct Location {
    /// Host and path.
    place: (String, String),
    /// What the backend sees instead of the path; nothing for the path itself.
    to: &'static str,
}

/// The same routes for nginx, with kept connections to the backend as one does it there.
fn proxy(locations: &[Location]) -> String {
    let mut text =
        format!("upstream web {{ server 127.0.0.1:{BACKEND}; keepalive 512; keepalive_requests 1000000; }}\n");
    let mut hosts = std::collections::BTreeMap::<&str, Vec<&Location>>::new();
    for location in locations {
        hosts.entry(&location.place.0).or_default().push(location);
    }
    for (number, (host, locations)) in hosts.into_iter().enumerate() {
        // Options of a socket are said once.
        let backlog = if number == 0 { " backlog=4096" } else { "" };
        let _ = writeln!(text, "server {{ listen 127.0.0.1:{NGINX}{backlog}; server_name {host};");
        for Location { place: (_, path), to } in locations {
            let headers = "proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; \
                           proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host; \
                           proxy_set_header X-Forwarded-Port $server_port; proxy_set_header X-Request-Id $request_id; \
                           add_header X-Request-Id $request_id;";
            let pass = "proxy_http_version 1.1; proxy_set_header Connection '';";
            let _ = writeln!(text, "  location {path} {{ {headers} {pass} proxy_pass http://web{to}; }}");
        }
        text.push_str("}\n");
    }
    text
}

/// A running nginx; ends with the value.
struct Nginx(Child);

impl Nginx {
    fn start(dir: &Path, name: &str, port: u16, servers: &str) -> Result<Self> {
        let dir = dir.join(format!("{name}-{}", servers.len()));
        std::fs::create_dir_all(&dir)?;
        let conf = dir.join("nginx.conf");
        let here = dir.display();
        std::fs::write(
            &conf,
            format!(
                "daemon off; master_process on; worker_processes auto; pid {here}/pid; error_log {here}/error.log;\n\
                 events {{ worker_connections 8192; }}\nhttp {{ access_log off; keepalive_requests 1000000; \
                 server_names_hash_max_size 65536; client_body_temp_path {here}/b; proxy_temp_path {here}/p;\n\
                 fastcgi_temp_path {here}/f; uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\n{servers}}}\n"
            ),
        )?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&dir).arg("-c").arg(&conf).stderr(Stdio::null());
        let nginx = Self(command.spawn().context("nginx, which scripts/setup.sh installs")?);
        let end = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if Instant::now() > end {
                bail!("nginx does not listen: {}", std::fs::read_to_string(dir.join("error.log")).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(nginx)
    }
}

impl Nginx {
    /// CPU that its workers have used.
    fn cpu_time(&self) -> Duration {
        let id = self.0.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|child| child.parse().ok()).map(cpu_time_of).sum()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

/// What wrk found.
struct Found {
    rate: f64,
    requests: f64,
    half: String,
    most: String,
}

fn wrk(port: u16, connections: usize, (host, path): &(String, String)) -> Result<Found> {
    let threads = connections.min(2).to_string();
    let output = Command::new("wrk")
        .args([
            "-t",
            &threads,
            "-c",
            &connections.to_string(),
            "-d",
            SECONDS,
            "--latency",
            "-H",
            &format!("Host: {host}"),
        ])
        .arg(format!("http://127.0.0.1:{port}{path}"))
        .output()
        .context("wrk, which scripts/setup.sh installs")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let after = |word: &str| {
        let line = text.lines().map(str::trim).find(|line| line.starts_with(word));
        line.and_then(|line| line.split_whitespace().last()).map(str::to_owned)
    };
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("not all requests were answered:\n{text}");
    }
    let rate = after("Requests/sec:").and_then(|rate| rate.parse().ok()).with_context(|| text.clone())?;
    let count = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    let requests = count.with_context(|| text.clone())?;
    Ok(Found { rate, requests, half: after("50%").unwrap_or_default(), most: after("99%").unwrap_or_default() })
}
