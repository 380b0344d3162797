//! The gateway as its user sees it: what it is told, and the ports it listens at.

use super::backend::{Cluster, Clusters};
use super::lanes::Lanes;
use super::metrics::GatewayMetrics;
use super::serve;
use super::sockets::Sockets;
use super::table::{RoutingTable, UsualPorts};
use super::tls::{Certificates, TlsSecret};
use arc_swap::ArcSwap;
use minik8s_core::api::BackendDemand;
use minik8s_core::network::ServiceTable;
use minik8s_core::routing::{RouteSet, Tally};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often connections that nobody uses are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// Copies of requests under way at the same time; more are not made.
const COPIES: usize = 256;
/// How often [`GatewayConfig::drain`] may pass before connections are cut that still come to their end one by one.
const LONGEST_DRAIN: u32 = 6;

/// What a gateway is told once. The defaults suit a machine that the world reaches.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The port of routes that name none, without TLS.
    pub http_port: Option<u16>,
    /// The same, with TLS.
    pub https_port: Option<u16>,
    /// Connections of clients at the same time; more wait to be accepted.
    pub max_connections: usize,
    /// How long the head of a request may take, and a client may be silent between requests.
    pub head_patience: Duration,
    /// How long nothing may come of a request's body.
    pub body_patience: Duration,
    /// How long an endpoint may take to begin its answer, where the route says nothing.
    pub answer_patience: Duration,
    /// How long nothing may pass on a connection that was upgraded, a WebSocket for instance.
    pub tunnel_patience: Duration,
    /// Largest body of requests, where the route says nothing; `None` for any.
    pub max_body: Option<u64>,
    /// Most bytes of a request's head, and most headers.
    pub max_head: usize,
    /// See `max_head`.
    pub max_headers: usize,
    /// How long a connection to an endpoint is kept that nobody uses.
    pub keep_idle: Duration,
    /// How long it may take, when the gateway ends, until another connection has come to its end; those that are left
    /// then are cut, and all after six times as long.
    pub drain: Duration,
    /// Each request is logged, under the target `minik8s::access`.
    pub access_log: bool,
    /// Threads that serve connections, each with a runtime of its own; 0 to serve them in the runtime that the gateway is
    /// made in. Worth having where the gateway is busy: as many as it may use processors.
    pub lanes: usize,
    /// Where listening sockets come from and stay, for a successor.
    pub sockets: Option<Sockets>,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            http_port: Some(80),
            https_port: Some(443),
            max_connections: 16_384,
            head_patience: Duration::from_secs(30),
            body_patience: Duration::from_secs(60),
            answer_patience: Duration::from_secs(60),
            tunnel_patience: Duration::from_secs(3600),
            max_body: None,
            max_head: 64 * 1024,
            max_headers: 128,
            keep_idle: Duration::from_secs(60),
            drain: Duration::from_secs(10),
            access_log: false,
            lanes: 0,
            sockets: None,
        }
    }
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) config: GatewayConfig,
    pub(super) table: ArcSwap<RoutingTable>,
    pub(super) certificates: Arc<ArcSwap<Certificates>>,
    pub(super) metrics: GatewayMetrics,
    pub(super) connections: Arc<Semaphore>,
    pub(super) copies: Arc<Semaphore>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    /// Answers ask clients to come again elsewhere.
    pub(super) ending: AtomicBool,
}

impl Shared {
    /// An endpoint could not be reached.
    pub(super) fn note_failure(&self, cluster: &Cluster, address: SocketAddr) {
        if cluster.find(|a| a == address).is_some_and(|endpoint| endpoint.failed()) {
            self.metrics.ejections.inc();
            tracing::debug!(service = cluster.name(), %address, "an endpoint is left out for a while");
        }
    }
}

/// Routes, and Secrets by namespace and name.
type Told = (Arc<RouteSet>, Arc<HashMap<(String, String), TlsSecret>>);

