//! The gRPC health check (`grpc.health.v1.Health/Check`), without generated code: its messages have one field each.

use std::time::Duration;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct CheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct CheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

pub(super) async fn check(host: &str, port: u16, service: String, timeout: Duration) -> Result<(), String> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let target = format!("{host}:{port}");
    let ask = async {
        let endpoint = Endpoint::from_shared(format!("http://{target}")).map_err(|e| e.to_string())?;
        let channel = endpoint.connect().await.map_err(|e| format!("cannot connect to {target}: {e}"))?;
        let mut client = Grpc::new(channel);
        client.ready().await.map_err(|e| e.to_string())?;
        let codec = ProstCodec::<CheckRequest, CheckResponse>::default();
        let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        client.unary(Request::new(CheckRequest { service: service.clone() }), path, codec).await.map_err(|status| {
            match status.code() {
                Code::Unimplemented => format!("{target} does not implement the gRPC health protocol"),
                Code::NotFound => format!("{target} knows no service {service:?}"),
                _ => format!("health check of {target} failed: {status}"),
            }
        })
    };
    let late = |_| format!("timeout: health check of {target} did not complete within {timeout:?}");
    match tokio::time::timeout(timeout, ask).await.map_err(late)??.into_inner().status {
        SERVING => Ok(()),
        other => Err(format!("service unhealthy (responded with status {other})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_there_is_a_failure_that_names_the_place() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = check("127.0.0.1", port, String::new(), Duration::from_secs(5)).await.unwrap_err();
        assert!(error.contains(&port.to_string()), "{error}");
    }
}
