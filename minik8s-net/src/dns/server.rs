//! Listening for questions, by UDP and TCP at one address.

use super::reply::{Next, Transport, failure, follow, handle};
use super::{Upstreams, Zone};
use arc_swap::ArcSwap;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::Name;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Questions passed on at the same time.
const IN_FLIGHT: usize = 512;
/// Connections at the same time, of everybody and of one address, and how long one may say or take nothing.
const CONNECTIONS: usize = 512;
const EACH: usize = 32;
const IDLE: Duration = Duration::from_secs(10);

/// What a server knows: the zone of the moment, and whom else to ask.
#[derive(Debug)]
pub(crate) struct Names {
    zone: ArcSwap<Zone>,
    upstreams: Upstreams,
    in_flight: Semaphore,
}

impl Names {
    pub(crate) fn new(zone: Zone, upstreams: Upstreams) -> Self {
        Self { zone: ArcSwap::from_pointee(zone), upstreams, in_flight: Semaphore::new(IN_FLIGHT) }
    }

    pub(crate) fn zone(&self) -> Arc<Zone> {
        self.zone.load_full()
    }

    pub(crate) fn swap(&self, zone: Zone) {
        self.zone.store(Arc::new(zone));
    }

    /// The answer, where other servers have to be asked for it.
    async fn ask_others(&self, question: &Message, target: Option<&Name>, transport: Transport) -> Vec<u8> {
        let Ok(_permit) = self.in_flight.try_acquire() else {
            return failure(question, ResponseCode::ServFail, transport);
        };
        let Some(target) = target else {
            let found = self.upstreams.ask(question, transport).await;
            return found.map_or_else(|| failure(question, ResponseCode::ServFail, transport), |(_, bytes)| bytes);
        };
        let mut about = question.clone();
        let kinds = question.queries.iter().map(|query| Query::query(target.clone(), query.query_type()));
        about.queries = kinds.collect();
        let found = self.upstreams.ask(&about, transport).await;
        follow(question, target, found.map(|(answer, _)| answer), transport)
    }
}

/// A running server; dropping it stops it.
#[derive(Debug)]
pub(crate) struct DnsServer {
    address: SocketAddr,
    _stop: DropGuard,
}

impl DnsServer {
    /// Listens at `address`; port 0 lets the kernel choose one.
    pub(crate) async fn start(address: SocketAddr, names: Arc<Names>) -> io::Result<Self> {
        let udp = UdpSocket::bind(address).await?;
        let address = udp.local_addr()?;
        let tcp = TcpListener::bind(address).await?;
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(serve_udp(Arc::new(udp), names.clone(), stop.clone())));
        tokio::spawn(stop.clone().run_until_cancelled_owned(serve_tcp(tcp, names, stop.clone())));
        Ok(Self { address, _stop: stop.drop_guard() })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, names: Arc<Names>, stop: CancellationToken) {
    let mut buffer = vec![0; 65_535];
    loop {
        // Errors of earlier answers surface here; they say nothing about the next question.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let (question, target) = match handle(&names.zone.load(), peer.ip(), &buffer[..length], Transport::Udp) {
            Next::Ignore => continue,
            Next::Answer(bytes) => {
                let _ = socket.send_to(&bytes, peer).await;
                continue;
            }
            Next::Forward(question) => (question, None),
            Next::Follow(question, target) => (question, Some(target)),
        };
        let (socket, names) = (socket.clone(), names.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            let bytes = names.ask_others(&question, target.as_ref(), Transport::Udp).await;
            let _ = socket.send_to(&bytes, peer).await;
        }));
    }
}

/// Connections by the address that made them.
type Askers = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// A connection's place among those of its address.
struct Seat(Askers, IpAddr);

impl Seat {
    /// `None` where the address has as many as it may.
    fn take(askers: &Askers, peer: IpAddr) -> Option<Self> {
        let mut all = askers.lock();
        let count = all.entry(peer).or_default();
        (*count < EACH).then(|| {
            *count += 1;
            Self(askers.clone(), peer)
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.0.lock().entry(self.1) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

async fn serve_tcp(listener: TcpListener, names: Arc<Names>, stop: CancellationToken) {
    let (room, askers) = (Arc::new(Semaphore::new(CONNECTIONS)), Askers::default());
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Who takes all places takes them from everybody.
                let Some(seat) = Seat::take(&askers, peer.ip()) else { continue };
                let names = names.clone();
                tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
                    let _place = (permit, seat);
                    let _ = converse(stream, peer.ip(), &names).await;
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "name server cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Answers the questions of one connection, one after another.
async fn converse(mut stream: TcpStream, peer: IpAddr, names: &Names) -> io::Result<()> {
    loop {
        let read = async {
            let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut bytes).await?;
            Ok::<_, io::Error>(bytes)
        };
        let question = tokio::time::timeout(IDLE, read).await.map_err(io::Error::other)??;
        let zone = names.zone();
        let answer = match handle(&zone, peer, &question, Transport::Tcp) {
            Next::Ignore => return Ok(()),
            Next::Answer(bytes) => bytes,
            Next::Forward(question) => names.ask_others(&question, None, Transport::Tcp).await,
            Next::Follow(question, target) => names.ask_others(&question, Some(&target), Transport::Tcp).await,
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let told = [&length.to_be_bytes(), &answer[..]].concat();
        tokio::time::timeout(IDLE, stream.write_all(&told)).await.map_err(io::Error::other)??;
    }
}