/// A port that is open: what ends it, and whether it speaks TLS.
type Listening = (CancellationToken, Arc<AtomicBool>);

/// A running gateway. Dropping it cuts everything; [`Gateway::shutdown`] lets requests end.
pub struct Gateway {
    shared: Arc<Shared>,
    usual: UsualPorts,
    clusters: Arc<Mutex<Clusters>>,
    /// Begun when it listens first.
    lanes: OnceLock<Arc<Lanes>>,
    /// What it was told last, to make one of the other.
    told: Mutex<Told>,
    /// By the port that routes know.
    listening: Mutex<BTreeMap<u16, Listening>>,
    _stop: tokio_util::sync::DropGuard,
}

impl Gateway {
    /// A gateway that listens nowhere and knows no route. Must be called within a Tokio runtime.
    pub fn new(config: GatewayConfig, metrics: GatewayMetrics) -> Self {
        let usual = UsualPorts { http: config.http_port, https: config.https_port };
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            connections: Arc::new(Semaphore::new(config.max_connections)),
            copies: Arc::new(Semaphore::new(COPIES)),
            table: ArcSwap::default(),
            certificates: Arc::default(),
            metrics,
            tasks: TaskTracker::new(),
            stop: stop.clone(),
            ending: AtomicBool::new(false),
            config,
        });
        let clusters = Arc::new(Mutex::new(Clusters::default()));
        tokio::spawn(stop.clone().run_until_cancelled_owned(sweep(clusters.clone(), shared.config.keep_idle)));
        let (told, listening, lanes) = (Mutex::default(), Mutex::default(), OnceLock::new());
        Self { shared, usual, clusters, lanes, told, listening, _stop: stop.drop_guard() }
    }

    /// Follows these routes from now on. Returns what of them cannot be followed.
    pub fn set_routes(&self, routes: Arc<RouteSet>) -> Vec<String> {
        let mut told = self.told.lock();
        let mut clusters = self.clusters.lock();
        let table = RoutingTable::compile(&routes, self.usual, &mut clusters, &self.shared.metrics);
        let mut broken = table.broken().to_vec();
        self.shared.table.store(Arc::new(table));
        // Those of the table before, which nobody needs now.
        clusters.forget_unused();
        self.shared.metrics.forget_unused();
        told.0 = routes;
        broken.extend(self.renew_certificates(&told));
        broken
    }

    /// Goes to these endpoints from now on.
    pub fn set_services(&self, services: Arc<ServiceTable>) {
        self.clusters.lock().follow(services);
    }

    /// Shows these certificates from now on, by namespace and name. Returns which of those that routes name are no good.
    pub fn set_secrets(&self, secrets: Arc<HashMap<(String, String), TlsSecret>>) -> Vec<String> {
        let mut told = self.told.lock();
        told.1 = secrets;
        self.renew_certificates(&told)
    }

    fn renew_certificates(&self, told: &Told) -> Vec<String> {
        let (made, broken) = Certificates::new(&told.0.certificates, &told.1, self.usual);
        self.shared.certificates.store(Arc::new(made));
        broken
    }

    /// Accepts connections of a listener. `port` is what routes call it, which the kernel's may differ from.
    pub fn listen(&self, listener: TcpListener, port: u16, tls: bool) {
        let (stop, tls) = (self.shared.stop.child_token(), Arc::new(AtomicBool::new(tls)));
        if let Some((before, _)) = self.listening.lock().insert(port, (stop.clone(), tls.clone())) {
            before.cancel();
        }
        let lanes = self.lanes.get_or_init(|| Arc::new(Lanes::start(self.shared.config.lanes))).clone();
        self.shared.tasks.spawn(serve::accept(self.shared.clone(), lanes, listener, (port, tls), stop));
    }

    /// Opens a port and listens there. At one that is open already, connections speak TLS or not from now on.
    ///
    /// # Errors
    /// Where the port is taken, or not this process's to open.
    pub fn open(&self, address: SocketAddr, tls: bool) -> io::Result<()> {
        let known = self.listening.lock().get(&address.port()).map(|(_, speaks)| speaks.clone());
        match known {
            Some(speaks) => speaks.store(tls, Ordering::Relaxed),
            None => self.listen(self.bind(address)?, address.port(), tls),
        }
        Ok(())
    }

    fn bind(&self, address: SocketAddr) -> io::Result<TcpListener> {
        match &self.shared.config.sockets {
            Some(sockets) => sockets.listen(address, serve::BACKLOG),
            None => serve::listener(address, serve::BACKLOG),
        }
    }

    /// Stops to listen at ports that are not among these; requests that came in there end in peace.
    pub fn keep_ports(&self, keep: impl Fn(u16) -> bool) {
        self.listening.lock().retain(|port, (stop, _)| {
            let keep = keep(*port);
            if !keep {
                stop.cancel();
                self.shared.config.sockets.iter().for_each(|sockets| sockets.close(*port));
            }
            keep
        });
    }

    /// The ports it listens at.
    pub fn ports(&self) -> Vec<u16> {
        self.listening.lock().keys().copied().collect()
    }

    /// What was counted of the backends of an `HTTPRoute`, by `namespace/name` of the Service.
    pub fn tally(&self, route: &minik8s_core::routing::Key) -> BTreeMap<String, Tally> {
        self.shared.metrics.tally(route)
    }

    /// What was asked of backends for which requests may wait, since the last time; `None` where there is nothing to
    /// tell.
    pub fn demand(&self) -> Option<Vec<BackendDemand>> {
        self.clusters.lock().demand()
    }

    /// Ends when the cluster should be told at once of what is asked: a request waits for a backend without endpoints, or is
    /// the first after a while.
    pub async fn wanted(&self) {
        let wanted = self.clusters.lock().wanted();
        wanted.notified().await;
    }

    /// Stops to accept, asks clients to go, and waits for requests to end: as long as some do within
    /// [`GatewayConfig::drain`], and six times that at most.
    pub async fn shutdown(&self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        self.shared.stop.cancel();
        self.listening.lock().clear();
        self.shared.tasks.close();
        if !ended(&self.shared.tasks, self.shared.config.drain).await {
            tracing::warn!(connections = self.shared.tasks.len(), "connections of the gateway are cut");
        }
    }
}

