//! The invoker of a real cluster: functions through a gateway, URLs directly, containers and jobs as objects.

use super::http::{Ask, Failed, Http, HttpPolicy, REQUEST_HEADER};
use super::invoker::{Heartbeat, Invocation, Invoker};
use super::machine::Failure;
use super::program::Target;
use super::trust::Authorities;
use super::work;
use async_trait::async_trait;
use http::Method;
use http::header::{HeaderName, HeaderValue};
use k8s_openapi::api::core::v1::Node;
use minik8s_core::client::{Backoff, Client, Informer};
use minik8s_core::random;
use minik8s_core::routing::{GATEWAY_ANNOTATION, GatewayPlace};
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// How long a call waits for a gateway, and a job for an API that answers: longer than a node takes to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pauses between looks for one.
pub(super) const AGAIN: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));

/// Where functions are called.
#[derive(Clone)]
pub enum Gateways {
    /// At this `host:port`.
    At(String),
    /// At the gateway of any node that has one.
    OfNodes(Informer<Node>),
}

/// Calls functions through a gateway, URLs directly, and runs containers as pods. Cheap to clone.
#[derive(Clone)]
pub struct ClusterInvoker {
    client: Client,
    gateways: Gateways,
    /// How long a call waits for a gateway that can be reached, and a job for an API that answers.
    patience: Duration,
    /// To gateways, wherever they are.
    inner: Http,
    /// To what the policy allows.
    outer: Http,
}

impl ClusterInvoker {
    /// An invoker of a cluster.
    pub fn new(client: Client, gateways: Gateways, policy: HttpPolicy) -> Self {
        Self { client, gateways, patience: PATIENCE, inner: Http::new(HttpPolicy::Any), outer: Http::new(policy) }
    }

    /// Trusts certificates of these authorities beside those of the machine, where URLs are called over HTTPS.
    #[must_use]
    pub fn authorities(self, authorities: Authorities) -> Self {
        Self { outer: self.outer.trusting(authorities), ..self }
    }

    /// Waits so long for a gateway that can be reached, or, where a job is followed, for an API that answers; a minute
    /// unless said.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Calls a function at any gateway. Where none can be reached, as after a restart, nobody has heard of the call: it waits
    /// and tries another one.
    async fn call_function(
        &self,
        call: &Invocation,
        path: &str,
        run: &str,
        alive: &Heartbeat,
    ) -> Result<Value, Failure> {
        let began = Instant::now();
        let mut failures = 0;
        loop {
            let result = match self.gateway() {
                Ok(gateway) => {
                    let (url, run) = (format!("http://{gateway}{path}"), run.to_owned());
                    let (method, headers) = (Method::POST, request_id(call));
                    let ask = Ask { method, url: &url, headers, key: &call.key, run, body: &call.input };
                    self.inner.call(ask, alive).await
                }
                Err(failure) => Err(Failed { failure, undelivered: true }),
            };
            match result {
                Err(failed) if failed.undelivered && began.elapsed() < self.patience => {
                    failures += 1;
                    tokio::time::sleep(AGAIN.jittered(failures, random::fraction())).await;
                }
                other => return other.map_err(|failed| failed.failure),
            }
        }
    }

    fn gateway(&self) -> Result<String, Failure> {
        match &self.gateways {
            Gateways::At(place) => Ok(place.clone()),
            Gateways::OfNodes(nodes) => {
                let places: Vec<String> = nodes.list().iter().filter_map(|node| place(node)).collect();
                let chosen = places.get((random::fraction() * places.len() as f64) as usize);
                chosen
                    .cloned()
                    .ok_or_else(|| Failure::new("Unavailable", "no ready node has a gateway to call functions at"))
            }
        }
    }
}

/// What logs call a call: the name of what is called once, the key of an attempt.
fn request_id(call: &Invocation) -> Vec<(HeaderName, HeaderValue)> {
    let id = if call.step.is_empty() { &call.run } else { &call.key };
    let id = id.parse::<HeaderValue>().ok();
    id.map(|id| (HeaderName::from_static(REQUEST_HEADER), id)).into_iter().collect()
}

/// Where the gateway of a node listens, if it has one and is ready.
fn place(node: &Node) -> Option<String> {
    let said = node.metadata.annotations.as_ref()?.get(GATEWAY_ANNOTATION)?;
    let port = serde_json::from_str::<GatewayPlace>(said).ok()?.http?;
    let status = node.status.as_ref()?;
    status.conditions.iter().flatten().find(|c| c.type_ == "Ready" && c.status == "True")?;
    let address = status.addresses.iter().flatten().find(|a| a.type_ == "InternalIP")?;
    let ip: IpAddr = address.address.parse().ok()?;
    Some(std::net::SocketAddr::new(ip, port).to_string())
}

#[async_trait]
impl Invoker for ClusterInvoker {
    async fn invoke(&self, call: &Invocation, alive: &Heartbeat) -> Result<Value, Failure> {
        let run = format!("{}/{}", call.namespace, call.run);
        match &call.target {
            Target::Function(function) => {
                let path = format!("/function/{}/{}", function.namespace, function.name);
                self.call_function(call, &path, &run, alive).await
            }
            Target::Http(http) => {
                let method =
                    if http.method.is_empty() { Method::POST } else { http.method.parse().unwrap_or(Method::POST) };
                let header = |(name, value): (&String, &String)| {
                    Some((name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?))
                };
                let headers = http.headers.iter().filter_map(header).collect();
                let ask = Ask { method, url: &http.url, headers, key: &call.key, run, body: &call.input };
                self.outer.call(ask, alive).await.map_err(|failed| failed.failure)
            }
            Target::Job(job) => work::run(&self.client, call, job, alive, self.patience).await,
            Target::GpuJob(job) => work::run(&self.client, call, job, alive, self.patience).await,
        }
    }

    async fn abandon(&self, call: &Invocation) {
        if let Some(work) = work::of(&call.target) {
            work::abandon(&self.client, call, work, self.patience).await;
        }
    }
}
