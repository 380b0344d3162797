//! Sub-resources that a kind answers with bytes of its own.

use super::Shared;
use super::body::{Body, BoxError};
use super::status::{no_such_resource, respond};
use super::verbs::Request;
use crate::api::{ApiResult, Target};
use crate::server::Kind;
use crate::server::kind::Reading;
use futures::StreamExt;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

/// True where this sub-resource of the kind, or what is below it, is read as bytes.
pub(super) fn is_read(kind: &dyn Kind, subresource: &str) -> bool {
    let first = subresource.split('/').next().unwrap_or_default();
    kind.readable().is_some() && kind.actions().iter().any(|action| action.name == first)
}

/// True for a request on such a one.
pub(super) fn is_asked(request: &Request<'_>) -> bool {
    request.target.subresource.as_deref().is_some_and(|sub| is_read(request.kind.as_ref(), sub))
}

/// Answers with what the kind reads.
pub(super) async fn serve(shared: &Shared, request: Request<'_>) -> ApiResult<Response<Body>> {
    let target = Target { subresource: None, ..request.target.clone() };
    let object = shared.transport.get(&target).await?.value()?;
    let subresource = request.target.subresource.clone().unwrap_or_default();
    let readable = request.kind.readable().ok_or_else(no_such_resource)?;
    let stream = readable.read(Reading { object, subresource, query: request.query.into_pairs() }).await?;
    let ended = stream.take_until(request.ending.cancelled_owned());
    let frames = ended.map(|piece| piece.map(Frame::data).map_err(BoxError::from));
    Ok(respond(200, "text/plain", StreamBody::new(frames).boxed_unsync()))
}
