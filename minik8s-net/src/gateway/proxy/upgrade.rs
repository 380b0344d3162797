//! Connections that become something else, such as WebSockets: bytes are passed both ways from then on.

use super::answers::Refusal;
use super::attempts;
use super::headers::without_hops;
use super::sticky::Chosen;
use crate::gateway::backend::{Http1, Lease};
use crate::gateway::body::{Answer, Outgoing, Relay};
use crate::gateway::front::Shared;
use crate::gateway::table::{Target, To};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use minik8s_core::routing::Hold;
use std::sync::Arc;

/// An upgrade that a client asks for.
pub(super) struct Upgrade {
    protocol: HeaderValue,
    client: OnUpgrade,
}

/// The upgrade that a request asks for; HTTP/2 as an upgrade is not offered.
pub(super) fn wanted(request: &mut Request<Incoming>) -> Option<Upgrade> {
    let protocol = request.headers().get(header::UPGRADE)?.clone();
    let listed = |value: &HeaderValue| {
        value.to_str().is_ok_and(|v| v.split(',').any(|n| n.trim().eq_ignore_ascii_case("upgrade")))
    };
    let asked = request.headers().get_all(header::CONNECTION).iter().any(listed);
    let http2 =
        protocol.to_str().map_or(true, |v| v.split(',').any(|n| n.trim().to_ascii_lowercase().starts_with("h2c")));
    if !asked || http2 {
        return None;
    }
    Some(Upgrade { protocol, client: hyper::upgrade::on(request) })
}

/// Asks a backend for the upgrade, and passes bytes where it agrees.
pub(super) async fn pass(
    shared: &Arc<Shared>,
    (target, hold): (&Target, Option<&Hold>),
    chosen: Chosen,
    upgrade: Upgrade,
    mut request: Request<Incoming>,
) -> Result<Response<Answer>, Refusal> {
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, upgrade.protocol);
    headers.remove("http2-settings");
    let request = request.map(|body| Outgoing::stream(body, None, shared.config.body_patience));
    let (lease, stream) = connect(shared, target, hold, chosen.lease).await?;
    let failed = |why: String| Refusal::new(StatusCode::BAD_GATEWAY, why);
    let asking = tokio::time::timeout(shared.config.answer_patience, Http1::upgrading(stream, request));
    let response = asking.await.map_err(|_| Refusal::late(shared.config.answer_patience))?;
    let mut response = response.map_err(|error| failed(format!("the endpoint did not answer: {error}")))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (mut head, body) = response.into_parts();
        without_hops(&mut head.headers);
        return Ok(Response::from_parts(head, Answer::Relayed(Box::new(Relay::new(body, None, lease, None)))));
    }
    let backend = hyper::upgrade::on(&mut response);
    shared.tasks.spawn(bytes(shared.clone(), upgrade.client, backend, lease));
    let (head, _) = response.into_parts();
    Ok(Response::from_parts(head, Answer::Own(Full::default())))
}

async fn connect(
    shared: &Shared,
    target: &Target,
    hold: Option<&Hold>,
    mut first: Option<Lease>,
) -> Result<(Lease, tokio::net::TcpStream), Refusal> {
    let cluster = match &target.to {
        To::Cluster { cluster, .. } => cluster,
        To::Nowhere { status, why } => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return Err(Refusal::new(status, why.clone()));
        }
    };
    let mut tried = Vec::new();
    loop {
        let lease = match first.take() {
            Some(lease) => lease,
            None => attempts::next(cluster, hold, &tried, tried.is_empty()).await?,
        };
        match lease.connect().await {
            Ok(stream) => return Ok((lease, stream)),
            Err(error) => {
                shared.note_failure(cluster, lease.address());
                tried.push(lease.address());
                if tried.len() > cluster.len().min(4) {
                    return Err(Refusal::new(
                        StatusCode::BAD_GATEWAY,
                        format!("no endpoint could be reached: {error}"),
                    ));
                }
            }
        }
    }
}

/// Passes bytes until either side ends, or the gateway's patience after it was told to.
async fn bytes(shared: Arc<Shared>, client: OnUpgrade, backend: OnUpgrade, _lease: Lease) {
    let (Ok(client), Ok(backend)) = tokio::join!(client, backend) else { return };
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    let passing = tokio::io::copy_bidirectional(&mut client, &mut backend);
    let end = async {
        shared.stop.cancelled().await;
        tokio::time::sleep(shared.config.drain).await;
    };
    tokio::select! {
        result = passing => if let Err(error) = result { tracing::debug!(%error, "an upgraded connection broke off") },
        () = end => {}
    }
}
