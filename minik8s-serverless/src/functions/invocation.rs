//! Calls that nobody waits for: an `Invocation` is one, durable in the store, with its result beside it. At least once:
//! an attempt is counted before it is made, and one whose end was not seen (a crash, a broken connection) is made again
//! under the same `Idempotency-Key`: the caller's, or else the object's uid.
//!
//! Workers only see what is due and put it into the lane of its function; calls run beside them, so many at once of each: a
//! function that never answers keeps its own calls waiting and nobody else's.

use super::InvokerChoice;
use super::api::{Function, Invocation, InvocationStatus};
use crate::lanes::{Crew, Errand};
use crate::workflow::program::Target;
use crate::workflow::spec::FunctionRef;
use crate::workflow::{ClusterInvoker, Gateways, Heartbeat, HttpPolicy, Invocation as Call, Invoker};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use minik8s_core::api::ApiResult;
use minik8s_core::client::{Change, DeleteOptions, DeletePreconditions, Informer, PatchType, key_of, object_key};
use minik8s_core::controllers::{
    Controller, ControllerContext, Outcome, Reconciler, controller_reference, pump, run_workers,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Invocations that are looked at at once.
const WORKERS: usize = 8;
/// Calls of a function under way at once, and of all functions.
const ROOM: usize = 64;
const AT_ONCE: usize = 1024;
/// Attempts before it is given up.
const ATTEMPTS: i32 = 5;
/// Wait after the first attempt; doubled after each.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Largest result that is kept.
const LARGEST: usize = 256 << 10;
/// So many results of one function are kept, and so many bytes of them and of what they answer; the oldest go first.
const KEPT: usize = 1000;
const KEPT_BYTES: usize = 64 << 20;
/// Invocations that are over, by function.
const OVER: &str = "over-by-function";

/// Makes the calls.
pub(super) struct InvocationController {
    pub(super) invoker: InvokerChoice,
}

#[async_trait]
impl Controller for InvocationController {
    fn name(&self) -> &str {
        "invocation-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let (invocations, functions) = (ctx.informers.of::<Invocation>(), ctx.informers.of::<Function>());
        let _ended = invocations.synced().await && functions.synced().await;
        let over = |i: &Invocation| i.status.as_ref().is_some_and(is_over);
        invocations.add_index(OVER, move |i| if over(i) { vec![function_of(i)] } else { Vec::new() });
        let queue = ctx.queue();
        let q = queue.clone();
        pump(&ctx, &invocations, move |change| {
            if let Change::Applied { new, .. } = change {
                q.add(key_of(&**new));
            }
        });
        let invoker = self.invoker.0.clone().unwrap_or_else(|| {
            let nodes = Gateways::OfNodes(ctx.informers.of::<Node>());
            Arc::new(ClusterInvoker::new(ctx.client.clone(), nodes, HttpPolicy::Nothing))
        });
        let calls = Arc::new(Calls { invoker, invocations, functions, ctx: ctx.clone() });
        let crew = Crew::new(calls.clone(), AT_ONCE, queue.clone(), ctx.stop.clone());
        run_workers(&ctx, &queue, WORKERS, Arc::new(Lookout { calls, crew })).await;
    }
}

struct Calls {
    ctx: ControllerContext,
    invocations: Informer<Invocation>,
    functions: Informer<Function>,
    invoker: Arc<dyn Invoker>,
}

/// What is next for an invocation.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It is called, as this attempt.
    Call(i32),
    /// Nothing before then.
    Wait(Duration),
    /// Its result has been kept for long enough.
    Forget,
}

/// True where nothing more comes of a call.
pub(crate) fn is_over(status: &InvocationStatus) -> bool {
    matches!(status.phase.as_str(), "Succeeded" | "Failed")
}

/// The key of the function that is called.
pub(crate) fn function_of(invocation: &Invocation) -> String {
    object_key(invocation.metadata.namespace.as_deref().unwrap_or_default(), &invocation.spec.function)
}

/// What came of a call goes with its function.
pub(crate) fn belongs_to(function: &Function) -> OwnerReference {
    OwnerReference { controller: None, block_owner_deletion: None, ..controller_reference(function) }
}

/// Those of one function whose results are too many to be kept.
fn too_many(mut over: Vec<Arc<Invocation>>) -> Vec<Arc<Invocation>> {
    let ended = |i: &Arc<Invocation>| i.status.as_ref().and_then(|s| s.completion_time.clone());
    over.sort_by_cached_key(|i| std::cmp::Reverse(ended(i)));
    let mut bytes = 0;
    let fits = over.iter().take(KEPT).take_while(|i| {
        bytes += i.spec.body.len() + i.status.as_ref().map_or(0, |s| s.body.len() + s.message.len());
        bytes <= KEPT_BYTES
    });
    let kept = fits.count();
    over.split_off(kept)
}

