//! An API server, the functions of this process, and controllers that can be killed.

use minik8s_core::client::{Client, SharedTransport};
use minik8s_core::clock::{SharedClock, SystemClock};
use minik8s_core::cluster::{Cluster, Extension};
use minik8s_core::controllers::{Controller, ControllerManager};
use minik8s_core::store::MemoryStore;
use minik8s_core::testkit::faults::FaultyTransport;
use minik8s_core::testkit::wait;
use minik8s_serverless::Serverless;
use minik8s_serverless::workflow::{
    CallLimits, Failure, FakeInvoker, RunStatus, Workflow, WorkflowRun, WorkflowsConfig, events, machine::Event,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const BOUND: Duration = Duration::from_secs(120);

/// The functions of the reference results.
pub(crate) fn reference() -> FakeInvoker {
    let of = |function: fn(i64, i64) -> (i64, i64)| {
        move |input: &Value| {
            let number = |name: &str| {
                input[name].as_i64().ok_or_else(|| Failure::new("TaskFailed", format!("{name} is no number")))
            };
            let (x, y) = function(number("x")?, number("y")?);
            Ok(json!({"x": x, "y": y}))
        }
    };
    FakeInvoker::new()
        .with("default/f1", of(|x, y| (x - y, y - x)))
        .with("default/f2", of(|x, y| (x + y, x - y)))
        .with("default/f3", of(|x, y| (x * x, y * y)))
        .with("default/echo", |input| Ok(input.clone()))
        .with("default/broken", |_| Err(Failure::new("TaskFailed", "it is broken")))
}

/// A cluster without loops, to which controllers come and go.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) invoker: FakeInvoker,
    /// What controllers that start take for the time.
    pub(crate) clock: SharedClock,
    pub(crate) limits: CallLimits,
    running: Option<(JoinHandle<()>, CancellationToken)>,
}

impl World {
    pub(crate) async fn new(invoker: FakeInvoker) -> Self {
        Self::on(Arc::new(MemoryStore::default()), invoker).await
    }

    pub(crate) async fn on(store: Arc<dyn minik8s_core::store::Store>, invoker: FakeInvoker) -> Self {
        let cluster =
            Cluster::builder().store(store).extension(Serverless::new()).without_controllers().start().await.unwrap();
        let mut world =
            Self { cluster, invoker, clock: Arc::new(SystemClock), limits: CallLimits::default(), running: None };
        world.start();
        world
    }

    pub(crate) fn client(&self) -> Client {
        self.cluster.client()
    }

    pub(crate) fn controllers(&self) -> Vec<Arc<dyn Controller>> {
        let invoker = Some(Arc::new(self.invoker.clone()) as _);
        let config = WorkflowsConfig { invoker, limits: self.limits, ..WorkflowsConfig::default() };
        let all = Serverless::new().workflows(config).controllers().into_iter();
        all.filter(|controller| controller.name().starts_with("workflow")).collect()
    }

    pub(crate) fn start(&mut self) {
        self.start_over(self.cluster.transport());
    }

    /// Starts controllers, and others beside them.
    pub(crate) fn start_with(&mut self, others: Vec<Arc<dyn Controller>>) {
        self.start_all(self.cluster.transport(), others);
    }

    /// Starts controllers that reach the API through this.
    pub(crate) fn start_over(&mut self, transport: SharedTransport) {
        self.start_all(transport, Vec::new());
    }

    fn start_all(&mut self, transport: SharedTransport, others: Vec<Arc<dyn Controller>>) {
        let all = self.controllers().into_iter().chain(others).collect();
        let manager = ControllerManager::new(Client::new(transport), self.clock.clone(), all);
        let stop = CancellationToken::new();
        self.running = Some((tokio::spawn(manager.run(stop.clone())), stop));
    }

    /// Starts controllers that die at the instant when so many of their writes were carried out. False: the run was over
    /// before.
    pub(crate) async fn dies_after(&mut self, writes: usize, run: &str) -> bool {
        let faulty = FaultyTransport::new(self.cluster.transport(), 0);
        faulty.heal();
        faulty.die_after(writes);
        self.start_over(faulty.clone());
        let died = tokio::select! {
            () = faulty.dead() => true,
            _ = self.ended(run) => false,
        };
        self.kill();
        died
    }

    /// Ends the controllers wherever they are.
    pub(crate) fn kill(&mut self) {
        if let Some((task, stop)) = self.running.take() {
            stop.cancel();
            task.abort();
        }
    }

    pub(crate) async fn stop(mut self) {
        self.kill();
        self.cluster.stop().await;
    }

    pub(crate) async fn workflow(&self, name: &str, spec: Value) {
        let workflow: Workflow = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        self.client().api::<Workflow>("default").create(&workflow).await.unwrap();
    }

    pub(crate) async fn begin(&self, name: &str, workflow: &str, input: Value) {
        let run: WorkflowRun =
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"workflow": workflow, "input": input}}))
                .unwrap();
        self.client().api::<WorkflowRun>("default").create(&run).await.unwrap();
    }

    pub(crate) async fn run(&self, name: &str) -> WorkflowRun {
        self.client().api::<WorkflowRun>("default").get(name).await.unwrap()
    }

    pub(crate) async fn ended(&self, name: &str) -> RunStatus {
        wait::until(&format!("the run {name} is over"), BOUND, || async {
            let status = self.run(name).await.status.unwrap_or_default();
            ["Succeeded", "Failed", "Cancelled"].contains(&status.phase.as_str()).then_some(status)
        })
        .await
    }

    pub(crate) async fn events(&self, name: &str) -> Vec<Event> {
        let status = self.run(name).await.status.unwrap_or_default();
        events(&self.client(), "default", &status.history).await.unwrap()
    }
}

/// A task of a function, and what comes after it.
pub(crate) fn task(name: &str, function: &str, next: &str) -> Value {
    let mut step = json!({"name": name, "task": {"function": {"name": function}}});
    if next.is_empty() {
        step["end"] = json!(true)
    } else {
        step["next"] = json!(next)
    }
    step
}
