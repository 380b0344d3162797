//! `HTTPRoute`: which requests go where.

use crate::resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use serde::{Deserialize, Serialize};

/// Which requests go where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRoute {
    /// Names and the rest.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: HttpRouteSpec,
    /// What became of it at each parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<HttpRouteStatus>,
}

resource!(HttpRoute, "gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes", k8s_openapi::NamespaceResourceScope);

macro_rules! data {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }
    };
}

data! {
    /// What an [`HttpRoute`] wants.
    HttpRouteSpec {
        /// Gateways it attaches to.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        parent_refs: Vec<ParentReference>,
        /// Hosts; none for all.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        hostnames: Vec<String>,
        /// Its rules.
        rules: Vec<HttpRouteRule>,
    }
}

data! {
    /// A Gateway, or one listener of it.
    ParentReference {
        /// Group, that of the Gateway API unless said.
        #[serde(skip_serializing_if = "Option::is_none")]
        group: Option<String>,
        /// Kind, `Gateway` unless said.
        #[serde(skip_serializing_if = "Option::is_none")]
        kind: Option<String>,
        /// Namespace, that of the route unless said.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        /// Name.
        name: String,
        /// Only this listener.
        #[serde(skip_serializing_if = "Option::is_none")]
        section_name: Option<String>,
        /// Only listeners of this port.
        #[serde(skip_serializing_if = "Option::is_none")]
        port: Option<i32>,
    }
}

data! {
    /// One rule of an [`HttpRoute`].
    HttpRouteRule {
        /// Any of these.
        matches: Vec<HttpRouteMatch>,
        /// What is done to requests and responses.
        filters: Vec<HttpRouteFilter>,
        /// Where requests go.
        backend_refs: Vec<BackendRef>,
        /// How long it may take.
        timeouts: Option<TimeoutsSpec>,
        /// What is tried again.
        retry: Option<RetrySpec>,
        /// Who stays with one backend.
        session_persistence: Option<SessionPersistence>,
    }
}

data! {
    /// All of these must hold.
    HttpRouteMatch {
        /// The path.
        path: Option<PathMatchSpec>,
        /// Headers.
        headers: Vec<NamedMatch>,
        /// Parameters of the query.
        query_params: Vec<NamedMatch>,
        /// The method.
        method: Option<String>,
    }
}

data! {
    /// A rule about the path.
    PathMatchSpec {
        /// `Exact`, `PathPrefix` (unless said) or `RegularExpression`.
        #[serde(rename = "type")]
        type_: Option<String>,
        /// `/` unless said.
        value: Option<String>,
    }
}

data! {
    /// A rule about a header or a parameter.
    NamedMatch {
        /// `Exact` (unless said) or `RegularExpression`.
        #[serde(rename = "type")]
        type_: Option<String>,
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    }
}

data! {
    /// Something that is done to requests or responses.
    HttpRouteFilter {
        /// Which of the following it is.
        #[serde(rename = "type")]
        type_: String,
        /// `RequestHeaderModifier`
        request_header_modifier: Option<HeaderModifier>,
        /// `ResponseHeaderModifier`
        response_header_modifier: Option<HeaderModifier>,
        /// `RequestMirror`
        request_mirror: Option<MirrorFilter>,
        /// `RequestRedirect`
        request_redirect: Option<RedirectFilter>,
        /// `URLRewrite`
        url_rewrite: Option<RewriteFilter>,
    }
}

data! {
    /// Changes of headers.
    HeaderModifier {
        /// Replaced.
        set: Vec<Header>,
        /// Added to those that are there.
        add: Vec<Header>,
        /// Taken away.
        remove: Vec<String>,
    }
}

data! {
    /// A header.
    Header {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    }
}

data! {
    /// Where copies of requests go.
    MirrorFilter {
        /// The Service.
        backend_ref: BackendRef,
        /// How many in a hundred; all unless said.
        percent: Option<i32>,
        /// How many in how many, where a hundred is too coarse.
        fraction: Option<Fraction>,
    }
}

data! {
    /// So many of so many.
    Fraction {
        /// So many.
        numerator: i32,
        /// Of so many; a hundred unless said.
        denominator: Option<i32>,
    }
}

data! {
    /// An answer that sends clients elsewhere.
    RedirectFilter {
        /// `http` or `https`.
        scheme: Option<String>,
        /// Another host.
        hostname: Option<String>,
        /// Another path.
        path: Option<PathModifier>,
        /// Another port.
        port: Option<i32>,
        /// 302 unless said.
        status_code: Option<i32>,
    }
}

data! {
    /// Another path.
    PathModifier {
        /// `ReplaceFullPath` or `ReplacePrefixMatch`.
        #[serde(rename = "type")]
        type_: String,
        /// Instead of the whole.
        replace_full_path: Option<String>,
        /// Instead of the prefix that matched.
        replace_prefix_match: Option<String>,
    }
}

data! {
    /// What the backend sees instead.
    RewriteFilter {
        /// Another host.
        hostname: Option<String>,
        /// Another path.
        path: Option<PathModifier>,
    }
}

data! {
    /// A Service, and its share.
    BackendRef {
        /// Empty for core.
        group: Option<String>,
        /// `Service` unless said.
        kind: Option<String>,
        /// Its name.
        name: String,
        /// Its namespace; that of the route unless said.
        namespace: Option<String>,
        /// Its port.
        port: Option<i32>,
        /// Its share; 1 unless said.
        weight: Option<i32>,
        /// What is done to its requests and responses only.
        filters: Vec<HttpRouteFilter>,
    }
}

data! {
    /// How long it may take, as Go spells durations.
    TimeoutsSpec {
        /// All tries together.
        request: Option<String>,
        /// One try.
        backend_request: Option<String>,
    }
}

data! {
    /// What is tried again.
    RetrySpec {
        /// Answers that are as good as none.
        codes: Vec<i32>,
        /// How many more tries.
        attempts: Option<i32>,
        /// Wait between tries.
        backoff: Option<String>,
    }
}

data! {
    /// Who stays with one backend.
    SessionPersistence {
        /// Name of the cookie or header.
        session_name: Option<String>,
        /// How long.
        absolute_timeout: Option<String>,
        /// `Cookie` (unless said) or `Header`.
        #[serde(rename = "type")]
        type_: Option<String>,
        /// About the cookie.
        cookie_config: Option<CookieConfig>,
    }
}

data! {
    /// About the cookie of a session.
    CookieConfig {
        /// `Session` (unless said) or `Permanent`.
        lifetime_type: Option<String>,
    }
}

/// What became of an [`HttpRoute`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteStatus {
    /// At each parent.
    pub parents: Vec<RouteParentStatus>,
}

/// What became of a route at one parent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteParentStatus {
    /// Which.
    pub parent_ref: ParentReference,
    /// Who says so.
    pub controller_name: String,
    /// `Accepted`, `ResolvedRefs`.
    pub conditions: Vec<Condition>,
}
