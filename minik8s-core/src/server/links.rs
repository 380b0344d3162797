//! Connections that nodes opened: on each, the API server asks the node for logs and commands.

use super::auth::User;
use crate::api::{ApiError, Reason};
use crate::grpc::error::to_status;
use crate::grpc::pipe::pipe;
use crate::grpc::v1::{Chunk, node_link_server};
use crate::node::{NodeDirectory, RemoteNode};
use futures::StreamExt;
use futures::stream::BoxStream;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// Takes nodes' connections and registers each under the name in the node's certificate.
pub(super) struct NodeLinks {
    nodes: NodeDirectory,
    shutdown: CancellationToken,
}

impl NodeLinks {
    pub(super) fn new(nodes: NodeDirectory, shutdown: CancellationToken) -> Self {
        Self { nodes, shutdown }
    }
}

#[tonic::async_trait]
impl node_link_server::NodeLink for NodeLinks {
    type OpenStream = BoxStream<'static, Result<Chunk, Status>>;

    async fn open(&self, request: Request<Streaming<Chunk>>) -> Result<Response<Self::OpenStream>, Status> {
        let user = request.extensions().get::<User>();
        let name = user.and_then(User::node).map(str::to_owned).ok_or_else(|| to_status(&no_node(user)))?;
        let (io, outbound) = pipe(request.into_inner());
        let registered = self.nodes.lend(name, Arc::new(RemoteNode::over(io)));
        let outbound = outbound.map(move |chunk| {
            let _registered = &registered;
            Ok(chunk)
        });
        Ok(Response::new(outbound.take_until(self.shutdown.clone().cancelled_owned()).boxed()))
    }
}

fn no_node(user: Option<&User>) -> ApiError {
    let name = user.map_or("nobody", |u| u.name.as_str());
    ApiError::new(
        Reason::Forbidden,
        format!("{name:?} is no node: a node's certificate says system:node:NAME, of the group system:nodes"),
    )
}
