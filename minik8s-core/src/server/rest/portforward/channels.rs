//! `v4.channel.k8s.io`: for the i-th port, channel 2i carries its bytes and channel 2i+1 a sentence where it fails. The
//! first message of each is the port. There is one connection for each port, and no way to end one direction of it.

use super::Way;
use crate::pieces::{self, Piece};
use crate::runtime::Connection;
use crate::server::rest::websocket::{FAREWELL, Socket, message};
use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use std::io;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, frame::coding::CloseCode};

/// Ports that fit: a channel's number is a byte.
pub(super) const MOST: usize = 128;

/// Messages on their way to the client, and pieces on their way to each port.
const QUEUE: usize = 16;
/// How long a port may go on to read after it has sent all: nothing tells the client that it has.
const GRACE: Duration = Duration::from_secs(1);

pub(super) async fn serve(socket: Socket, way: &Way, ports: &[u16]) {
    let (sink, stream) = socket.split();
    let (out, queue) = mpsc::channel(QUEUE);
    let (inputs, outputs): (Vec<_>, Vec<_>) = ports.iter().map(|_| mpsc::channel(QUEUE)).unzip();
    let pairs = ports.iter().zip(outputs).zip((0..=u8::MAX).step_by(2));
    let forwards = join_all(pairs.map(|((port, input), channel)| forward(way, *port, channel, input, out.clone())));
    drop(out);
    let mut work = std::pin::pin!(async { tokio::join!(forwards, write(queue, sink)) });
    let mut reader = std::pin::pin!(read(stream, inputs));
    tokio::select! {
        _ = &mut work => { let _ = tokio::time::timeout(FAREWELL, reader).await; }
        // What the client sent before it left is still delivered.
        () = &mut reader => { let _ = tokio::time::timeout(FAREWELL, work).await; }
    }
}

async fn forward(way: &Way, port: u16, channel: u8, input: mpsc::Receiver<Bytes>, out: mpsc::Sender<Message>) {
    for channel in [channel, channel + 1] {
        let _ = out.send(message(channel, &port.to_le_bytes())).await;
    }
    match way.connect(port).await {
        Ok(connection) => relay(connection, channel, input, out).await,
        Err(why) => drop(out.send(message(channel + 1, why.as_bytes())).await),
    }
}

async fn relay(connection: Connection, channel: u8, input: mpsc::Receiver<Bytes>, out: mpsc::Sender<Message>) {
    let wrap = move |piece| match piece {
        Piece::Data(data) => message(channel, &data),
        Piece::End => message(channel, &[]),
    };
    let client = pieces::connection(ReceiverStream::new(input).map(Ok::<_, io::Error>), out, wrap);
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_port, mut to_port) = tokio::io::split(connection);
    let mut down = std::pin::pin!(tokio::io::copy(&mut from_port, &mut to_client));
    let mut up = std::pin::pin!(async {
        let _ = tokio::io::copy(&mut from_client, &mut to_port).await;
        to_port.shutdown().await
    });
    tokio::select! {
        _ = &mut down => { let _ = tokio::time::timeout(GRACE, up).await; }
        _ = &mut up => { let _ = down.await; }
    }
}

/// Sends what there is until all ports are done, and says goodbye.
async fn write(mut queue: mpsc::Receiver<Message>, mut sink: SplitSink<Socket, Message>) {
    while let Some(message) = queue.recv().await {
        if sink.send(message).await.is_err() {
            return;
        }
    }
    let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let _ = sink.send(Message::Close(Some(close))).await;
}

/// Hands on what the client sends, until it leaves. A port that does not read holds up the others: nothing else bounds
/// what a client may send.
async fn read(mut stream: SplitStream<Socket>, inputs: Vec<mpsc::Sender<Bytes>>) {
    while let Some(Ok(message)) = stream.next().await {
        // Behind a farewell nothing comes but its end, and asking for that sends the answer to it.
        let Message::Binary(data) = message else { continue };
        let Some(channel) = data.first().copied().filter(|channel| channel.is_multiple_of(2) && data.len() > 1) else {
            continue;
        };
        if let Some(input) = inputs.get(usize::from(channel / 2)) {
            // A port that is done has no use for it.
            let _ = input.send(data.slice(1..)).await;
        }
    }
}
