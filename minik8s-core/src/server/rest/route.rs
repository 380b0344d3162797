//! Paths: where in the API a request points.

use super::query::percent_decode;
use crate::api::{Gvr, Target};

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/`
    Root,
    /// `/version`
    Version,
    /// `/healthz`, `/livez`, `/readyz`, and one check of them where a name follows.
    Health(Option<String>),
    /// `/metrics`
    Metrics,
    /// `/minik8s/prometheus/…`
    Prometheus(Vec<String>),
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/apps`
    Group(String),
    /// `/api/v1`, `/apis/apps/v1`
    Resources(String, String),
    /// `/openapi/v2`
    OpenApiV2,
    /// `/openapi/v3`
    OpenApiIndex,
    /// `/openapi/v3/apis/apps/v1`
    OpenApi(String),
    /// Objects.
    Objects {
        /// Which.
        target: Target,
        /// The old way of asking for a watch: `/api/v1/watch/pods`.
        watch: bool,
    },
    /// Nowhere.
    Nowhere,
}

/// Reads a path. Slashes at its end and in a row do not matter.
pub(crate) fn route(path: &str) -> Route {
    let segments: Vec<String> = path.split('/').filter(|s| !s.is_empty()).map(percent_decode).collect();
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    match parts.as_slice() {
        [] => Route::Root,
        ["version"] => Route::Version,
        ["metrics"] => Route::Metrics,
        ["healthz" | "livez" | "readyz"] => Route::Health(None),
        ["healthz" | "livez" | "readyz", check] => Route::Health(Some((*check).to_owned())),
        ["minik8s", "prometheus", rest @ ..] => Route::Prometheus(rest.iter().map(|s| (*s).to_owned()).collect()),
        ["api"] => Route::CoreVersions,
        ["apis"] => Route::Groups,
        ["apis", group] => Route::Group((*group).to_owned()),
        ["api", version] => Route::Resources(String::new(), (*version).to_owned()),
        ["apis", group, version] => Route::Resources((*group).to_owned(), (*version).to_owned()),
        ["api", version, rest @ ..] => objects("", version, rest),
        ["apis", group, version, rest @ ..] => objects(group, version, rest),
        ["openapi", "v2"] => Route::OpenApiV2,
        ["openapi", "v3"] => Route::OpenApiIndex,
        ["openapi", "v3", rest @ ..] => Route::OpenApi(rest.join("/")),
        _ => Route::Nowhere,
    }
}

fn objects(group: &str, version: &str, rest: &[&str]) -> Route {
    let (watch, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        rest => (false, rest),
    };
    let (namespace, rest) = match rest {
        // `status` and `finalize` are sub-resources of the namespace, everything else lives in it.
        ["namespaces", ns, resource, more @ ..] if !matches!((*resource, more), ("status" | "finalize", [])) => {
            (Some((*ns).to_owned()), &rest[2..])
        }
        rest => (None, rest),
    };
    let (resource, name, subresource) = match rest {
        [resource] => (resource, None, None),
        [resource, name] => (resource, Some((*name).to_owned()), None),
        [resource, name, sub @ ..] => (resource, Some((*name).to_owned()), Some(sub.join("/"))),
        [] => return Route::Nowhere,
    };
    let gvr = Gvr {
        group: group.to_owned().into(),
        version: version.to_owned().into(),
        resource: (*resource).to_owned().into(),
    };
    Route::Objects { target: Target { gvr, namespace, name, subresource }, watch }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Target {
        match route(path) {
            Route::Objects { target, watch: false } => target,
            other => panic!("{path} leads to {other:?}"),
        }
    }

    #[test]
    fn paths_of_objects() {
        let pods = Gvr::new("", "v1", "pods");
        let deployments = Gvr::new("apps", "v1", "deployments");
        let namespaces = Gvr::new("", "v1", "namespaces");
        let cases = [
            ("/api/v1/pods", Target::all(pods.clone())),
            ("/api/v1/namespaces/default/pods/", Target::in_namespace(pods.clone(), "default")),
            ("/api/v1/namespaces/default/pods/p1", Target::object(pods.clone(), "default", "p1")),
            ("/api/v1/namespaces/default/pods/p1/log", Target::object(pods.clone(), "default", "p1").sub("log")),
            ("/apis/apps/v1/namespaces/a/deployments/d/scale", Target::object(deployments, "a", "d").sub("scale")),
            ("/api/v1/namespaces", Target::all(namespaces.clone())),
            ("/api/v1/namespaces/default", Target::object(namespaces.clone(), "", "default")),
            ("/api/v1/namespaces/default/status", Target::object(namespaces.clone(), "", "default").sub("status")),
            ("/api/v1/namespaces/default/finalize", Target::object(namespaces, "", "default").sub("finalize")),
            ("/api/v1/nodes/n%3A1", Target::object(Gvr::new("", "v1", "nodes"), "", "n:1")),
            ("/api/v1/namespaces/a/pods/p/proxy/x/y", Target::object(pods, "a", "p").sub("proxy/x/y")),
        ];
        for (path, expected) in cases {
            assert_eq!(target(path), expected, "{path}");
        }
    }

    #[test]
    fn watches_may_be_asked_for_in_the_path() {
        let pods = Gvr::new("", "v1", "pods");
        let target = Target::object(pods, "default", "p1");
        assert_eq!(route("/api/v1/watch/namespaces/default/pods/p1"), Route::Objects { target, watch: true });
    }

    #[test]
    fn other_paths() {
        let cases = [
            ("/", Route::Root),
            ("/version/", Route::Version),
            ("/readyz", Route::Health(None)),
            ("/livez/store", Route::Health(Some("store".into()))),
            ("/api/", Route::CoreVersions),
            ("/apis", Route::Groups),
            ("/apis/apps", Route::Group("apps".into())),
            ("/api/v1", Route::Resources(String::new(), "v1".into())),
            ("/apis/apps/v1/", Route::Resources("apps".into(), "v1".into())),
            ("/openapi/v3", Route::OpenApiIndex),
            ("/openapi/v3/api/v1", Route::OpenApi("api/v1".into())),
            ("/openapi/v2", Route::OpenApiV2),
            ("/favicon.ico", Route::Nowhere),
        ];
        for (path, expected) in cases {
            assert_eq!(route(path), expected, "{path}");
        }
    }
}
