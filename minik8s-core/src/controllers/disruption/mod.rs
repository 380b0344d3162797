//! Says of every PodDisruptionBudget how many of its pods may be evicted now. Evictions themselves are the server's: it
//! takes from what is allowed in the commit that lets the pod go.

mod decide;
mod owners;

pub use decide::{Expected, Verdict, judge, needs_owners};

use super::{Controller, ControllerContext, KindDirectory, Outcome, Reconciler, pump, run_workers};
use crate::api::{ApiResult, Selector};
use crate::client::{Change, EventType, Informer, WorkQueue, key_of, reference_of};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget as Budget;
use owners::Owners;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Keeps the status of PodDisruptionBudgets.
pub struct DisruptionController {
    /// How many budgets are looked at at once.
    pub workers: usize,
    /// The kinds that may own pods.
    pub kinds: Arc<dyn KindDirectory>,
}

#[async_trait]
impl Controller for DisruptionController {
    fn name(&self) -> &str {
        "disruption-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let (budgets, pods) = (ctx.informers.of::<Budget>(), ctx.informers.of::<Pod>());
        let (_, _) = tokio::join!(budgets.synced(), pods.synced());
        let queue = ctx.queue();
        watch(&ctx, &queue, &budgets, &pods);
        let owners = Owners { client: ctx.client.clone(), kinds: self.kinds.clone() };
        let world = Budgets { ctx: ctx.clone(), budgets, pods, owners };
        run_workers(&ctx, &queue, self.workers, Arc::new(world)).await;
    }
}

fn watch(ctx: &ControllerContext, queue: &WorkQueue<String>, budgets: &Informer<Budget>, pods: &Informer<Pod>) {
    let q = queue.clone();
    pump(ctx, budgets, move |change| {
        if let Change::Applied { new, .. } = change {
            q.add(key_of(&**new));
        }
    });
    let (q, budgets) = (queue.clone(), budgets.clone());
    pump(ctx, pods, move |change| match change {
        Change::Applied { old, new } => {
            old.iter().chain([new]).for_each(|pod| concerned(&q, &budgets, pod));
        }
        Change::Deleted(pod) => concerned(&q, &budgets, pod),
        Change::Resync => budgets.list().iter().for_each(|budget| q.add(key_of(&**budget))),
    });
}

/// Queues the budgets that cover the pod.
fn concerned(queue: &WorkQueue<String>, budgets: &Informer<Budget>, pod: &Pod) {
    for budget in budgets.list_in(pod.metadata.namespace.as_deref().unwrap_or_default()) {
        if selector(&budget).is_some_and(|s| covers(&s, pod)) {
            queue.add(key_of(&*budget));
        }
    }
}

/// What a budget covers. Here an empty selector picks everything, and none nothing.
fn selector(budget: &Budget) -> Option<Selector> {
    Selector::from_typed(Some(budget.spec.as_ref()?.selector.as_ref()?)).ok()
}

fn covers(selector: &Selector, pod: &Pod) -> bool {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    selector.matches(pod.metadata.labels.as_ref().unwrap_or(&NONE))
}

struct Budgets {
    ctx: ControllerContext,
    budgets: Informer<Budget>,
    pods: Informer<Pod>,
    owners: Owners,
}

#[async_trait]
impl Reconciler for Budgets {
    type Key = String;

    async fn reconcile(&self, key: &String) -> ApiResult<Outcome> {
        let Some(budget) = self.budgets.get(key) else { return Ok(Outcome::Done) };
        let namespace = budget.metadata.namespace.as_deref().unwrap_or_default();
        let selector = selector(&budget);
        let covered = |pod: &Arc<Pod>| selector.as_ref().is_some_and(|s| covers(s, pod));
        let pods: Vec<_> = self.pods.list_in(namespace).into_iter().filter(covered).collect();
        let expected = if needs_owners(&budget) { self.owners.wanted(&pods).await? } else { Expected::Pods(0) };
        let verdict = judge(&budget, &pods, &expected, self.ctx.clock.now());
        self.tell(&budget, &pods, &expected, &verdict);
        if budget.status.as_ref() != Some(&verdict.status) {
            let new = Budget { status: Some(verdict.status), ..Budget::clone(&budget) };
            self.ctx.client.api::<Budget>(namespace).update_status(&new).await?;
        }
        Ok(verdict.again.map_or(Outcome::Done, Outcome::After))
    }
}

impl Budgets {
    fn tell(&self, budget: &Budget, pods: &[Arc<Pod>], expected: &Expected, verdict: &Verdict) {
        let about = reference_of(budget);
        if pods.is_empty() {
            self.ctx.events.event(&about, EventType::Normal, "NoPods", "No matching pods found");
        }
        if let Expected::Unknown(why) = expected {
            let note = format!("Failed to calculate the number of expected pods: {why}");
            self.ctx.events.event(&about, EventType::Warning, "CalculateExpectedPodCountFailed", note);
        }
        for name in &verdict.not_deleted {
            let note = format!("Pod {name} was expected by its budget to be deleted but it wasn't");
            self.ctx.events.event(&about, EventType::Warning, "NotDeleted", note);
        }
    }
}
