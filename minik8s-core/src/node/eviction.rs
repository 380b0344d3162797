//! Ending pods whose volumes on disk have outgrown their limits. Nothing tells how much a directory holds, so this looks
//! now and then, as the kubelet does; a pod without such limits costs nothing.

use super::context::Context;
use super::pod;
use super::volumes::{self, Limit};
use std::sync::Arc;

/// Looks for ever.
pub(crate) async fn keep_limits(context: Arc<Context>) {
    loop {
        tokio::time::sleep(context.config.volume_period).await;
        for handle in context.pods.all() {
            let pod = handle.pod();
            let limits = volumes::limits(&pod, &context.roots(pod::uid(&pod)));
            if limits.is_empty() || pod::is_terminal(&pod) || pod::deletion(&pod).is_some() {
                continue;
            }
            let measured = crate::blocking::run(move || limits.iter().find_map(Limit::exceeded)).await;
            if let Ok(Some(message)) = measured {
                handle.edit(|slot| slot.evicted = Some(message));
            }
        }
    }
}