fn next(invocation: &Invocation, now: Timestamp) -> Next {
    let status = invocation.status.clone().unwrap_or_default();
    let left = |since: Option<MicroTime>, span: Duration| {
        let end = since.map_or(now, |at| at.0).saturating_add(SignedDuration::try_from(span).unwrap_or_default());
        Duration::try_from(end.unwrap_or(now).duration_since(now)).unwrap_or_default()
    };
    if is_over(&status) {
        let kept = Duration::from_secs(u64::try_from(invocation.spec.ttl_seconds).unwrap_or(0));
        let left = left(status.completion_time, kept);
        return if left.is_zero() { Next::Forget } else { Next::Wait(left) };
    }
    // An attempt under way whose end nobody saw: the process that made it is gone.
    let wait = match status.phase.as_str() {
        "Waiting" => FIRST_WAIT * 2_u32.saturating_pow(u32::try_from(status.attempts - 1).unwrap_or(0)),
        _ => Duration::ZERO,
    };
    let left = left(status.completion_time, wait);
    if left.is_zero() { Next::Call(status.attempts + 1) } else { Next::Wait(left) }
}

/// Failures after which the same call may work.
fn may_work_later(error: &str) -> bool {
    matches!(error, "Unavailable" | "Timeout")
}

/// Sees what is next for invocations.
struct Lookout {
    calls: Arc<Calls>,
    crew: Arc<Crew<Calls>>,
}

#[async_trait]
impl Reconciler for Lookout {
    type Key = String;

    async fn reconcile(&self, key: &String) -> ApiResult<Outcome> {
        let of = &self.calls;
        let here = of.invocations.get(key).filter(|invocation| invocation.metadata.deletion_timestamp.is_none());
        let Some(invocation) = here else {
            self.crew.forget(key);
            return Ok(Outcome::Done);
        };
        match next(&invocation, of.ctx.clock.now()) {
            Next::Wait(left) => {
                self.crew.forget(key);
                if invocation.status.as_ref().is_some_and(is_over) {
                    for old in too_many(of.invocations.list_by(OVER, &function_of(&invocation))) {
                        of.forget(&old).await?;
                    }
                }
                Ok(Outcome::After(left))
            }
            Next::Forget => of.forget(&invocation).await.map(|()| Outcome::Done),
            Next::Call(_) => {
                self.crew.add(&function_of(&invocation), ROOM, key);
                Ok(Outcome::Done)
            }
        }
    }
}

/// Makes one attempt, and writes what came of it.
#[async_trait]
impl Errand for Calls {
    async fn run(&self, key: &str) -> ApiResult<()> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let api = self.ctx.client.api::<Invocation>(namespace);
        // What the informer has not seen yet counts: an attempt that has just ended is not made again.
        let Some(invocation) = api.get_opt(name).await? else { return Ok(()) };
        let Next::Call(attempt) = next(&invocation, self.ctx.clock.now()) else { return Ok(()) };
        if invocation.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let now = MicroTime(self.ctx.clock.now());
        let started = invocation.status.as_ref().and_then(|s| s.start_time.clone()).unwrap_or(now);
        // The version is a precondition: nobody makes the same attempt, and one that is not known is not made.
        let version = json!({"resourceVersion": self.adopt(&invocation).await?});
        let status = json!({"phase": "Running", "attempts": attempt, "startTime": started});
        let patch = json!({"metadata": version, "status": status});
        api.patch_status(name, PatchType::Merge, &patch).await?;
        let told = self.call(&invocation, attempt).await;
        api.patch_status(name, PatchType::Merge, &json!({ "status": told })).await?;
        Ok(())
    }
}

impl Calls {
    /// A call that was asked for through the API goes with its function, too. The version that it has then.
    async fn adopt(&self, invocation: &Invocation) -> ApiResult<Option<String>> {
        let meta = &invocation.metadata;
        let orphan = meta.owner_references.as_ref().is_none_or(Vec::is_empty);
        let function = self.functions.get(&function_of(invocation)).filter(|_| orphan);
        let Some(function) = function else { return Ok(meta.resource_version.clone()) };
        let owned = json!({"resourceVersion": meta.resource_version, "ownerReferences": [belongs_to(&function)]});
        let api = self.ctx.client.api::<Invocation>(meta.namespace.as_deref().unwrap_or_default());
        let name = meta.name.as_deref().unwrap_or_default();
        let adopted = api.patch(name, PatchType::Merge, &json!({ "metadata": owned })).await?;
        Ok(adopted.metadata.resource_version)
    }

