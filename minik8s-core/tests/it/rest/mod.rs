//! The HTTP front, asked in process and over sockets.

mod crud;
mod documents;
mod errors;
mod forward;
mod kube_client;
mod lists;
mod sockets;
pub(crate) mod streams;
mod watches;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use minik8s_core::server::ApiServer;
use minik8s_core::server::auth::User;
use minik8s_core::server::rest::{Body, RestConfig, RestService};
use minik8s_core::store::MemoryStore;
use serde_json::Value;
use std::sync::Arc;
use tower::ServiceExt;

/// Accept header of `kubectl get`.
const TABLE: &str =
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";

/// A front over a server of its own.
struct Http {
    rest: RestService,
    server: Arc<ApiServer>,
}

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    code: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

impl Http {
    async fn new() -> Self {
        let server = ApiServer::builder(Arc::new(MemoryStore::new())).start().await.unwrap();
        let rest = RestService::new(RestConfig::of(&server));
        Self { rest: rest.acting_as(User::system()), server }
    }

    /// Sends a request and answers its head, the body still to be read.
    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> http::Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        self.rest.clone().oneshot(request).await.unwrap()
    }

    async fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let (parts, body) = self.send(method, path, headers, body).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], "").await
    }

    async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.call(Method::GET, path, &[("accept", accept)], "").await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.call(Method::POST, path, &[("content-type", "application/json")], body).await
    }

    /// Makes a configuration map that must be accepted.
    async fn config_map(&self, name: &str, labels: &str) -> Value {
        let body = format!(
            r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"{name}","labels":{labels}}},"data":{{"a":"1"}}}}"#
        );
        let answer = self.post(CONFIG_MAPS, &body).await;
        assert_eq!(answer.code, 201, "{}", answer.text());
        answer.json()
    }
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The front of a server that is served, asked without its sockets.
#[allow(dead_code)]
fn client_of(served: &minik8s_core::testkit::served::Served) -> Http {
    Http { rest: served.rest.acting_as(User::system()), server: served.server.clone() }
}

/// Code and text of a pod's sub-resource.
#[allow(dead_code)]
async fn read_text(http: &Http, path: &str) -> (u16, String) {
    let answer = http.get(&format!("/api/v1/namespaces/default/pods/{path}")).await;
    (answer.code, answer.text())
}
