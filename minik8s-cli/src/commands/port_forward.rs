//! `port-forward`: ports of this machine that lead to ports of a pod, for as long as the command runs.

use super::pods;
use crate::api::{Conn, Resources, explain, parse_what};
use crate::args::PortForward;
use crate::output::{print_error, say};
use anyhow::{Context, Result, bail};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Connections at a time for each port.
const CONNECTIONS: usize = 64;
/// How long the pod may be quiet after the local end has sent all; the protocol cannot tell the pod that it has.
const QUIET: Duration = Duration::from_secs(1);
/// Between attempts to take a connection where none can be taken.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn run(conn: &Conn, options: &PortForward) -> Result<()> {
    let pod = pods::pod_named(conn, &options.what).await?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let phase = pod["status"]["phase"].as_str().unwrap_or("Pending");
    if phase != "Running" {
        bail!("pod {name} is {phase}: only a running pod has ports");
    }
    let service = service_named(conn, &options.what).await?;
    let api: Api<Pod> = Api::namespaced(conn.client.clone(), &conn.namespace);
    let mut forwards = Vec::new();
    for text in &options.ports {
        let way = Way::find(&Wanted::parse(text)?, &pod, service.as_ref())?;
        let taken = || format!("cannot listen to {}:{}; LOCAL:REMOTE chooses another port", options.address, way.local);
        let listener = TcpListener::bind((options.address, way.local)).await.with_context(taken)?;
        say(&format!("Forwarding from {} -> {}", listener.local_addr()?, way.remote));
        forwards.push(serve(&api, name, listener, way.remote));
    }
    futures::future::join_all(forwards).await;
    Ok(())
}

async fn service_named(conn: &Conn, word: &str) -> Result<Option<Value>> {
    if !word.contains('/') {
        return Ok(None);
    }
    let selected = parse_what(&Resources::load(conn).await?, &[word.to_owned()])?;
    let resource = &selected[0].resource;
    if resource.plural != "services" {
        return Ok(None);
    }
    let path = resource.path(&conn.namespace, selected[0].names.first().map(String::as_str));
    Ok(Some(conn.get(&path).await?))
}

/// What was typed: `80`, `8080:80`, `:80`, `http`.
#[derive(Debug, PartialEq, Eq)]
struct Wanted<'a> {
    /// `None` takes the remote one's number.
    local: Option<u16>,
    remote: &'a str,
}

impl<'a> Wanted<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let (local, remote) = match text.split_once(':') {
            None => (None, text),
            Some(("", remote)) => (Some(0), remote),
            Some((local, remote)) => {
                let wrong =
                    || format!("{local:?} in {text:?} is no port of this machine: it must be a number up to 65535");
                (Some(local.parse().with_context(wrong)?), remote)
            }
        };
        if remote.is_empty() {
            bail!("{text:?} names no port of the pod: write LOCAL:REMOTE, :REMOTE or REMOTE");
        }
        Ok(Self { local, remote })
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Way {
    local: u16,
    /// Of the pod.
    remote: u16,
}

impl Way {
    fn find(wanted: &Wanted<'_>, pod: &Value, service: Option<&Value>) -> Result<Self> {
        let (shown, remote) = match service {
            Some(service) => service_port(service, pod, wanted.remote)?,
            None => {
                let port = pod_port(pod, wanted.remote)?;
                (port, port)
            }
        };
        Ok(Self { local: wanted.local.unwrap_or(shown), remote })
    }
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)
}

/// A port of the pod by number, or by the name that a container gives it.
fn pod_port(pod: &Value, text: &str) -> Result<u16> {
    if let Ok(port) = text.parse::<u16>() {
        if port == 0 {
            bail!("a pod has no port 0");
        }
        return Ok(port);
    }
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let ports: Vec<&Value> = containers.filter_map(|c| c["ports"].as_array()).flatten().collect();
    let found = ports.iter().find(|p| p["name"] == text).and_then(|p| number(&p["containerPort"]));
    found.with_context(|| {
        let names: Vec<&str> = ports.iter().filter_map(|p| p["name"].as_str()).collect();
        format!("pod {} has no port named {text:?}, only [{}]", pod["metadata"]["name"], names.join(", "))
    })
}

