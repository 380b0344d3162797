//! The invoker of a real cluster: functions through a gateway, URLs directly, containers as pods.

use super::http::{Ask, Http, HttpPolicy};
use super::invoker::{Heartbeat, Invocation, Invoker};
use super::job;
use super::machine::Failure;
use super::program::Target;
use async_trait::async_trait;
use http::Method;
use http::header::{HeaderName, HeaderValue};
use k8s_openapi::api::core::v1::Node;
use minik8s_core::client::{Client, Informer};
use minik8s_core::random;
use minik8s_core::routing::{GATEWAY_ANNOTATION, GatewayPlace};
use serde_json::Value;
use std::net::IpAddr;

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
    /// To gateways, wherever they are.
    inner: Http,
    /// To what the policy allows.
    outer: Http,
}

impl ClusterInvoker {
    /// An invoker of a cluster.
    pub fn new(client: Client, gateways: Gateways, policy: HttpPolicy) -> Self {
        Self { client, gateways, inner: Http::new(HttpPolicy::Any), outer: Http::new(policy) }
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
                let url = format!("http://{}/function/{}/{}", self.gateway()?, function.namespace, function.name);
                let (method, headers) = (Method::POST, Vec::new());
                self.inner.call(Ask { method, url: &url, headers, key: &call.key, run, body: &call.input }, alive).await
            }
            Target::Http(http) => {
                let method =
                    if http.method.is_empty() { Method::POST } else { http.method.parse().unwrap_or(Method::POST) };
                let header = |(name, value): (&String, &String)| {
                    Some((name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?))
                };
                let headers = http.headers.iter().filter_map(header).collect();
                let ask = Ask { method, url: &http.url, headers, key: &call.key, run, body: &call.input };
                self.outer.call(ask, alive).await
            }
            Target::Job(job) => job::run(&self.client, call, job, alive).await,
        }
    }

    async fn abandon(&self, call: &Invocation) {
        if matches!(call.target, Target::Job(_)) {
            job::abandon(&self.client, call).await;
        }
    }
}
