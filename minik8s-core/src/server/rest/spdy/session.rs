//! The streams of a connection: one loop reads, one writes, and a task for each stream does what the caller says.

use super::SpdyError;
use super::frame::{self, Control, HEAD, Head, Reset};
use super::headers::{Deflater, Headers, Inflater};
use crate::pieces::{self, LARGEST, Piece};
use crate::runtime::Duplex;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Streams that may be open at a time.
const STREAMS: usize = 512;
/// Pieces that wait for the reader of a stream.
const UNREAD: usize = 8;
/// Frames on their way to the client, of all streams.
const UNSENT: usize = 16;
/// How long streams may take to finish after the client has left.
const FAREWELL: Duration = Duration::from_secs(2);

/// A stream that the client opened; it has been agreed to.
pub(crate) struct Incoming {
    id: u32,
    headers: Headers,
    data: mpsc::Receiver<Bytes>,
    out: mpsc::Sender<Outgoing>,
    over: CancellationToken,
    _over: DropGuard,
}

/// A stream's end for who wants no more of it than to say something.
pub(crate) struct Line {
    id: u32,
    out: mpsc::Sender<Outgoing>,
}

enum Outgoing {
    Reply(u32),
    Data(u32, Bytes),
    Fin(u32),
    Reset(u32, Reset),
    Ping(u32),
}

impl Incoming {
    /// A header's value; names are in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Cancelled once the client has given the stream up, or everything.
    pub(crate) fn over(&self) -> CancellationToken {
        self.over.clone()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Says something on it besides what its bytes say.
    pub(crate) fn line(&self) -> Line {
        Line { id: self.id, out: self.out.clone() }
    }

    /// Its bytes. The stream itself lasts until the answer's second part is dropped.
    pub(crate) fn open(self) -> (impl Duplex, DropGuard) {
        let id = self.id;
        let data = ReceiverStream::new(self.data).map(Ok::<_, io::Error>);
        let wrap = move |piece| match piece {
            Piece::Data(data) => Outgoing::Data(id, data),
            Piece::End => Outgoing::Fin(id),
        };
        (pieces::connection(data, self.out, wrap), self._over)
    }
}

impl Line {
    /// Says something, ends the stream's direction to the client.
    pub(crate) async fn finish(self, text: &str) {
        if !text.is_empty() {
            let _ = self.out.send(Outgoing::Data(self.id, Bytes::copy_from_slice(text.as_bytes()))).await;
        }
        let _ = self.out.send(Outgoing::Fin(self.id)).await;
    }

    /// Ends the stream in both directions.
    pub(crate) async fn reset(self, why: Reset) {
        let _ = self.out.send(Outgoing::Reset(self.id, why)).await;
    }
}

/// Serves a connection to its end. `opened` is called for every stream; what it answers is run beside, until the end.
///
/// # Errors
/// What ended the connection, other than the client's wish.
pub(crate) async fn serve<R, W, F>(
    read: R,
    write: W,
    opened: impl FnMut(Incoming) -> Option<F>,
) -> Result<(), SpdyError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    F: Future<Output = ()> + Send + 'static,
{
    let (out, queue) = mpsc::channel(UNSENT);
    let session = Session { streams: HashMap::new(), tasks: JoinSet::new(), out, opened };
    tokio::select! {
        ended = session.run(read) => ended,
        ended = send(queue, write) => ended,
    }
}

struct Entry {
    /// `None` once the client has sent all.
    data: Option<mpsc::Sender<Bytes>>,
    over: CancellationToken,
}

struct Session<O> {
    streams: HashMap<u32, Entry>,
    tasks: JoinSet<()>,
    out: mpsc::Sender<Outgoing>,
    opened: O,
}

impl<F: Future<Output = ()> + Send + 'static, O: FnMut(Incoming) -> Option<F>> Session<O> {
    async fn run(mut self, mut read: impl AsyncRead + Unpin) -> Result<(), SpdyError> {
        let mut inflater = Inflater::new();
        while let Some(start) = next_head(&mut read).await? {
            match frame::head(start)? {
                Head::Data { id, fin, length } => self.data(&mut read, id, fin, length).await?,
                Head::Control { kind, flags, length } => {
                    let mut body = vec![0; length];
                    read.read_exact(&mut body).await?;
                    let control = frame::control(kind, flags, &body, &mut inflater)?;
                    self.control(control).await;
                }
            }
        }
        // What the client sent before it left is still delivered.
        for entry in self.streams.values_mut() {
            entry.data = None;
        }
        let finished = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(FAREWELL, finished).await;
        Ok(())
    }

