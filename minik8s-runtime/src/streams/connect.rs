//! Connections to ports of a pod's loopback: the socket is made inside of the pod's network namespace and stays there,
//! whoever uses it from outside.

use crate::runtime::Inner;
use minik8s_core::runtime::{Connection, RuntimeError, RuntimeResult};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

/// In the order in which they are tried.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

impl Inner {
    pub(crate) async fn connect(self: &Arc<Self>, sandbox: &str, port: u16) -> RuntimeResult<Connection> {
        let id = sandbox.to_owned();
        let missing = RuntimeError::NotFound { what: "sandbox", name: id.clone() };
        let info = self.blocking(move |this| this.sandboxes.load(&id)).await?.ok_or(missing)?;
        let mut causes = Vec::new();
        for address in LOOPBACK {
            match dial(info.netns.as_deref(), SocketAddr::new(address, port)).await {
                Ok(stream) => return Ok(Box::new(stream)),
                Err(e) => causes.push(format!("{address}: {e}")),
            }
        }
        Err(RuntimeError::Refused { sandbox: sandbox.to_owned(), port, cause: causes.join(", ") })
    }
}

async fn dial(namespace: Option<&Path>, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = match namespace {
        Some(path) => socket_inside(File::open(path)?, to).await?,
        None => socket_for(to)?,
    };
    let stream = socket.connect(to).await?;
    // What is forwarded is somebody's interactive session as often as not.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn socket_for(to: SocketAddr) -> io::Result<TcpSocket> {
    if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

/// A socket of that namespace, from a thread that enters it, makes the socket and ends.
async fn socket_inside(namespace: File, to: SocketAddr) -> io::Result<TcpSocket> {
    let (done, made) = oneshot::channel();
    std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
        let entered = setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        let _ = done.send(entered.and_then(|()| socket_for(to)));
    })?;
    made.await.map_err(|_| io::Error::other("the thread inside of the namespace panicked"))?
}
