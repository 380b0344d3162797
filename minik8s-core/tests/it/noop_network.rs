//! The network without packets keeps the promises that need none.

use async_trait::async_trait;
use minik8s_core::network::{NoopNetwork, Protocol, SharedNetwork};
use minik8s_core::testkit::network::{self, Answer, Bed, Place, Server};
use minik8s_core::testkit::suite;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const BOUND: Duration = Duration::from_secs(60);

struct Nowhere(SharedNetwork);

#[async_trait]
impl Bed for Nowhere {
    fn network(&self) -> SharedNetwork {
        self.0.clone()
    }

    async fn reopen(&self) -> SharedNetwork {
        Arc::new(NoopNetwork::new("10.77.0.0/24".parse().unwrap()))
    }

    async fn small(&self) -> SharedNetwork {
        Arc::new(NoopNetwork::new("10.77.0.0/29".parse().unwrap()))
    }

    async fn place(&self) -> PathBuf {
        PathBuf::from("/nowhere")
    }

    async fn remove_place(&self, _place: &Path) {}

    async fn serve(&self, _at: &Place, _protocol: Protocol, _port: u16, _words: &str) -> Server {
        Box::new(())
    }

    async fn ask(&self, _from: &Place, _protocol: Protocol, _to: SocketAddr, _port: Option<u16>) -> Answer {
        Answer::Silence
    }

    async fn resolve(&self, _from: &Place, _name: &str) -> Vec<IpAddr> {
        Vec::new()
    }

    fn node_address(&self) -> Ipv4Addr {
        Ipv4Addr::LOCALHOST
    }

    async fn flush_rules(&self) {}

    async fn remove_links(&self) {}

    async fn add_foreign(&self) {}

    async fn leftovers(&self) -> Vec<String> {
        Vec::new()
    }
}

#[tokio::test]
async fn noop_keeps_the_promises_that_need_no_packets() {
    let ran = AtomicUsize::new(0);
    suite::run("network", network::CASES, BOUND, |case| async {
        let bed = Nowhere(Arc::new(NoopNetwork::new("10.77.0.0/24".parse().unwrap())));
        ran.fetch_add(usize::from(network::applies(case, &bed)), Ordering::Relaxed);
        network::run(case, &bed).await;
    })
    .await;
    assert!(ran.into_inner() >= 10, "hardly any case applied");
}
