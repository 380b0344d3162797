//! What kinds and admission rules may ask while a write is prepared, and on whose behalf.

use super::store_error;
use crate::api::{ApiResult, Gvr, Target};
use crate::client::ListOptions;
use crate::server::auth::User;
use crate::server::{ApiServer, Claim, Settings, WriteContext, keys};
use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;

/// The server, asked for someone.
pub(crate) struct Asking<'a> {
    pub(crate) server: &'a ApiServer,
    pub(crate) user: Option<&'a User>,
}

#[async_trait]
impl WriteContext for Asking<'_> {
    fn now(&self) -> Timestamp {
        self.server.clock.now()
    }

    fn user(&self) -> Option<&User> {
        self.user
    }

    async fn is_free(&self, claim: &Claim) -> ApiResult<bool> {
        let entry = self.server.store.get(&keys::claim(claim)).await;
        Ok(entry.map_err(|e| store_error("looking up a claim", &e))?.is_none())
    }

    async fn all(&self, gvr: &Gvr, fresh: bool) -> ApiResult<Vec<Value>> {
        let options = ListOptions { resource_version: (!fresh).then_some(0), ..ListOptions::default() };
        let list = self.server.list_objects(&Target::all(gvr.clone()), &options).await?;
        list.items.iter().map(|object| object.value()).collect()
    }

    async fn all_in(&self, gvr: &Gvr, namespace: &str) -> ApiResult<Vec<Value>> {
        let target = Target { namespace: Some(namespace.to_owned()), ..Target::all(gvr.clone()) };
        let list = self.server.list_objects(&target, &ListOptions::default()).await?;
        list.items.iter().map(|object| object.value()).collect()
    }

    fn random(&self, end: u64) -> u64 {
        self.server.dice.below(end)
    }

    fn settings(&self) -> &Settings {
        &self.server.settings
    }
}
