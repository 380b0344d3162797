//! Documents about the server itself: version, discovery, OpenAPI, with entity tags so that clients fetch them once.

use super::body::{Body, full};
use super::media::ranges;
use super::openapi::{self, OpenApi};
use super::route::Route;
use super::status::{json_response, respond};
use super::verbs::accept;
use crate::api::{ApiResult, Gvr, Object, Schemas, Target, version_info};
use crate::client::{ListOptions, Transport};
use crate::server::discovery::{AGGREGATED, Discovery, Document};
use crate::server::registry::{KindTable, Registry};
use arc_swap::ArcSwapOption;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::json;
use std::sync::Arc;

/// The documents of a registry, made anew when it changes.
pub(crate) struct Documents {
    registry: Registry,
    schemas: Schemas,
    made: ArcSwapOption<Made>,
}

struct Made {
    of: Arc<KindTable>,
    discovery: Discovery,
    openapi: OpenApi,
}

impl Documents {
    /// The documents of this registry, whose types these schemas describe.
    pub(crate) fn new(registry: Registry, schemas: Schemas) -> Self {
        Self { registry, schemas, made: ArcSwapOption::empty() }
    }

    fn current(&self) -> Arc<Made> {
        let table = self.registry.snapshot();
        if let Some(made) = self.made.load_full().filter(|made| Arc::ptr_eq(&made.of, &table)) {
            return made;
        }
        let kinds: Vec<_> = table.kinds().cloned().collect();
        let made = Arc::new(Made { discovery: Discovery::new(&kinds), openapi: OpenApi::new(&table), of: table });
        self.made.store(Some(made.clone()));
        made
    }

    /// Answers a request for a document; `None` where there is none.
    pub(crate) fn serve(&self, route: &Route, headers: &HeaderMap) -> Option<Response<Body>> {
        let made = self.current();
        let discovery = &made.discovery;
        match route {
            Route::Root => {
                let prometheus = ["/minik8s/prometheus/federate", "/minik8s/prometheus/sd"];
                let more = ["/healthz", "/livez", "/metrics", "/openapi/v3", "/readyz", "/version"];
                let more = more.into_iter().chain(prometheus);
                let paths: Vec<&str> = discovery.paths().chain(more).collect();
                Some(json_response(200, json!({"paths": paths}).to_string()))
            }
            Route::CoreVersions => versions(discovery, true, "/api", headers),
            Route::Groups => versions(discovery, false, "/apis", headers),
            Route::Group(group) => classic(discovery, &format!("/apis/{group}"), headers),
            Route::Resources(group, version) if group.is_empty() => {
                classic(discovery, &format!("/api/{version}"), headers)
            }
            Route::Resources(group, version) => classic(discovery, &format!("/apis/{group}/{version}"), headers),
            Route::OpenApiV2 => openapi::v2(&accept(headers)),
            Route::OpenApiIndex => Some(tagged(made.openapi.index(), "application/json", "no-cache", headers)),
            Route::OpenApi(path) => {
                let document = made.openapi.document(&made.of, &self.schemas, path)?;
                let mut response = tagged(document, "application/json", "public, immutable", headers);
                // The address holds the document's hash: it never changes.
                response
                    .headers_mut()
                    .insert(header::EXPIRES, HeaderValue::from_static("Fri, 31 Dec 2100 00:00:00 GMT"));
                Some(response)
            }
            _ => None,
        }
    }
}

/// What a version that answers to names which nobody declared (see [`ANYTHING`](crate::server::ANYTHING)) answers to now.
pub(crate) async fn open(transport: &dyn Transport, any: Gvr, kind: &str) -> ApiResult<Response<Body>> {
    let version = any.api_version();
    let known = transport.list(&Target::all(any), &ListOptions::default()).await?.items;
    let one = |object: &Arc<Object>| {
        json!({"name": object.meta.name, "singularName": "", "namespaced": true, "kind": format!("{kind}List"),
            "verbs": ["get"]})
    };
    let resources: Vec<_> = known.iter().map(one).collect();
    let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources});
    Ok(json_response(200, list.to_string()))
}

/// `/api` and `/apis`, in the first form the client names that there is.
fn versions(discovery: &Discovery, core: bool, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    for range in ranges(&accept(headers)) {
        if range.param("as").is_empty() {
            break;
        }
        let form = AGGREGATED.into_iter().find(|form| range.param("v") == *form);
        let wanted = range.param("as") == "APIGroupDiscoveryList" && range.param("g") == "apidiscovery.k8s.io";
        if let Some(form) = form.filter(|_| wanted) {
            let content_type = match form {
                "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
            };
            return discovery.aggregated(core, form).map(|d| tagged(d, content_type, "public", headers));
        }
    }
    classic(discovery, path, headers)
}

fn classic(discovery: &Discovery, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    discovery.classic(path).map(|d| tagged(d, "application/json", "public", headers))
}

/// A document, or word that the client has it already.
pub(crate) fn tagged(
    document: &Document,
    content_type: &'static str,
    caching: &'static str,
    headers: &HeaderMap,
) -> Response<Body> {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    let fresh = known.flat_map(|v| v.split(',')).any(|tag| tag.trim() == document.etag || tag.trim() == "*");
    let mut response =
        respond(200, content_type, full(if fresh { Default::default() } else { document.bytes.clone() }));
    if fresh {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    if let Ok(etag) = HeaderValue::from_str(&document.etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}

/// `/version`
pub(crate) fn version() -> Response<Body> {
    json_response(200, version_info().to_string())
}
