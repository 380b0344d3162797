//! Listening sockets that outlive the gateway: a second handle of each is kept, so that clients who connect while one
//! process ends and the next begins wait in the kernel's queue instead of being refused.

use super::serve::listener;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use tokio::net::TcpListener;

/// Listening sockets by address: those of the process before, and those that are open now. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Sockets(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    open: BTreeMap<SocketAddr, OwnedFd>,
    inherited: Vec<std::net::TcpListener>,
}

impl Sockets {
    /// With those that were handed over.
    pub fn inherited(listeners: Vec<std::net::TcpListener>) -> Self {
        Self(Arc::new(Mutex::new(Kept { open: BTreeMap::new(), inherited: listeners })))
    }

    /// The listener that was handed over for this address, or a new one with room for that many connections that wait.
    ///
    /// # Errors
    /// Where the port is taken, or not this process's to open.
    pub fn listen(&self, address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
        let mut kept = self.0.lock();
        let found = kept.inherited.iter().position(|known| known.local_addr().is_ok_and(|at| at == address));
        let listener = match found {
            Some(at) => {
                let known = kept.inherited.swap_remove(at);
                known.set_nonblocking(true)?;
                TcpListener::from_std(known)?
            }
            None => listener(address, backlog)?,
        };
        kept.open.insert(listener.local_addr()?, listener.as_fd().try_clone_to_owned()?);
        Ok(listener)
    }

    /// Nobody listens at this port any more: clients are to be told so.
    pub(super) fn close(&self, port: u16) {
        self.0.lock().open.retain(|address, _| address.port() != port);
    }

    /// Closes what was handed over and nobody asked for.
    pub(super) fn settle(&self) {
        self.0.lock().inherited.clear();
    }

    /// All that is open, for a successor.
    pub fn hand_over(&self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.0.lock().open).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn who_connects_between_two_processes_is_served_by_the_second() {
        let first = Sockets::default();
        let listener = first.listen("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let (address, other) =
            (listener.local_addr().unwrap(), first.listen("127.0.0.1:0".parse().unwrap(), 16).unwrap());
        let unwanted = other.local_addr().unwrap();
        drop((listener, other));
        let mut early = TcpStream::connect(address).await.unwrap();
        let second = Sockets::inherited(first.hand_over().into_iter().map(std::net::TcpListener::from).collect());
        let listener = second.listen(address, 16).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(early.read_u8().await.unwrap(), b'x');
        second.settle();
        assert!(TcpStream::connect(unwanted).await.is_err(), "nobody listens there any more");
        drop(listener);
        second.close(address.port());
        assert!(TcpStream::connect(address).await.is_err());
    }
}
