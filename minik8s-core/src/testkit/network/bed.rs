//! What a suite needs of the machine under a network.

use crate::network::{HostPort, PodAttachment, PodNetwork, Protocol, SharedNetwork};
use async_trait::async_trait;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where something runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The node itself.
    Host,
    /// A pod's namespace.
    Pod(PathBuf),
    /// Another machine on the node's outer network.
    Outside,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What the server said, and the address it saw the question come from.
    Said(String, IpAddr),
    /// Somebody said no.
    Refused,
    /// Nobody said anything.
    Silence,
}

impl Answer {
    /// The words of the answer, where there was one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Answer::Said(text, _) => Some(text),
            _ => None,
        }
    }
}

/// A server that runs until it is dropped.
pub type Server = Box<dyn std::any::Any + Send>;

/// A machine for one case: nothing on it but the network under test.
#[async_trait]
pub trait Bed: Send + Sync {
    /// The network under test. Its pod range is 10.77.0.0/24, its service range 10.78.0.0/16, its node `here`.
    fn network(&self) -> SharedNetwork;

    /// The same after the process was killed: nothing was torn down, nothing is in memory.
    async fn reopen(&self) -> SharedNetwork;

    /// A network like it, with a pod range of six addresses and a state of its own. For networks that cannot share a
    /// machine, the first one is torn down before.
    async fn small(&self) -> SharedNetwork;

    /// A fresh, empty place for a pod.
    async fn place(&self) -> PathBuf;

    /// Takes a pod's place away, as a crash of the machine's runtime would.
    async fn remove_place(&self, place: &Path);

    /// Serves at a port: answers each question with `words`.
    async fn serve(&self, at: &Place, protocol: Protocol, port: u16, words: &str) -> Server;

    /// Asks, from a fresh port unless one is given.
    async fn ask(&self, from: &Place, protocol: Protocol, to: SocketAddr, port: Option<u16>) -> Answer;

    /// Asks the name server of the network for the addresses of a name, as a pod would.
    async fn resolve(&self, from: &Place, name: &str) -> Vec<IpAddr>;

    /// The node's own address on the outer network.
    fn node_address(&self) -> Ipv4Addr;

    /// Damages what the network made: removes its rules, behind its back.
    async fn flush_rules(&self);

    /// Damages what the network made: removes shared links.
    async fn remove_links(&self);

    /// Puts things of somebody else beside the network's own. They are checked by [`Bed::leftovers`].
    async fn add_foreign(&self);

    /// What the machine has that it did not have at first, and what it lacks.
    async fn leftovers(&self) -> Vec<String>;
}

/// A pod at a place.
#[derive(Clone, Debug)]
pub(super) struct TestPod {
    pub(super) request: PodAttachment,
    pub(super) network: PodNetwork,
    pub(super) place: Place,
}

impl TestPod {
    pub(super) fn ip(&self) -> IpAddr {
        self.network.ips[0]
    }

    pub(super) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(), port)
    }
}

/// Attaches a fresh pod.
pub(super) async fn pod(bed: &dyn Bed, id: &str) -> TestPod {
    pod_with(bed, id, Vec::new()).await
}

/// Attaches a fresh pod that wants ports of the host.
pub(super) async fn pod_with(bed: &dyn Bed, id: &str, host_ports: Vec<HostPort>) -> TestPod {
    let netns = bed.place().await;
    let request = request(id, netns.clone(), host_ports);
    let network = bed.network().attach(&request).await.expect("attach");
    TestPod { request, network, place: Place::Pod(netns) }
}

/// What an agent would ask for.
pub(super) fn request(id: &str, netns: PathBuf, host_ports: Vec<HostPort>) -> PodAttachment {
    PodAttachment { id: id.to_owned(), namespace: "default".to_owned(), name: id.to_owned(), netns, host_ports }
}
