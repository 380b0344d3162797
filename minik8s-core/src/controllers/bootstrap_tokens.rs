//! Bootstrap tokens that expired a day ago are removed; until then, whoever shows one is told that it has expired.

use super::{Controller, ControllerContext, Outcome, Reconciler, pump, run_workers};
use crate::api::ApiResult;
use crate::client::{Change, Informer, InformerOptions};
use crate::server::auth::{TOKEN_NAMESPACE, TOKEN_TYPE};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use std::sync::Arc;
use std::time::Duration;

const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Removes what is left of tokens.
pub struct BootstrapTokenController;

#[async_trait]
impl Controller for BootstrapTokenController {
    fn name(&self) -> &str {
        "bootstrap-token-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let field_selector = format!("metadata.namespace={TOKEN_NAMESPACE},type={TOKEN_TYPE}");
        let options = InformerOptions { field_selector, ..InformerOptions::default() };
        let tokens = ctx.informers.select::<Secret>(options);
        tokens.synced().await;
        let queue = ctx.queue();
        let changed = queue.clone();
        pump(&ctx, &tokens, move |change| {
            if let Change::Applied { new, .. } = change {
                changed.add(new.metadata.name.clone().unwrap_or_default());
            }
        });
        run_workers(&ctx, &queue, 1, Arc::new(Cleaner { ctx: ctx.clone(), tokens })).await;
    }
}

struct Cleaner {
    ctx: ControllerContext,
    tokens: Informer<Secret>,
}

/// When a token's Secret goes; `None` for a token without end.
fn end(secret: &Secret) -> Option<Timestamp> {
    let text = secret.data.as_ref()?.get("expiration")?;
    let end: Timestamp = std::str::from_utf8(&text.0).ok()?.parse().ok()?;
    end.saturating_add(KEPT).ok()
}

#[async_trait]
impl Reconciler for Cleaner {
    type Key = String;

    async fn reconcile(&self, name: &String) -> ApiResult<Outcome> {
        let key = crate::client::object_key(TOKEN_NAMESPACE, name);
        let Some(end) = self.tokens.get(&key).and_then(|secret| end(&secret)) else { return Ok(Outcome::Done) };
        let now = self.ctx.clock.now();
        if now < end {
            let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
            return Ok(Outcome::After(left + Duration::from_secs(1)));
        }
        match self.ctx.client.api::<Secret>(TOKEN_NAMESPACE).delete(name, &Default::default()).await {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(Outcome::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens_go_a_day_after_their_end() {
        let secret = |end: &str| -> Secret {
            let data = k8s_openapi::ByteString(end.as_bytes().to_vec());
            serde_json::from_value(json!({"data": {"expiration": data}})).unwrap()
        };
        assert_eq!(end(&secret("2026-01-01T00:00:00Z")), Some("2026-01-02T00:00:00Z".parse().unwrap()));
        assert_eq!(end(&secret("soon")), None);
        assert_eq!(end(&Secret::default()), None);
    }
}