/// A port of the service by number or name: its own number, and the pod's port behind it.
fn service_port(service: &Value, pod: &Value, text: &str) -> Result<(u16, u16)> {
    let ports: Vec<&Value> = service["spec"]["ports"].as_array().into_iter().flatten().collect();
    let asked = text.parse::<u16>().ok();
    let found = ports.iter().find(|p| p["name"] == text || asked.is_some() && number(&p["port"]) == asked);
    let port = found.with_context(|| {
        let known: Vec<String> = ports.iter().map(|p| p["port"].to_string()).collect();
        format!("service {} has no port {text}, only [{}]", service["metadata"]["name"], known.join(", "))
    })?;
    let shown = number(&port["port"]).context("the service's port has no number")?;
    let target = match &port["targetPort"] {
        Value::String(name) => pod_port(pod, name)?,
        target => number(target).unwrap_or(shown),
    };
    Ok((shown, target))
}

async fn serve(api: &Api<Pod>, pod: &str, listener: TcpListener, port: u16) {
    let connections = stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let handle = |accepted: std::io::Result<TcpStream>| async move {
        let ended = match accepted {
            Ok(local) => relay(api, pod, port, local).await,
            Err(e) => {
                tokio::time::sleep(PAUSE).await;
                Err(e.into())
            }
        };
        if let Err(e) = ended {
            print_error(&e);
        }
    };
    connections.for_each_concurrent(CONNECTIONS, handle).await;
}

async fn relay(api: &Api<Pod>, pod: &str, port: u16, mut local: TcpStream) -> Result<()> {
    let mut forwarder = api.portforward(pod, &[port]).await.map_err(explain)?;
    let remote = forwarder.take_stream(port).context("the server gives no connection")?;
    let error = forwarder.take_error(port);
    let (from_pod, mut to_pod) = tokio::io::split(remote);
    let (mut from_here, to_here) = local.split();
    let sent = CancellationToken::new();
    let up = async {
        // The pod's end is not shut down: that would end both directions.
        let _ = tokio::io::copy(&mut from_here, &mut to_pod).await;
        sent.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = up => {}
        _ = down(from_pod, to_here, &sent) => {}
    }
    drop(to_pod);
    let said = match error {
        Some(error) => tokio::time::timeout(QUIET, error).await.ok().flatten(),
        None => None,
    };
    forwarder.abort();
    said.map_or(Ok(()), |text| bail!("{}", text.trim_end()))
}

/// Copies what the pod says to its end, or until it is quiet after all was `sent`.
async fn down(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    sent: &CancellationToken,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let quiet = async {
            sent.cancelled().await;
            tokio::time::sleep(QUIET).await;
        };
        let n = tokio::select! {
            n = from.read(&mut buffer) => n?,
            () = quiet => 0,
        };
        if n == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..n]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_read() {
        for (text, local, remote) in [
            ("80", None, "80"),
            ("8080:80", Some(8080), "80"),
            (":80", Some(0), "80"),
            ("8080:http", Some(8080), "http"),
        ] {
            assert_eq!(Wanted::parse(text).unwrap(), Wanted { local, remote }, "{text}");
        }
        for text in ["", ":", "80:", "http:80", "70000:80"] {
            assert!(Wanted::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_and_services_lead_to_ports_of_the_pod() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "a"}, {"name": "b", "ports": [{"name": "http", "containerPort": 8080}]}]}});
        let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [
            {"name": "web", "port": 80, "targetPort": "http"}, {"name": "db", "port": 5432}, {"port": 1, "targetPort": 2}]}});
        let find = |text: &str, service| {
            Way::find(&Wanted::parse(text).unwrap(), &pod, service)
                .map(|w| (w.local, w.remote))
                .map_err(|e| e.to_string())
        };
        assert_eq!(find("http", None), Ok((8080, 8080)));
        assert_eq!(find("1:http", None), Ok((1, 8080)));
        assert_eq!(find("https", None), Err("pod \"p\" has no port named \"https\", only [http]".into()));
        assert!(find("0", None).is_err() && find("70000", None).is_err());
        assert_eq!(find("80", Some(&service)), Ok((80, 8080)));
        assert_eq!(find("9:web", Some(&service)), Ok((9, 8080)));
        assert_eq!(find("db", Some(&service)), Ok((5432, 5432)));
        assert_eq!(find("1", Some(&service)), Ok((1, 2)));
        assert_eq!(find("81", Some(&service)), Err("service \"s\" has no port 81, only [80, 5432, 1]".into()));
    }
}
