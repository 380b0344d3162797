//! A canary of a Deployment: one beside it, as large as its share asks for, whose template the other gets in the end.

use super::decide::Pair;
use crate::api::ApiResult;
use crate::client::{DeleteOptions, Informer, PatchType};
use crate::controllers::ControllerContext;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use std::sync::Arc;

/// What there is of a pair.
pub(super) struct Both {
    pub(super) stable: Option<Arc<Deployment>>,
    pub(super) canary: Option<Arc<Deployment>>,
}

/// What a share needs first.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing.
    Met,
    /// Pods that are on their way.
    Pods,
    /// So many replicas.
    Replicas(i32),
    /// What cannot be had.
    Never(String),
}

impl Both {
    pub(super) fn of(pair: &Pair, namespace: &str, deployments: &Informer<Deployment>) -> Self {
        let get = |name: &str| deployments.get(&format!("{namespace}/{name}"));
        Self { stable: get(&pair.stable), canary: get(&pair.canary) }
    }

    /// What there has to be before the canary gets so many percent: as many of its pods as that is of those that run.
    pub(super) fn need(&self, pair: &Pair, percent: u32) -> Need {
        let Some(canary) = &self.canary else { return Need::Never(format!("there is no Deployment {}", pair.canary)) };
        let Some(stable) = &self.stable else { return Need::Never(format!("there is no Deployment {}", pair.stable)) };
        if let Some(why) = stuck(canary) {
            return Need::Never(why);
        }
        let wanted = (i64::from(replicas(stable)) * i64::from(percent) + 99) / 100;
        let wanted = i32::try_from(wanted).unwrap_or(i32::MAX).max(1);
        if replicas(canary) < wanted {
            return Need::Replicas(wanted);
        }
        let status = canary.status.as_ref();
        let available = status.and_then(|status| status.available_replicas).unwrap_or(0);
        if observed(canary) && available >= wanted { Need::Met } else { Need::Pods }
    }
}

fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn observed(deployment: &Deployment) -> bool {
    let seen = deployment.status.as_ref().and_then(|status| status.observed_generation);
    seen.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

/// Why a Deployment does not get any further.
fn stuck(deployment: &Deployment) -> Option<String> {
    let conditions = deployment.status.as_ref()?.conditions.iter().flatten();
    let found = conditions.into_iter().find(|c| c.reason.as_deref() == Some("ProgressDeadlineExceeded"))?;
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    Some(format!("Deployment {name} makes no progress: {}", found.message.as_deref().unwrap_or_default()))
}

/// It runs what its template says, and nothing else.
fn rolled_out(deployment: &Deployment) -> bool {
    let Some(status) = deployment.status.as_ref().filter(|_| observed(deployment)) else { return false };
    let wanted = replicas(deployment);
    let all = |count: Option<i32>| count.unwrap_or(0) == wanted;
    all(status.replicas) && all(status.updated_replicas) && all(status.available_replicas)
}

/// The change that gives one Deployment what runs in the other's pods; `None` where it has it. Labels stay, as
/// selectors go by them.
fn promotion(stable: &Deployment, canary: &Deployment) -> Option<Value> {
    let (to, from) = (&stable.spec.as_ref()?.template, &canary.spec.as_ref()?.template);
    let annotations = |template: &k8s_openapi::api::core::v1::PodTemplateSpec| {
        template.metadata.as_ref().and_then(|meta| meta.annotations.clone())
    };
    if to.spec == from.spec && annotations(to) == annotations(from) {
        return None;
    }
    Some(json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": stable.metadata.resource_version},
        {"op": "add", "path": "/spec/template/spec", "value": from.spec},
        {"op": "add", "path": "/spec/template/metadata/annotations", "value": annotations(from).unwrap_or_default()},
    ]))
}

/// Makes the canary larger.
pub(super) async fn scale(ctx: &ControllerContext, namespace: &str, pair: &Pair, replicas: i32) -> ApiResult<()> {
    let api = ctx.client.api::<Deployment>(namespace);
    api.patch(&pair.canary, PatchType::Merge, &json!({"spec": {"replicas": replicas}})).await?;
    Ok(())
}

/// Gives the template to the Deployment that runs, and says whether that has been rolled out: until then, the canary
/// answers.
pub(super) async fn promote(ctx: &ControllerContext, namespace: &str, both: &Both) -> ApiResult<bool> {
    let (Some(stable), Some(beside)) = (&both.stable, &both.canary) else { return Ok(false) };
    let Some(patch) = promotion(stable, beside) else { return Ok(rolled_out(stable)) };
    let api = ctx.client.api::<Deployment>(namespace);
    api.patch(stable.metadata.name.as_deref().unwrap_or_default(), PatchType::Json, &patch).await?;
    Ok(false)
}

/// Takes away what was made for a canary that is over. Nobody is led there any more.
pub(super) async fn clear(ctx: &ControllerContext, namespace: &str, name: &str) -> ApiResult<()> {
    let gone = |result: ApiResult<()>| match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    };
    let options = DeleteOptions::default();
    gone(ctx.client.api::<Service>(namespace).delete(name, &options).await.map(drop))?;
    gone(ctx.client.api::<Deployment>(namespace).delete(name, &options).await.map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::from_value;

    fn deployment(replicas: i32, available: i32, image: &str) -> Arc<Deployment> {
        let template =
            json!({"metadata": {"labels": {"app": image}}, "spec": {"containers": [{"name": "c", "image": image}]}});
        let object = json!({"metadata": {"name": "web", "generation": 2},
            "spec": {"replicas": replicas, "selector": {}, "template": template},
            "status": {"observedGeneration": 2, "replicas": replicas, "updatedReplicas": replicas, "availableReplicas": available}});
        Arc::new(from_value(object).unwrap())
    }

    #[test]
    fn a_share_needs_as_many_pods_as_it_is_of_those_that_run() {
        let pair = Pair { stable: "web".into(), canary: "web-canary".into() };
        let need = |canary: Option<Arc<Deployment>>, percent| {
            Both { stable: Some(deployment(10, 10, "a")), canary }.need(&pair, percent)
        };
        assert_eq!(need(Some(deployment(1, 1, "b")), 10), Need::Met);
        assert_eq!(need(Some(deployment(1, 1, "b")), 11), Need::Replicas(2));
        assert_eq!(need(Some(deployment(0, 0, "b")), 1), Need::Replicas(1));
        assert_eq!(need(Some(deployment(5, 4, "b")), 50), Need::Pods);
        assert_eq!(need(None, 50), Need::Never("there is no Deployment web-canary".into()));
    }

    #[test]
    fn only_what_runs_is_taken_over_and_only_once() {
        let (stable, canary) = (deployment(3, 3, "a"), deployment(3, 3, "b"));
        let patch = promotion(&stable, &canary).unwrap();
        assert_eq!(patch[1]["value"]["containers"][0]["image"], "b");
        assert!(promotion(&stable, &deployment(1, 0, "a")).is_none());
        assert!(rolled_out(&stable) && !rolled_out(&deployment(3, 2, "a")));
    }
}