    async fn forget(&self, invocation: &Invocation) -> ApiResult<()> {
        let meta = &invocation.metadata;
        let api = self.ctx.client.api::<Invocation>(meta.namespace.as_deref().unwrap_or_default());
        let preconditions = DeletePreconditions { uid: meta.uid.clone(), resource_version: None };
        let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
        match api.delete(meta.name.as_deref().unwrap_or_default(), &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    /// One attempt, and what is to be told of it.
    async fn call(&self, invocation: &Invocation, attempt: i32) -> Value {
        let meta = &invocation.metadata;
        let namespace = meta.namespace.clone().unwrap_or_default();
        let function = FunctionRef { namespace: namespace.clone(), name: invocation.spec.function.clone() };
        let given = Some(&invocation.spec.idempotency_key).filter(|key| !key.is_empty());
        let call = Call {
            key: given.or(meta.uid.as_ref()).cloned().unwrap_or_default(),
            namespace,
            run: meta.name.clone().unwrap_or_default(),
            step: String::new(),
            target: Target::Function(function),
            input: serde_json::from_str(&invocation.spec.body).unwrap_or_else(|_| json!({})),
        };
        let answer = self.invoker.invoke(&call, &Heartbeat::default()).await;
        let at = MicroTime(self.ctx.clock.now());
        match answer.map(|value| value.to_string()) {
            Ok(body) if body.len() > LARGEST => json!({"phase": "Failed", "completionTime": at,
                "message": format!("the answer has {} bytes; results are kept up to {LARGEST}", body.len())}),
            Ok(body) => json!({"phase": "Succeeded", "completionTime": at, "body": body, "message": null}),
            Err(failure) => {
                let again = may_work_later(&failure.error) && attempt < ATTEMPTS;
                let phase = if again { "Waiting" } else { "Failed" };
                json!({"phase": phase, "completionTime": at, "message": format!("{}: {}", failure.error, failure.cause)})
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation(phase: &str, attempts: i32, ended: Option<i64>) -> Invocation {
        let completion_time = ended.map(|s| MicroTime(Timestamp::from_second(s).unwrap()));
        let status = InvocationStatus { phase: phase.into(), attempts, completion_time, ..InvocationStatus::default() };
        let mut invocation = Invocation { status: Some(status), ..Invocation::default() };
        invocation.spec.ttl_seconds = 60;
        invocation
    }

    #[test]
    fn what_was_begun_and_not_ended_is_called_again_and_results_are_kept_for_a_while() {
        let now = Timestamp::from_second(100).unwrap();
        let table = [
            (invocation("", 0, None), Next::Call(1)),
            (invocation("Running", 1, None), Next::Call(2)),
            (invocation("Waiting", 1, Some(100)), Next::Wait(Duration::from_secs(1))),
            (invocation("Waiting", 3, Some(100)), Next::Wait(Duration::from_secs(4))),
            (invocation("Waiting", 3, Some(96)), Next::Call(4)),
            (invocation("Succeeded", 1, Some(90)), Next::Wait(Duration::from_secs(50))),
            (invocation("Failed", 5, Some(30)), Next::Forget),
        ];
        for (invocation, want) in table {
            assert_eq!(next(&invocation, now), want, "{:?}", invocation.status);
        }
        assert!(may_work_later("Unavailable") && !may_work_later("TaskFailed") && !may_work_later("NotFound"));
    }

    #[test]
    fn the_oldest_results_go_where_there_are_too_many() {
        let over = |number: i64, size: usize| {
            let mut invocation = Invocation::default();
            invocation.metadata.name = Some(number.to_string());
            let at = MicroTime(Timestamp::from_second(number).unwrap());
            let status = InvocationStatus { completion_time: Some(at), body: "x".repeat(size), ..Default::default() };
            invocation.status = Some(status);
            Arc::new(invocation)
        };
        let gone = |all: Vec<Arc<Invocation>>| -> Vec<String> {
            too_many(all).iter().map(|i| i.metadata.name.clone().unwrap()).collect()
        };
        let kept = i64::try_from(KEPT).unwrap();
        assert!(gone((0..kept).map(|n| over(n, 1)).collect()).is_empty());
        assert_eq!(gone((0..kept + 2).map(|n| over(n, 1)).collect()), ["1", "0"]);
        let large = KEPT_BYTES / 2;
        assert_eq!(gone(vec![over(1, large), over(3, large), over(2, large)]), ["1"]);
        assert_eq!(gone(vec![over(1, KEPT_BYTES + 1)]), ["1"]);
    }
}
