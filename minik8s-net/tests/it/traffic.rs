//! Small servers and clients inside of namespaces.

use minik8s_core::network::Protocol;
use minik8s_core::testkit::inside::NetNamespace;
use minik8s_core::testkit::network::{Answer, Server};

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::task::JoinHandle;

/// Longer than anything that answers takes, where the kernel has to send a first packet three times; what stays silent this
/// long counts as silent.
const PATIENCE: Duration = Duration::from_secs(5);

struct Stop(JoinHandle<()>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answers with `words` and with the address that the question seems to come from.
pub(crate) async fn serve(at: NetNamespace, protocol: Protocol, port: u16, words: &str) -> Server {
    let words = words.to_owned();
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let task = match protocol {
        Protocol::Udp => {
            let socket = at.run(move || udp(address)).await.unwrap();
            tokio::spawn(serve_udp(socket, words))
        }
        _ => {
            let listener = at.run(move || {
                let socket = TcpSocket::new_v4()?;
                socket.set_reuseaddr(true)?;
                socket.bind(address)?;
                socket.listen(64)
            });
            tokio::spawn(serve_tcp(listener.await.unwrap(), words))
        }
    };
    Box::new(Stop(task))
}

async fn serve_tcp(listener: TcpListener, words: String) {
    while let Ok((mut stream, peer)) = listener.accept().await {
        let _ = stream.write_all(format!("{words}|{}", peer.ip()).as_bytes()).await;
    }
}

async fn serve_udp(socket: UdpSocket, words: String) {
    let mut buffer = [0; 512];
    while let Ok((_, peer)) = socket.recv_from(&mut buffer).await {
        let _ = socket.send_to(format!("{words}|{}", peer.ip()).as_bytes(), peer).await;
    }
}

pub(crate) async fn ask(from: NetNamespace, protocol: Protocol, to: SocketAddr, port: Option<u16>) -> Answer {
    let exchange = async {
        match protocol {
            Protocol::Udp => ask_udp(&from, to, port.unwrap_or(0)).await,
            _ => ask_tcp(&from, to, port.unwrap_or(0)).await,
        }
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Ok(text)) => match text.split_once('|') {
            Some((words, peer)) => Answer::Said(words.to_owned(), peer.parse().unwrap()),
            None => Answer::Silence,
        },
        // The latter is what a sender on the host itself gets for a datagram that is refused.
        Ok(Err(error)) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::PermissionDenied) => {
            Answer::Refused
        }
        Ok(Err(error)) => panic!("asking {to}: {error}"),
        Err(_) => Answer::Silence,
    }
}

async fn ask_tcp(from: &NetNamespace, to: SocketAddr, port: u16) -> io::Result<String> {
    let socket = from.run(move || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
        Ok::<_, io::Error>(socket)
    });
    let mut stream = socket.await?.connect(to).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

async fn ask_udp(from: &NetNamespace, to: SocketAddr, port: u16) -> io::Result<String> {
    let socket = from.run(move || udp((Ipv4Addr::UNSPECIFIED, port).into())).await?;
    socket.connect(to).await?;
    socket.send(b"?").await?;
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).await?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

pub(crate) fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}
