//! Where etcd is and how to speak with it.

use super::failure::Failure;
use crate::store::Limits;
use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use std::time::Duration;

/// How an etcd store works. [`EtcdOptions::new`] suits most.
#[derive(Clone)]
pub struct EtcdOptions {
    /// Members of one etcd cluster, such as `https://10.0.0.1:2379`; one is used at a time, the next where it fails.
    pub endpoints: Vec<String>,
    /// What the keys of this cluster begin with. Clusters that share an etcd need different ones, none inside another.
    pub prefix: String,
    /// Certificates, for endpoints of `https`.
    pub tls: Option<EtcdTls>,
    /// How long etcd may take for one answer.
    pub request_timeout: Duration,
    /// How long history is kept: what is older is compacted. `None` leaves that to etcd's own `--auto-compaction-*`.
    pub compact_every: Option<Duration>,
    /// Most operations, and preconditions, of one commit: etcd's `--max-txn-ops`.
    pub max_ops: usize,
    /// Most bytes of one commit: etcd's `--max-request-bytes`.
    pub max_request: usize,
    /// What is kept for watchers that read slowly; what concerns history means nothing here.
    pub limits: Limits,
}

/// Certificates, as PEM.
#[derive(Clone, Default)]
pub struct EtcdTls {
    /// Who signed etcd's certificate.
    pub ca: Option<Vec<u8>>,
    /// Certificate and key to show to etcd.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Why an etcd store could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EtcdError {
    /// The list of endpoints is empty.
    #[error("no etcd endpoint given: name at least one, such as http://127.0.0.1:2379")]
    NoEndpoints,
    /// An endpoint is no address, or does not go with the certificates.
    #[error("etcd endpoint {endpoint} cannot be used: {cause}")]
    Endpoint {
        /// The endpoint.
        endpoint: String,
        /// What is wrong with it.
        cause: String,
    },
    /// No endpoint answers.
    #[error("no answer from etcd at {endpoints}: {cause}")]
    Unreachable {
        /// Who was asked.
        endpoints: String,
        /// What the last one said.
        cause: String,
    },
}

impl EtcdOptions {
    /// Default options for these endpoints.
    pub fn new<S: Into<String>>(endpoints: impl IntoIterator<Item = S>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: "/minik8s".to_owned(),
            tls: None,
            request_timeout: Duration::from_secs(5),
            compact_every: Some(Duration::from_secs(300)),
            max_ops: 128,
            max_request: 3 << 19,
            limits: Limits::default(),
        }
    }

    /// How to connect to one endpoint. etcd closes connections that ping more often than every five seconds.
    pub(super) fn connect_options(&self, endpoint: &str) -> Result<ConnectOptions, EtcdError> {
        let options = ConnectOptions::new()
            .with_connect_timeout(self.request_timeout.min(Duration::from_secs(2)))
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
            .with_require_leader(true);
        let Some(tls) = &self.tls else { return Ok(options) };
        if !endpoint.starts_with("https://") {
            let cause = "certificates are given, but it does not begin with https://".to_owned();
            return Err(EtcdError::Endpoint { endpoint: endpoint.to_owned(), cause });
        }
        let mut config = TlsOptions::new();
        if let Some(ca) = &tls.ca {
            config = config.ca_certificate(Certificate::from_pem(ca));
        }
        if let Some((certificate, key)) = &tls.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        Ok(options.with_tls(config))
    }
}

impl EtcdError {
    pub(super) fn endpoint(endpoint: &str, error: &etcd_client::Error) -> Self {
        Self::Endpoint { endpoint: endpoint.to_owned(), cause: error.to_string() }
    }

    pub(super) fn unreachable(endpoints: &[String], failure: &Failure) -> Self {
        let cause = match failure {
            Failure::Invalid(why) | Failure::NotDone(why) | Failure::Lost(why) => why.clone(),
            other => format!("{other:?}"),
        };
        Self::Unreachable { endpoints: endpoints.join(", "), cause }
    }
}
