//! Other name servers: asked for everything outside of the cluster.

use super::reply::{Transport, answers};
use hickory_proto::op::{Message, ResponseCode};
use parking_lot::Mutex;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// How long one server is waited for before the next is asked.
const PATIENCE: Duration = Duration::from_secs(2);

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The servers to ask: fixed, or those of the host as they are at the moment.
#[derive(Debug)]
pub(crate) struct Upstreams {
    fixed: Option<Vec<SocketAddr>>,
    /// The cluster's own server must not ask itself.
    own: IpAddr,
    host: Mutex<(Option<SystemTime>, Vec<SocketAddr>)>,
    /// The one that answered last is asked first.
    preferred: AtomicUsize,
}

impl Upstreams {
    pub(crate) fn new(fixed: Option<Vec<SocketAddr>>, own: IpAddr) -> Self {
        Self { fixed, own, host: Mutex::default(), preferred: AtomicUsize::new(0) }
    }

    fn servers(&self) -> Vec<SocketAddr> {
        if let Some(fixed) = &self.fixed {
            return fixed.clone();
        }
        let changed = std::fs::metadata(RESOLV_CONF).and_then(|m| m.modified()).ok();
        let mut host = self.host.lock();
        if host.0 != changed || host.0.is_none() {
            let text = std::fs::read_to_string(Path::new(RESOLV_CONF)).unwrap_or_default();
            *host = (changed, parse(&text, self.own));
        }
        host.1.clone()
    }

    /// The first good answer of any server, else the first answer at all, else nothing.
    pub(super) async fn ask(&self, question: &Message, transport: Transport) -> Option<(Message, Vec<u8>)> {
        let servers = self.servers();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut fallback = None;
        for turn in 0..servers.len() {
            let index = (first + turn) % servers.len();
            let Ok(found) = tokio::time::timeout(PATIENCE, exchange(servers[index], question, transport)).await else {
                continue;
            };
            match found {
                Ok((answer, bytes)) if is_final(answer.metadata.response_code) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Some((answer, bytes));
                }
                Ok(found) => fallback = fallback.or(Some(found)),
                Err(error) => tracing::debug!(server = %servers[index], %error, "name server does not answer"),
            }
        }
        fallback
    }
}

/// Another server might know better about anything else.
fn is_final(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

/// Asks one server under a fresh number from a fresh port.
async fn exchange(server: SocketAddr, question: &Message, transport: Transport) -> io::Result<(Message, Vec<u8>)> {
    let mut asked = question.clone();
    asked.metadata.id = rand::random();
    let bytes = asked.to_vec().map_err(io::Error::other)?;
    let (answer, mut bytes) = match transport {
        Transport::Udp => by_udp(server, &asked, &bytes).await?,
        Transport::Tcp => by_tcp(server, &asked, &bytes).await?,
    };
    bytes[..2].copy_from_slice(&question.metadata.id.to_be_bytes());
    Ok((answer, bytes))
}

async fn by_udp(server: SocketAddr, question: &Message, bytes: &[u8]) -> io::Result<(Message, Vec<u8>)> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Anything else is a forgery, or late.
        if let Some(answer) = answers(question, question.metadata.id, &buffer[..length]) {
            buffer.truncate(length);
            return Ok((answer, buffer));
        }
    }
}

async fn by_tcp(server: SocketAddr, question: &Message, bytes: &[u8]) -> io::Result<(Message, Vec<u8>)> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    let answer = answers(question, question.metadata.id, &buffer);
    answer.map(|answer| (answer, buffer)).ok_or_else(|| io::Error::other("an answer to another question"))
}

/// The servers of a resolv.conf.
fn parse(text: &str, own: IpAddr) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        address.split('%').next()?.parse::<IpAddr>().ok()
    });
    servers.filter(|ip| *ip != own).map(|ip| SocketAddr::new(ip, 53)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_the_host_without_our_own() {
        let text = "# comment\nsearch example.org\nnameserver 10.244.0.1\nnameserver 192.0.2.53 \n\
                    nameserver fe80::1%eth0\nnameserver\nnameserver nonsense\noptions ndots:5\n";
        let found = parse(text, Ipv4Addr::new(10, 244, 0, 1).into());
        assert_eq!(found, ["192.0.2.53:53".parse().unwrap(), "[fe80::1]:53".parse().unwrap()]);
    }
}
