//! What is set on every connection, and asked of those that wait.

use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use std::os::fd::AsRawFd;
use std::time::Duration;
use tokio::net::TcpStream;

/// After so much silence the other side is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(15);
/// How often it is asked again, and how many answers may be missing.
const AGAIN: Duration = Duration::from_secs(5);
const MISSING: u32 = 3;

/// Sends what there is at once, and notices within half a minute of silence when the other machine is no more: one that lost
/// its power says no goodbye, and what only waits to read would wait for ever. A process that is frozen has a kernel that
/// answers.
pub(super) fn prepare(stream: &TcpStream) {
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    // Where the kernel refuses, the connection serves all the same.
    let _ = stream.set_nodelay(true);
    let _ = setsockopt(stream, sockopt::KeepAlive, &true);
    let _ = setsockopt(stream, sockopt::TcpKeepIdle, &seconds(SILENCE));
    let _ = setsockopt(stream, sockopt::TcpKeepInterval, &seconds(AGAIN));
    let _ = setsockopt(stream, sockopt::TcpKeepCount, &MISSING);
}

/// True where nothing has come, not even an end. The kernel is asked: what the runtime knows of a socket is as old as its last
/// look, and a request that is sent to somebody who has left is lost.
pub(super) fn is_silent(stream: &TcpStream) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(stream.as_raw_fd(), &mut [0; 1], flags) == Err(nix::errno::Errno::EAGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::getsockopt;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn connections_ask_whether_the_other_side_is_there_and_know_when_it_has_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut other, _) = listener.accept().await.unwrap();
        prepare(&stream);
        assert!(getsockopt(&stream, sockopt::KeepAlive).unwrap() && stream.nodelay().unwrap());
        assert_eq!(getsockopt(&stream, sockopt::TcpKeepIdle).unwrap(), 15);
        assert!(is_silent(&stream));
        // Without a look of the runtime's between: the one thread that has one is here.
        nix::sys::socket::shutdown(other.as_raw_fd(), nix::sys::socket::Shutdown::Write).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(!is_silent(&stream), "it has left");
        let _ = other.shutdown().await;
    }
}