    /// Passes the bytes of a frame on as they come. Whoever has no use for them gets none.
    async fn data(
        &mut self,
        read: &mut (impl AsyncRead + Unpin),
        id: u32,
        fin: bool,
        length: usize,
    ) -> Result<(), SpdyError> {
        let mut left = length;
        while left > 0 {
            let mut piece = BytesMut::zeroed(left.min(LARGEST));
            let n = read.read(&mut piece).await?;
            if n == 0 {
                return Err(SpdyError::Malformed("the connection ends within a frame"));
            }
            left -= n;
            piece.truncate(n);
            if let Some(Entry { data: Some(data), over }) = self.streams.get(&id) {
                tokio::select! {
                    _ = data.send(piece.freeze()) => {}
                    () = over.cancelled() => {}
                }
            }
        }
        if fin {
            self.end(id);
        }
        Ok(())
    }

    fn end(&mut self, id: u32) {
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.data = None;
        }
    }

    async fn control(&mut self, control: Control) {
        match control {
            Control::Open { id, fin, headers } => self.open(id, fin, headers).await,
            Control::Reset { id } => {
                if let Some(entry) = self.streams.remove(&id) {
                    entry.over.cancel();
                }
            }
            Control::End { id } => self.end(id),
            Control::Ping { id } => self.say(Outgoing::Ping(id)).await,
            Control::Other => {}
        }
    }

    async fn open(&mut self, id: u32, fin: bool, headers: Headers) {
        self.streams.retain(|_, entry| !entry.over.is_cancelled());
        while self.tasks.try_join_next().is_some() {}
        if id.is_multiple_of(2) || self.streams.contains_key(&id) {
            return self.say(Outgoing::Reset(id, Reset::ProtocolError)).await;
        }
        if self.streams.len() >= STREAMS {
            return self.say(Outgoing::Reset(id, Reset::RefusedStream)).await;
        }
        let (send, data) = mpsc::channel(UNREAD);
        let over = CancellationToken::new();
        self.streams.insert(id, Entry { data: (!fin).then_some(send), over: over.clone() });
        self.say(Outgoing::Reply(id)).await;
        let _over = over.clone().drop_guard();
        let incoming = Incoming { id, headers, data, out: self.out.clone(), over, _over };
        if let Some(task) = (self.opened)(incoming) {
            self.tasks.spawn(task);
        }
    }

    async fn say(&self, what: Outgoing) {
        // Without a writer the connection is ending anyway.
        let _ = self.out.send(what).await;
    }
}

/// The first bytes of the next frame; nothing where the connection ends between frames.
async fn next_head(read: &mut (impl AsyncRead + Unpin)) -> Result<Option<[u8; HEAD]>, SpdyError> {
    let mut head = [0; HEAD];
    let mut have = 0;
    while have < HEAD {
        match read.read(&mut head[have..]).await? {
            0 if have == 0 => return Ok(None),
            0 => return Err(SpdyError::Malformed("the connection ends within a frame")),
            n => have += n,
        }
    }
    Ok(Some(head))
}

