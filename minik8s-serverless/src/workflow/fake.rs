//! An invoker that calls functions of this process: for tests, and for programs that embed a cluster.

use super::invoker::{Heartbeat, Invocation, Invoker};
use super::machine::Failure;
use super::program::Target;
use async_trait::async_trait;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

type Function = Arc<dyn Fn(Invocation, Heartbeat) -> BoxFuture<'static, Result<Value, Failure>> + Send + Sync>;

/// Functions of this process, by `namespace/name`. Remembers what was asked for. Cheap to clone.
#[derive(Clone, Default)]
pub struct FakeInvoker {
    functions: Arc<Mutex<BTreeMap<String, Function>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeInvoker {
    /// Without a function.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a function that answers at once.
    #[must_use]
    pub fn with(self, name: &str, function: impl Fn(&Value) -> Result<Value, Failure> + Send + Sync + 'static) -> Self {
        self.with_async(name, move |call, _| {
            let result = function(&call.input);
            Box::pin(async move { result })
        })
    }

    /// With a function that takes its time.
    #[must_use]
    pub fn with_async(
        self,
        name: &str,
        function: impl Fn(Invocation, Heartbeat) -> BoxFuture<'static, Result<Value, Failure>> + Send + Sync + 'static,
    ) -> Self {
        self.functions.lock().insert(name.to_owned(), Arc::new(function));
        self
    }

    /// The keys of all that was asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

#[async_trait]
impl Invoker for FakeInvoker {
    async fn invoke(&self, call: &Invocation, alive: &Heartbeat) -> Result<Value, Failure> {
        self.asked.lock().push(call.key.clone());
        let name = match &call.target {
            Target::Function(function) => format!("{}/{}", function.namespace, function.name),
            Target::Http(http) => http.url.clone(),
            Target::Job(_) | Target::GpuJob(_) => {
                return Err(Failure::new("NotAllowed", "functions of this process are no containers"));
            }
        };
        let function = self.functions.lock().get(&name).cloned();
        let function = function.ok_or_else(|| Failure::new("NotFound", format!("there is no function {name}")))?;
        function(call.clone(), alive.clone()).await
    }
}
