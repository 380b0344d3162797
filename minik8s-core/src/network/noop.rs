//! A network without packets: it hands out addresses, keeps what it is given, and touches nothing of the machine.

use super::pool::AddressPool;
use super::*;
use ipnet::Ipv4Net;
use parking_lot::Mutex;

/// Addresses and records only; needs no privilege. Pods share the host's network in effect.
#[derive(Debug)]
pub struct NoopNetwork {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pool: AddressPool,
    attached: BTreeMap<String, PodNetwork>,
    services: Arc<ServiceTable>,
    peers: Vec<Peer>,
}

impl NoopNetwork {
    /// A network that hands out the addresses of `range`.
    pub fn new(range: Ipv4Net) -> Self {
        Self {
            state: Mutex::new(State {
                pool: AddressPool::new(range),
                attached: BTreeMap::new(),
                services: Arc::default(),
                peers: Vec::new(),
            }),
        }
    }

    /// The table it was given last.
    pub fn services(&self) -> Arc<ServiceTable> {
        self.state.lock().services.clone()
    }

    /// The peers it was given last.
    pub fn peers(&self) -> Vec<Peer> {
        self.state.lock().peers.clone()
    }
}

#[async_trait]
impl NetworkPlugin for NoopNetwork {
    fn capabilities(&self) -> NetworkCapabilities {
        NetworkCapabilities { overlay: true, ..NetworkCapabilities::default() }
    }

    fn dns(&self) -> DnsConfig {
        DnsConfig { servers: Vec::new(), domain: "cluster.local".to_owned() }
    }

    async fn setup(&self) -> NetworkResult<()> {
        Ok(())
    }

    async fn attach(&self, pod: &PodAttachment) -> NetworkResult<PodNetwork> {
        let mut state = self.state.lock();
        if let Some(known) = state.attached.get(&pod.id) {
            return Ok(known.clone());
        }
        let ip = state.pool.allocate(&pod.id)?;
        let network = PodNetwork { id: pod.id.clone(), ips: vec![IpAddr::V4(ip)] };
        state.attached.insert(pod.id.clone(), network.clone());
        Ok(network)
    }

    async fn detach(&self, id: &str) -> NetworkResult<()> {
        let mut state = self.state.lock();
        for ip in state.attached.remove(id).into_iter().flat_map(|known| known.ips) {
            if let IpAddr::V4(ip) = ip {
                state.pool.release(ip);
            }
        }
        Ok(())
    }

    async fn attachments(&self) -> NetworkResult<Vec<PodNetwork>> {
        Ok(self.state.lock().attached.values().cloned().collect())
    }

    async fn sync_services(&self, table: Arc<ServiceTable>) -> NetworkResult<()> {
        self.state.lock().services = table;
        Ok(())
    }

    async fn sync_peers(&self, peers: &[Peer]) -> NetworkResult<()> {
        self.state.lock().peers = peers.to_vec();
        Ok(())
    }

    async fn teardown(&self) -> NetworkResult<()> {
        let mut state = self.state.lock();
        *state = State {
            pool: AddressPool::new(state.pool.range()),
            attached: BTreeMap::new(),
            services: Arc::default(),
            peers: Vec::new(),
        };
        Ok(())
    }
}