/// Writes frames, those that wait together in one go.
async fn send(mut queue: mpsc::Receiver<Outgoing>, mut write: impl AsyncWrite + Unpin) -> Result<(), SpdyError> {
    let mut deflater = Deflater::new()?;
    let (mut frames, mut bytes) = (Vec::with_capacity(UNSENT), Vec::new());
    while queue.recv_many(&mut frames, UNSENT).await > 0 {
        for frame in frames.drain(..) {
            match frame {
                Outgoing::Reply(id) => frame::put_reply(id, &mut deflater, &mut bytes)?,
                Outgoing::Data(id, data) => frame::put_data(id, &data, false, &mut bytes),
                Outgoing::Fin(id) => frame::put_data(id, &[], true, &mut bytes),
                Outgoing::Reset(id, why) => frame::put_reset(id, why, &mut bytes),
                Outgoing::Ping(id) => frame::put_ping(id, &mut bytes),
            }
        }
        let written = async {
            write.write_all(&bytes).await?;
            write.flush().await
        };
        match written.await {
            // Who has left is told nothing more.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            result => result?,
        }
        bytes.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::open;
    use super::*;
    use proptest::prelude::*;
    use tokio::io::DuplexStream;

    /// A session that echoes, and the client's end of it.
    fn echo() -> (DuplexStream, tokio::task::JoinHandle<Result<(), SpdyError>>) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (read, write) = tokio::io::split(far);
        let opened = |incoming: Incoming| {
            Some(async move {
                let (io, _stream) = incoming.open();
                let (mut read, mut write) = tokio::io::split(io);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            })
        };
        (near, tokio::spawn(serve(read, write, opened)))
    }

    /// The next frame: its first word and what follows its head.
    async fn frame(io: &mut DuplexStream) -> (u32, u8, Vec<u8>) {
        let head = next_head(io).await.unwrap().unwrap();
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]);
        let mut body = vec![0; length as usize];
        io.read_exact(&mut body).await.unwrap();
        (u32::from_be_bytes([head[0], head[1], head[2], head[3]]), head[4], body)
    }

    fn data(id: u32, text: &[u8], fin: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::put_data(id, text, fin, &mut bytes);
        bytes
    }

    #[tokio::test]
    async fn streams_echo_and_end_and_pings_come_back() {
        let (mut io, served) = echo();
        let mut deflater = Deflater::new().unwrap();
        for id in [1, 3] {
            io.write_all(&open(id, &[], &mut deflater)).await.unwrap();
            assert_eq!(frame(&mut io).await.0, 0x8003_0002, "agreed");
            io.write_all(&data(id, b"hello", false)).await.unwrap();
            assert_eq!(frame(&mut io).await, (id, 0, b"hello".to_vec()));
        }
        io.write_all(&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9]).await.unwrap();
        assert_eq!(frame(&mut io).await, (0x8003_0006, 0, vec![0, 0, 0, 9]));
        io.write_all(&data(1, b"bye", true)).await.unwrap();
        assert_eq!(frame(&mut io).await, (1, 0, b"bye".to_vec()));
        assert_eq!(frame(&mut io).await, (1, 1, vec![]));
        io.write_all(&data(7, b"to nobody", true)).await.unwrap();
        io.write_all(&open(2, &[], &mut deflater)).await.unwrap();
        assert_eq!(frame(&mut io).await, (0x8003_0003, 0, vec![0, 0, 0, 2, 0, 0, 0, 1]), "clients count odd");
        drop(io);
        served.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn streams_are_counted_and_make_room_when_they_end() {
        let (mut io, _served) = echo();
        let mut deflater = Deflater::new().unwrap();
        let ids = (0..u32::try_from(STREAMS).unwrap()).map(|n| 2 * n + 1);
        for id in ids {
            io.write_all(&open(id, &[], &mut deflater)).await.unwrap();
            assert_eq!(frame(&mut io).await.0, 0x8003_0002);
        }
        io.write_all(&open(9001, &[], &mut deflater)).await.unwrap();
        assert_eq!(frame(&mut io).await.2, [9001_u32.to_be_bytes(), 3_u32.to_be_bytes()].concat(), "refused");
        let mut reset = Vec::new();
        frame::put_reset(5, Reset::InternalError, &mut reset);
        io.write_all(&reset).await.unwrap();
        io.write_all(&open(9003, &[], &mut deflater)).await.unwrap();
        assert_eq!(frame(&mut io).await.0, 0x8003_0002, "there is room again");
    }

    #[tokio::test]
    async fn a_stream_that_is_reset_holds_nobody_up() {
        let (mut io, far) = tokio::io::duplex(1 << 20);
        let (read, write) = tokio::io::split(far);
        // Nobody reads the streams, and all of them are kept.
        let (keep, mut kept) = mpsc::unbounded_channel();
        let opened = move |incoming: Incoming| {
            let _ = keep.send(incoming);
            None::<std::future::Ready<()>>
        };
        let _served = tokio::spawn(serve(read, write, opened));
        let mut deflater = Deflater::new().unwrap();
        io.write_all(&open(1, &[], &mut deflater)).await.unwrap();
        assert_eq!(frame(&mut io).await.0, 0x8003_0002);
        let first = kept.recv().await.unwrap();
        io.write_all(&data(1, &vec![0; 512 << 10], false)).await.unwrap();
        io.write_all(&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9]).await.unwrap();
        assert!(futures::poll!(std::pin::pin!(frame(&mut io))).is_pending());
        // Whoever has no use for a stream lets go of it, and the rest goes on.
        drop(first);
        assert_eq!(frame(&mut io).await.0, 0x8003_0006);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn rubbish_ends_a_connection_and_nothing_else(start in 0..3_usize, rubbish in proptest::collection::vec(any::<u8>(), 0..600)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let (mut io, served) = echo();
                let mut deflater = Deflater::new().unwrap();
                for n in 0..start {
                    let id = u32::try_from(n).unwrap() * 2 + 1;
                    io.write_all(&open(id, &[("port", "80")], &mut deflater)).await.unwrap();
                }
                let _ = io.write_all(&rubbish).await;
                drop(io);
                let ended = tokio::time::timeout(Duration::from_secs(60), served).await;
                ended.expect("an end in time").expect("no panic")
            }).ok();
        }
    }
}
