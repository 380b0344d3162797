//! What triggers may do. What could be a hole is off unless somebody says so.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What triggers may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TriggersConfig {
    /// Where webhooks are listened for beside the API server, in plain HTTP, whoever leads. Default: nowhere.
    pub webhooks: Option<SocketAddr>,
    /// Webhooks are taken at every gateway, with TLS and without, where the control plane has a front
    /// ([`Serverless::front`](crate::Serverless::front)). Default: no.
    pub at_gateways: bool,
    /// Directories and files of this machine that triggers may watch. Default: none.
    pub files: Vec<PathBuf>,
    /// The largest body of a webhook, in bytes; 0 for 512 KiB, which is also the most.
    pub largest_body: usize,
}

impl TriggersConfig {
    pub(super) fn body_limit(&self) -> usize {
        // An event is part of an object, which has a limit of its own.
        if self.largest_body == 0 { 512 << 10 } else { self.largest_body.min(512 << 10) }
    }
}
