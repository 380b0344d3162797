//! Types of the Gateway API (`gateway.networking.k8s.io`, version 1.4, standard channel and the experimental fields named
//! here), and of the kind `Dns`. Only what a gateway reads is typed: the server keeps objects as they are.

mod dns;
mod grant;
mod parts;
mod route;

pub use dns::{Dns, DnsPath, DnsSpec, DnsStatus};
pub use grant::{GrantFrom, GrantTo, ReferenceGrant, ReferenceGrantSpec};
pub use parts::{
    AllowedRoutes, Gateway, GatewayAddress, GatewayClass, GatewayClassSpec, GatewayClassStatus, GatewaySpec,
    GatewayStatus, Listener, ListenerStatus, ListenerTls, RouteGroupKind, RouteNamespaces, SecretReference,
};
pub use route::{
    BackendRef, CookieConfig, Header, HeaderModifier, HttpRoute, HttpRouteFilter, HttpRouteMatch, HttpRouteRule,
    HttpRouteSpec, HttpRouteStatus, MirrorFilter, NamedMatch, ParentReference, PathMatchSpec, PathModifier,
    RedirectFilter, RetrySpec, RewriteFilter, RouteParentStatus, SessionPersistence, TimeoutsSpec,
};

/// The group of the Gateway API.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// Makes a struct with `metadata`, `spec` and `status` a resource of the API: `resource!(Dns, "minik8s.io", "v1alpha1",
/// "Dns", "dns", k8s_openapi::NamespaceResourceScope)`. Who uses it depends on `k8s-openapi` itself.
#[macro_export]
macro_rules! resource {
    ($type:ty, $group:literal, $version:literal, $kind:literal, $plural:literal, $scope:ty) => {
        impl ::k8s_openapi::Resource for $type {
            const API_VERSION: &'static str = concat!($group, "/", $version);
            const GROUP: &'static str = $group;
            const KIND: &'static str = $kind;
            const VERSION: &'static str = $version;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = $scope;
        }

        impl ::k8s_openapi::Metadata for $type {
            type Ty = ::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

            fn metadata(&self) -> &Self::Ty {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut Self::Ty {
                &mut self.metadata
            }
        }
    };
}
