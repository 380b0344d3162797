//! Connections to ports of pods and the usage of containers, as messages between a node and the API server.

use super::access::{ContainerRef, ContainerUsage, MachineUsage, NodeUsage, PodRef};
use crate::grpc::error::from_status;
use crate::grpc::v1::{self, forwarded::Part};
use crate::pieces::{Piece, connection};
use crate::runtime::{Connection, ContainerStats, Duplex};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use std::future::ready;
use std::io;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

/// Messages on their way in each direction.
const QUEUE: usize = 16;

pub(super) fn message(part: Part) -> v1::Forwarded {
    v1::Forwarded { part: Some(part) }
}

fn piece(piece: Piece) -> v1::Forwarded {
    message(match piece {
        Piece::Data(data) => Part::Data(data),
        Piece::End => Part::End(v1::ForwardEnd {}),
    })
}

/// The queue of a call's messages, with the first one in it, and the stream to call with.
pub(super) fn opening(to: v1::PodPort) -> (mpsc::Sender<v1::Forwarded>, ReceiverStream<v1::Forwarded>) {
    let (send, inbox) = mpsc::channel(QUEUE);
    // The queue is empty: there is room for this.
    let _ = send.try_send(message(Part::Open(to)));
    (send, ReceiverStream::new(inbox))
}

/// The caller's end of a call that was answered.
pub(super) fn near_end(from: Streaming<v1::Forwarded>, to: mpsc::Sender<v1::Forwarded>) -> impl Duplex {
    connection(received(from), to, piece)
}

/// The node's end: what is to be answered while the connection lasts. Dropping it closes the connection.
pub(super) fn far_end(
    mut port: Connection,
    from: Streaming<v1::Forwarded>,
) -> impl Stream<Item = Result<v1::Forwarded, Status>> {
    let (send, inbox) = mpsc::channel(QUEUE);
    let mut wire = connection(received(from), send.clone(), |p| Ok(piece(p)));
    let relay = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = tokio::io::copy_bidirectional(&mut wire, &mut port).await {
            let _ = send.send(Err(Status::aborted(error.to_string()))).await;
        }
    }));
    ReceiverStream::new(inbox).map(move |part| {
        let _relay = &relay;
        part
    })
}

/// What arrives until the sender says that it was all. Ending in any other way is an error.
fn received(from: Streaming<v1::Forwarded>) -> impl Stream<Item = io::Result<Bytes>> {
    let parts = from.map(|message| match message.map(|m| m.part) {
        Ok(Some(Part::Data(data))) => Some(Ok(data)),
        Ok(Some(Part::End(_))) => None,
        Ok(Some(Part::Open(_)) | None) => Some(Ok(Bytes::new())),
        Err(status) => Some(Err(cut(from_status(&status).message))),
    });
    let unsaid = stream::once(ready(Some(Err(cut("the connection to the node has ended".to_owned())))));
    // The call stays open behind the end of one direction: the other one may go on.
    parts.chain(unsaid).take_while(|part| ready(part.is_some())).filter_map(ready)
}

fn cut(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, why)
}

impl From<&PodRef> for v1::PodRef {
    fn from(pod: &PodRef) -> Self {
        let PodRef { namespace, pod, uid } = pod.clone();
        Self { namespace, pod, uid }
    }
}

impl From<v1::PodRef> for PodRef {
    fn from(pod: v1::PodRef) -> Self {
        let v1::PodRef { namespace, pod, uid } = pod;
        Self { namespace, pod, uid }
    }
}

impl From<NodeUsage> for v1::StatsReply {
    fn from(usage: NodeUsage) -> Self {
        let machine = usage.machine.map(|m| v1::MachineUsage {
            at_unix_millis: m.at,
            cpu_nanos: m.cpu_ns,
            memory_working_set: m.memory_working_set,
            memory_usage: m.memory_usage,
        });
        Self { machine, containers: usage.containers.into_iter().map(Into::into).collect() }
    }
}

impl From<v1::StatsReply> for NodeUsage {
    fn from(reply: v1::StatsReply) -> Self {
        let machine = reply.machine.map(|m| MachineUsage {
            at: m.at_unix_millis,
            cpu_ns: m.cpu_nanos,
            memory_working_set: m.memory_working_set,
            memory_usage: m.memory_usage,
        });
        Self { machine, containers: reply.containers.into_iter().map(Into::into).collect() }
    }
}

impl From<ContainerUsage> for v1::ContainerUsage {
    fn from(usage: ContainerUsage) -> Self {
        let ContainerStats { at, cpu_ns, memory_working_set, memory_usage, pids } = usage.stats;
        Self {
            container: Some((&usage.container).into()),
            started_unix_millis: usage.started_at,
            at_unix_millis: at,
            cpu_nanos: cpu_ns,
            memory_working_set,
            memory_usage,
            processes: pids,
        }
    }
}

impl From<v1::ContainerUsage> for ContainerUsage {
    fn from(usage: v1::ContainerUsage) -> Self {
        Self {
            container: ContainerRef::from(usage.container.unwrap_or_default()),
            started_at: usage.started_unix_millis,
            stats: ContainerStats {
                at: usage.at_unix_millis,
                cpu_ns: usage.cpu_nanos,
                memory_working_set: usage.memory_working_set,
                memory_usage: usage.memory_usage,
                pids: usage.processes,
            },
        }
    }
}
