//! Copies of requests, whose answers nobody waits for.

use super::answers::Refusal;
use super::attempts;
use crate::gateway::body::{Outgoing, promised};
use crate::gateway::front::Shared;
use crate::gateway::table::Plan;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use std::sync::Arc;
use std::time::Duration;

/// Largest body that is copied: it is held in memory. Larger ones, and those of unknown length, are not mirrored.
const LARGEST: u64 = 1 << 20;
/// How long a copy is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends the copies that the plan wants.
pub(super) async fn copies(
    shared: &Arc<Shared>,
    plan: &Arc<Plan>,
    request: &mut Request<Outgoing>,
) -> Result<(), Refusal> {
    hold(request).await?;
    for (index, (_, share)) in plan.mirrors.iter().enumerate() {
        let Some(body) = request.body().again().filter(|_| share.next() == Some(0)) else { continue };
        let Ok(permit) = shared.copies.clone().try_acquire_owned() else { continue };
        let mut copy = Request::new(body);
        (*copy.method_mut(), *copy.uri_mut()) = (request.method().clone(), request.uri().clone());
        *copy.headers_mut() = request.headers().clone();
        let (shared, plan) = (shared.clone(), plan.clone());
        let tasks = shared.tasks.clone();
        tasks.spawn(async move {
            let _permit = permit;
            let mut copy = copy;
            let sending = attempts::send(&shared, &plan, &plan.mirrors[index].0, None, &mut copy, "");
            if let Ok(Ok(sent)) = tokio::time::timeout(PATIENCE, sending).await {
                tracing::trace!(status = sent.response.status().as_u16(), "a copy was answered");
            }
        });
    }
    Ok(())
}

/// Takes the body into memory, where it is small enough.
async fn hold(request: &mut Request<Outgoing>) -> Result<(), Refusal> {
    if request.body().again().is_some() || promised(request.headers()).is_none_or(|length| length > LARGEST) {
        return Ok(());
    }
    let body = std::mem::replace(request.body_mut(), Outgoing::empty());
    let bad = |error| Refusal::new(StatusCode::BAD_REQUEST, format!("the body broke off: {error}")).closing();
    let bytes = body.collect().await.map_err(bad)?.to_bytes();
    *request.body_mut() = Outgoing::Full(Full::from(bytes));
    Ok(())
}
