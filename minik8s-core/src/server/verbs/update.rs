//! `update`: replaces an object, its status, or its scale.

use super::body::{check_place, check_revision, check_uid};
use super::modify::{Current, Modify};
use super::prepare::Part;
use super::resolve::{method_not_allowed, unknown_resource};
use crate::api::{ApiResult, Target};
use crate::client::{Payload, WriteOptions, Written};
use crate::server::ApiServer;
use serde_json::Value;

impl ApiServer {
    pub(crate) async fn update_object(
        &self,
        target: &Target,
        body: Payload,
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        let served = self.resolve(target)?;
        if target.name.is_none() {
            return Err(method_not_allowed());
        }
        let part = match target.subresource.as_deref() {
            None => Part::Main,
            Some("status") if served.kind.has_status() => Part::Status,
            Some("scale") if served.kind.scale().is_some() => {
                return self.update_scale(&served, target, &body, options).await;
            }
            Some(action) if served.kind.actions().iter().any(|a| a.name == action) => {
                return self.act(target, &body, options).await;
            }
            Some(_) => return Err(unknown_resource()),
        };
        let sent = self.read_body(&served, &body, options)?;
        check_place(target, &sent.object)?;
        let modify = Modify { served: &served, target, part, options };
        let written = self.modify(&modify, |current| propose(target, current, &sent.object)).await?;
        Ok(Written { warnings: sent.warnings, ..written })
    }
}

fn propose(target: &Target, current: &Current, sent: &Value) -> ApiResult<Value> {
    check_revision(target, sent, &current.object)?;
    check_uid(target, sent, &current.object)?;
    Ok(sent.clone())
}
