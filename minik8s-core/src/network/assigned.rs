//! A network that is made once somebody said which addresses this node's pods have.

use super::*;
use std::sync::OnceLock;

/// Makes a network from the range of the node's pods.
type Make = Box<dyn Fn(ipnet::IpNet) -> NetworkResult<SharedNetwork> + Send + Sync>;

/// A network whose range of addresses is somebody else's to give. Until the range is known, everything but taking nothing down is refused.
///
/// ```
/// use minik8s_core::network::{Assigned, NetworkError, NetworkPlugin, NoopNetwork, PodAttachment};
/// use std::sync::Arc;
///
/// # futures::executor::block_on(async {
/// let network = Assigned::new(|range| match range {
///     ipnet::IpNet::V4(range) => Ok(Arc::new(NoopNetwork::new(range))),
///     ipnet::IpNet::V6(_) => Err(NetworkError::Unsupported("ranges of IPv6 addresses")),
/// });
/// assert!(network.capabilities().assigned);
/// assert!(network.setup().await.is_err());
/// network.set_range("10.244.3.0/24".parse().unwrap()).await.unwrap();
/// network.setup().await.unwrap();
/// let pod = PodAttachment { id: "a".to_owned(), ..PodAttachment::default() };
/// assert!(network.attach(&pod).await.unwrap().ips[0].to_string().starts_with("10.244.3."));
/// # });
/// ```
pub struct Assigned {
    make: Make,
    made: OnceLock<(ipnet::IpNet, SharedNetwork)>,
}

impl Assigned {
    /// A network that `make` makes when its range is known.
    pub fn new(make: impl Fn(ipnet::IpNet) -> NetworkResult<SharedNetwork> + Send + Sync + 'static) -> Self {
        Self { make: Box::new(make), made: OnceLock::new() }
    }

    fn network(&self) -> NetworkResult<&SharedNetwork> {
        self.made.get().map(|(_, network)| network).ok_or(NetworkError::NoRange)
    }
}

#[async_trait]
impl NetworkPlugin for Assigned {
    fn capabilities(&self) -> NetworkCapabilities {
        let can = self.network().map(|network| network.capabilities()).unwrap_or_default();
        NetworkCapabilities { assigned: true, ..can }
    }

    fn dns(&self) -> DnsConfig {
        self.network().map(|network| network.dns()).unwrap_or_default()
    }

    async fn set_range(&self, range: ipnet::IpNet) -> NetworkResult<()> {
        if self.made.get().is_none() {
            let network = (self.make)(range)?;
            let _ = self.made.set((range, network));
        }
        match self.made.get() {
            Some((held, _)) if *held != range => Err(NetworkError::Taken {
                what: "range",
                name: held.to_string(),
                hint: format!("this node's pods use it, and the node's record now says {range}; restart the agent"),
            }),
            _ => Ok(()),
        }
    }

    async fn setup(&self) -> NetworkResult<()> {
        self.network()?.setup().await
    }

    async fn attach(&self, pod: &PodAttachment) -> NetworkResult<PodNetwork> {
        self.network()?.attach(pod).await
    }

    async fn detach(&self, id: &str) -> NetworkResult<()> {
        self.network()?.detach(id).await
    }

    async fn attachments(&self) -> NetworkResult<Vec<PodNetwork>> {
        self.network()?.attachments().await
    }

    async fn sync_services(&self, table: Arc<ServiceTable>) -> NetworkResult<()> {
        self.network()?.sync_services(table).await
    }

    async fn sync_peers(&self, peers: &[Peer]) -> NetworkResult<()> {
        self.network()?.sync_peers(peers).await
    }

    async fn teardown(&self) -> NetworkResult<()> {
        match self.network() {
            Ok(network) => network.teardown().await,
            Err(_) => Ok(()),
        }
    }
}
