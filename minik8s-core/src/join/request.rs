//! Asking for a certificate, and waiting for it.

use super::JoinError;
use crate::api::{ApiError, Reason};
use crate::client::{Client, Informer, InformerOptions, SharedTransport};
use crate::controllers::certificates::{NODE_SIGNER, has};
use crate::server::auth::User;
use crate::server::tls::CertificateRequest;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde_json::json;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A client certificate, PEM, for a user that has this key, asked for as whoever the transport is.
pub(super) async fn certificate(
    transport: SharedTransport,
    user: &User,
    key: &str,
    patience: Duration,
) -> Result<String, JoinError> {
    let client = Client::new(transport).with_manager("kubelet");
    let request = CertificateRequest::make(user, key)?;
    let spec = json!({
        "request": ByteString(request.into_bytes()),
        "signerName": NODE_SIGNER,
        "usages": ["digital signature", "client auth"],
    });
    let csr = json!({"metadata": {"generateName": "node-csr-"}, "spec": spec});
    let csr = serde_json::from_value(csr).map_err(|e| JoinError::Api(ApiError::internal(e.to_string())))?;
    let requests = client.all::<CertificateSigningRequest>();
    let made = tokio::time::timeout(patience, requests.create(&csr)).await;
    let made = match made {
        Ok(made) => made.map_err(refused)?,
        Err(_) => return Err(JoinError::Api(ApiError::new(Reason::ServerTimeout, "the server does not answer"))),
    };
    let name = made.metadata.name.unwrap_or_default();
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let options = InformerOptions { field_selector: format!("metadata.name={name}"), ..InformerOptions::default() };
    let informer = Informer::start(requests, options, stop);
    match tokio::time::timeout(patience, answer(&informer, &name)).await {
        Ok(answer) => answer,
        Err(_) => Err(JoinError::Unanswered { request: name, waited: patience }),
    }
}

fn refused(error: ApiError) -> JoinError {
    if error.reason == Reason::Unauthorized { JoinError::Token(error.message) } else { JoinError::Api(error) }
}

/// Waits until the request is answered one way or the other.
async fn answer(informer: &Informer<CertificateSigningRequest>, name: &str) -> Result<String, JoinError> {
    let mut changes = informer.subscribe();
    loop {
        if let Some(answer) = informer.get(name).and_then(|csr| read(&csr)) {
            return answer;
        }
        if changes.next().await.is_none() {
            return Err(JoinError::Api(ApiError::internal("the watch of the request ended")));
        }
    }
}

fn read(csr: &CertificateSigningRequest) -> Option<Result<String, JoinError>> {
    let status = csr.status.as_ref()?;
    if let Some(certificate) = status.certificate.as_ref().filter(|c| !c.0.is_empty()) {
        return Some(Ok(String::from_utf8_lossy(&certificate.0).into_owned()));
    }
    let verdict = ["Denied", "Failed"].into_iter().find(|kind| has(csr, kind))?;
    let condition = status.conditions.iter().flatten().find(|c| c.type_ == verdict)?;
    Some(Err(JoinError::Denied {
        reason: condition.reason.clone().unwrap_or_else(|| verdict.to_owned()),
        message: condition.message.clone().unwrap_or_default(),
    }))
}
