//! Says in the objects what became of them.

use super::look::Looked;
use super::{BY_REVISION, World};
use crate::functions::api::{Function, FunctionRevision};
use crate::functions::writes::gone;
use crate::functions::{revision, status};
use minik8s_core::api::ApiResult;
use minik8s_core::client::object_key;
use minik8s_core::controllers::is_ready;
use std::collections::HashMap;

impl World {
    /// Says in the objects what became of them.
    pub(super) async fn tell(&self, looked: &Looked) -> ApiResult<()> {
        let now = self.ctx.clock.now();
        let mut pods_of = HashMap::new();
        for revision in &looked.revisions {
            let name = revision.metadata.name.clone().unwrap_or_default();
            let pods = self.pods.list_by(BY_REVISION, &object_key(&looked.namespace, &name));
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            if let Some(told) = status::of_revision(revision, &pods, self.builds, now) {
                let api = self.ctx.client.api::<FunctionRevision>(&looked.namespace);
                // With the version it was read at: who builds writes this status too.
                let new = FunctionRevision { status: Some(told), ..(**revision).clone() };
                gone(api.update_status(&new).await.map(drop))?;
            }
            pods_of.insert(name, (pods.len(), ready));
        }
        let function = &looked.function;
        let (current, total) = (revision::name(function), |pick: fn(&(usize, usize)) -> usize| {
            i32::try_from(pods_of.values().map(pick).sum::<usize>()).unwrap_or(i32::MAX)
        });
        let newest = looked.revisions.iter().find(|r| r.metadata.name.as_deref() == Some(&current));
        let seen = status::Seen { plan: &looked.plan, stranger: looked.stranger.as_deref() };
        let told = status::of_function(function, newest.map(|r| &**r), &seen, (total(|p| p.0), total(|p| p.1)), now);
        if let Some(told) = told {
            let api = self.ctx.client.api::<Function>(&looked.namespace);
            let new = Function { status: Some(told), ..(**function).clone() };
            gone(api.update_status(&new).await.map(drop))?;
        }
        Ok(())
    }
}
