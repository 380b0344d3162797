//! One try of a probe or hook: a command, a request, a connection. `Err` tells people why it failed.

use super::super::context::Context;
use super::{grpc, http};
use crate::runtime::{ExecSpec, Output};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::net::IpAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// How much of a command's output is read for its message.
const OUTPUT_LIMIT: usize = 10 << 10;

/// Where a container is reached, and what its ports are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) ip: Option<IpAddr>,
    pub(crate) ports: Vec<(String, i32)>,
}

impl Place {
    pub(crate) fn new(ip: Option<IpAddr>, container: &Container) -> Self {
        let ports = container.ports.iter().flatten();
        Self { ip, ports: ports.filter_map(|p| Some((p.name.clone()?, p.container_port))).collect() }
    }

    fn port(&self, port: &IntOrString) -> Result<u16, String> {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => {
                let named = self.ports.iter().find(|(there, _)| there == name).map(|(_, number)| *number);
                named.or_else(|| name.parse().ok())
            }
        };
        let number = number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
        number.ok_or_else(|| format!("the container has no port {port:?}"))
    }

    fn host(&self, host: Option<&String>) -> Result<String, String> {
        match (host.filter(|h| !h.is_empty()), self.ip) {
            (Some(host), _) => Ok(host.clone()),
            (None, Some(ip)) => Ok(ip.to_string()),
            (None, None) => Err("the pod has no address".to_owned()),
        }
    }
}

/// One try of a probe.
pub(crate) async fn run(
    context: &Context,
    id: &str,
    probe: &Probe,
    place: &Place,
    timeout: Duration,
) -> Result<(), String> {
    if let Some(action) = &probe.exec {
        return exec(context, id, action.command.clone().unwrap_or_default(), timeout).await.map(drop);
    }
    // Simulated processes listen nowhere: there is nothing to connect to, and nothing that could be unwell.
    if !context.real_processes() {
        return Ok(());
    }
    if let Some(action) = &probe.http_get {
        http_get(action, place, timeout).await
    } else if let Some(action) = &probe.tcp_socket {
        tcp(action, place, timeout).await
    } else if let Some(action) = &probe.grpc {
        let host = place.host(None)?;
        let service = action.service.clone().unwrap_or_default();
        let port = place.port(&IntOrString::Int(action.port))?;
        grpc::check(&host, port, service, timeout).await
    } else {
        Err("the probe says neither exec nor httpGet nor tcpSocket nor grpc".to_owned())
    }
}

/// Runs a command in a container; its output, where it ends well.
pub(crate) async fn exec(
    context: &Context,
    id: &str,
    command: Vec<String>,
    timeout: Duration,
) -> Result<String, String> {
    let line = command.join(" ");
    let spec = ExecSpec { command, tty: false, stdin: false };
    let work = async {
        let mut session = context.runtime.exec(id, spec).await.map_err(|e| e.to_string())?;
        let mut text = Vec::new();
        while let Some(Output::Stdout(bytes) | Output::Stderr(bytes)) = session.output.recv().await {
            let room = OUTPUT_LIMIT.saturating_sub(text.len());
            text.extend_from_slice(&bytes[..room.min(bytes.len())]);
        }
        let text = String::from_utf8_lossy(&text).trim_end().to_owned();
        match session.exit.await {
            Ok(Ok(0)) => Ok(text),
            Ok(Ok(_)) if !text.is_empty() => Err(text),
            Ok(Ok(code)) => Err(format!("command {line:?} exited with {code}")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("command {line:?} was cut off")),
        }
    };
    let late = || Err(format!("command {line:?} timed out after {timeout:?}"));
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| late())
}

/// A request that must be answered with a code from 200 to 399.
pub(crate) async fn http_get(action: &HTTPGetAction, place: &Place, timeout: Duration) -> Result<(), String> {
    let request = http::Request {
        tls: action.scheme.as_deref() == Some("HTTPS"),
        host: place.host(action.host.as_ref())?,
        port: place.port(&action.port)?,
        path: action.path.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| "/".to_owned()),
        headers: action.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect(),
    };
    let url = request.url();
    let status = tokio::time::timeout(timeout, http::get(request)).await;
    match status.map_err(|_| format!("Get \"{url}\": timed out after {timeout:?}"))? {
        Ok(200..=399) => Ok(()),
        Ok(code) => Err(format!("HTTP probe failed with statuscode: {code}")),
        Err(why) => Err(format!("Get \"{url}\": {why}")),
    }
}

/// A connection that must be accepted.
pub(crate) async fn tcp(action: &TCPSocketAction, place: &Place, timeout: Duration) -> Result<(), String> {
    let host = place.host(action.host.as_ref())?;
    let port = place.port(&action.port)?;
    match tokio::time::timeout(timeout, TcpStream::connect((host.as_str(), port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("dial tcp {host}:{port}: {error}")),
        Err(_) => Err(format!("dial tcp {host}:{port}: timed out after {timeout:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn tcp_and_http_reach_named_ports_of_the_pod() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let container = serde_json::json!({"name": "c", "ports": [{"name": "web", "containerPort": port}]});
        let place = Place::new(Some("127.0.0.1".parse().unwrap()), &serde_json::from_value(container).unwrap());
        let named = |name: &str| TCPSocketAction { port: IntOrString::String(name.to_owned()), host: None };
        tcp(&named("web"), &place, LIMIT).await.unwrap();
        assert!(tcp(&named("other"), &place, LIMIT).await.unwrap_err().contains("no port"));
        let nowhere = Place { ip: None, ..place.clone() };
        assert_eq!(tcp(&named("web"), &nowhere, LIMIT).await.unwrap_err(), "the pod has no address");
        drop(listener);
        assert!(tcp(&named("web"), &place, LIMIT).await.unwrap_err().contains(&port.to_string()));
        let action = HTTPGetAction { port: IntOrString::String("web".into()), ..HTTPGetAction::default() };
        let error = http_get(&action, &place, LIMIT).await.unwrap_err();
        assert!(error.contains(&format!("http://127.0.0.1:{port}/")), "{error}");
    }
}
