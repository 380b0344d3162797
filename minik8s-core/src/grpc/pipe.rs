//! A stream of bytes made of the two directions of a gRPC call, so that a whole connection can travel inside of one.

use super::v1::Chunk;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio_util::io::ReaderStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

/// Bytes on their way in each direction; HTTP/2's own windows are larger, and bound what is kept at both ends.
const BUFFER: usize = 64 << 10;

/// One end of a connection: what arrives on `inbound` is read from it, what is written to it is in the stream. When
/// either side ends, so does the other.
pub(crate) fn pipe<S>(inbound: S) -> (DuplexStream, impl Stream<Item = Chunk> + Send + 'static)
where
    S: Stream<Item = Result<Chunk, Status>> + Send + 'static,
{
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let (read, mut write) = tokio::io::split(theirs);
    let pump = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut inbound = std::pin::pin!(inbound);
        while let Some(Ok(chunk)) = inbound.next().await {
            if write.write_all(&chunk.data).await.is_err() {
                return;
            }
        }
        let _ = write.shutdown().await;
    }));
    let chunks = ReaderStream::with_capacity(read, BUFFER);
    let chunks =
        chunks.take_while(|read| std::future::ready(read.is_ok())).filter_map(|read| std::future::ready(read.ok()));
    let outbound = chunks.map(move |data: Bytes| {
        let _pump = &pump;
        Chunk { data }
    });
    (ours, outbound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use std::time::Duration;
    use tokio::io::AsyncReadExt;
    use tokio_stream::wrappers::ReceiverStream;

    fn chunk(text: &'static str) -> Chunk {
        Chunk { data: Bytes::from_static(text.as_bytes()) }
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_and_the_end_too() {
        let (mut io, outbound) = pipe(stream::iter([Ok(chunk("ab")), Ok(chunk("cd"))]));
        let mut read = String::new();
        io.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "abcd");
        io.write_all(b"xyz").await.unwrap();
        drop(io);
        let written: Vec<Chunk> = outbound.collect().await;
        assert_eq!(written.iter().flat_map(|c| c.data.to_vec()).collect::<Vec<_>>(), b"xyz");
    }

    #[tokio::test]
    async fn a_dropped_outbound_ends_the_connection() {
        let (mut io, outbound) = pipe(stream::pending());
        drop(outbound);
        assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_reader_that_is_slow_holds_the_sender_back() {
        let (send, inbox) = tokio::sync::mpsc::channel(1);
        let (mut io, _outbound) = pipe(ReceiverStream::new(inbox));
        let full = async {
            loop {
                let data = Bytes::from(vec![0; 16 << 10]);
                if tokio::time::timeout(Duration::from_millis(200), send.send(Ok(Chunk { data }))).await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), full).await.expect("the pipe fills");
        assert!(io.read(&mut [0; 1024]).await.unwrap() > 0);
    }
}
