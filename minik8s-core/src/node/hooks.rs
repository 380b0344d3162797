//! Lifecycle hooks: what a container wants done after its start and before its end.

use super::context::Context;
use super::probe::{Place, exec, http_get, tcp};
use k8s_openapi::api::core::v1::LifecycleHandler;
use std::time::Duration;

/// Runs a hook to its end, for at most `limit`. `Err` tells people why it failed.
pub(crate) async fn run(
    context: &Context,
    id: &str,
    hook: &LifecycleHandler,
    place: &Place,
    limit: Duration,
) -> Result<(), String> {
    if let Some(action) = &hook.exec {
        return exec(context, id, action.command.clone().unwrap_or_default(), limit).await.map(drop);
    }
    if let Some(action) = &hook.sleep {
        let seconds = u64::try_from(action.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds).min(limit)).await;
        return Ok(());
    }
    // Simulated processes listen nowhere.
    if !context.real_processes() {
        return Ok(());
    }
    if let Some(action) = &hook.http_get {
        return http_get(action, place, limit).await;
    }
    match &hook.tcp_socket {
        Some(action) => tcp(action, place, limit).await,
        None => Err("the hook says neither exec nor httpGet nor sleep".to_owned()),
    }
}
