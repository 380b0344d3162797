//! `deletecollection`: deletes what a list picks, one by one.

use super::resolve::method_not_allowed;
use crate::api::{ApiResult, ObjectList, Target};
use crate::client::{DeleteOptions, ListOptions};
use crate::server::ApiServer;

impl ApiServer {
    pub(crate) async fn delete_objects(
        &self,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> ApiResult<ObjectList> {
        if target.name.is_some() || target.subresource.is_some() {
            return Err(method_not_allowed());
        }
        let picked = self.list_objects(target, list).await?;
        for object in &picked.items {
            let one = Target::object(target.gvr.clone(), &object.meta.namespace, &object.meta.name);
            match Box::pin(self.delete_object(&one, options)).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(picked)
    }
}
