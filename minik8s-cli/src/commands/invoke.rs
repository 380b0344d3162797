//! `invoke`: one call of a function, through a gateway.

use crate::api::Conn;
use crate::args::{Args, Invoke};
use crate::output::say;
use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::io::Read;
use std::time::Duration;
use tokio::net::TcpStream;

pub(crate) async fn run(args: &Args, options: &Invoke) -> Result<()> {
    let conn = Conn::open(args).await?;
    let (namespace, name) = options.function.split_once('/').unwrap_or((&conn.namespace, &options.function));
    if options.no_wait {
        let body = String::from_utf8(data(&options.data)?).context("the body is no text")?;
        let object = json!({"apiVersion": "minik8s.io/v1alpha1", "kind": "Invocation",
            "metadata": {"generateName": format!("{name}-")}, "spec": {"function": name, "body": body}});
        let made = conn.post(&format!("/apis/minik8s.io/v1alpha1/namespaces/{namespace}/invocations"), &object).await?;
        say(made["metadata"]["name"].as_str().unwrap_or_default());
        return Ok(());
    }
    let gateway = match &options.gateway {
        Some(gateway) => gateway.clone(),
        None => find(&conn).await?,
    };
    let body = data(&options.data)?;
    let path = format!("/function/{namespace}/{name}");
    let limit = Duration::from_secs(options.timeout);
    let asked = tokio::time::timeout(limit, ask(&gateway, &path, body)).await;
    let (status, id, text) = asked.with_context(|| format!("no answer within {} s", options.timeout))??;
    if status == http::StatusCode::NOT_FOUND && text.starts_with("gateway: ") {
        bail!("there is no function {namespace}/{name}: `minik8s get functions -A` shows those there are");
    }
    if !status.is_success() {
        bail!("{path} answered {status} (request {id}): {}", text.trim());
    }
    say(text.trim_end());
    Ok(())
}

fn data(text: &str) -> Result<Vec<u8>> {
    match text.strip_prefix('@') {
        None => Ok(text.as_bytes().to_vec()),
        Some("-") => {
            let mut all = Vec::new();
            std::io::stdin().read_to_end(&mut all)?;
            Ok(all)
        }
        Some(path) => std::fs::read(path).with_context(|| format!("cannot read {path}")),
    }
}

/// A gateway that listens, as nodes say.
pub(super) async fn find(conn: &Conn) -> Result<String> {
    let nodes = conn.get("/api/v1/nodes").await?;
    for node in nodes["items"].as_array().into_iter().flatten() {
        let place = node.pointer("/metadata/annotations/minik8s.io~1gateway").and_then(Value::as_str);
        let place: Value = place.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
        let address = addresses.filter(|a| a["type"] == "InternalIP").find_map(|a| a["address"].as_str());
        if let (Some(port), Some(address)) = (place["http"].as_u64(), address) {
            return Ok(if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") });
        }
    }
    bail!("no node's gateway listens; name one with --gateway HOST:PORT")
}

async fn ask(gateway: &str, path: &str, body: Vec<u8>) -> Result<(http::StatusCode, String, String)> {
    let stream = TcpStream::connect(gateway).await.with_context(|| format!("cannot reach the gateway {gateway}"))?;
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(driver);
    let request = Request::post(path)
        .header(header::HOST, gateway)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::<Bytes>::from(body))?;
    let response = sender.send_request(request).await.map_err(|error| anyhow!("the gateway broke off: {error}"))?;
    let status = response.status();
    let id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or("-").to_owned();
    let bytes = response.into_body().collect().await?.to_bytes();
    driver.abort();
    Ok((status, id, String::from_utf8_lossy(&bytes).into_owned()))
}