/// Waits until all tasks have ended, as long as some do; false where it was given up.
async fn ended(tasks: &TaskTracker, patience: Duration) -> bool {
    for _ in 0..LONGEST_DRAIN {
        let before = tasks.len();
        if tokio::time::timeout(patience, tasks.wait()).await.is_ok() {
            return true;
        }
        if tasks.len() >= before {
            break;
        }
    }
    false
}

async fn sweep(clusters: Arc<Mutex<Clusters>>, idle: Duration) {
    loop {
        tokio::time::sleep(SWEEP).await;
        clusters.lock().sweep(idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep};

    #[tokio::test(start_paused = true)]
    async fn who_ends_one_by_one_is_waited_for_and_who_does_not_is_not() {
        // Seconds after which tasks end; whether all did, and when it was over.
        let cases: [(&[u64], bool, u64); 5] = [
            (&[], true, 0),
            (&[3], true, 3),
            (&[8, 16, 24, 32], true, 32),
            (&[1, 2, 500], false, 20),
            (&[5, 15, 25, 35, 45, 55, 65], false, 60),
        ];
        for (ends, all, over) in cases {
            let (tasks, began) = (TaskTracker::new(), Instant::now());
            ends.iter().for_each(|&end| drop(tasks.spawn(sleep(Duration::from_secs(end)))));
            tasks.close();
            assert_eq!(
                (ended(&tasks, Duration::from_secs(10)).await, began.elapsed().as_secs()),
                (all, over),
                "{ends:?}"
            );
        }
    }
}
