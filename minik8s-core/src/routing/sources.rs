//! Where a [`World`] comes from: informers of every kind that routes are made of.

use super::World;
use crate::api::PathRoute;
use crate::api::gateway::{Dns, Gateway, GatewayClass, HttpRoute, ReferenceGrant};
use crate::client::{Changes, Informer, Informers};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

/// Informers of all that routes are made of.
pub struct Sources {
    ingresses: Informer<Ingress>,
    ingress_classes: Informer<IngressClass>,
    gateways: Informer<Gateway>,
    gateway_classes: Informer<GatewayClass>,
    http_routes: Informer<HttpRoute>,
    grants: Informer<ReferenceGrant>,
    dns: Informer<Dns>,
    path_routes: Informer<PathRoute>,
    services: Informer<Service>,
    namespaces: Informer<Namespace>,
}

/// Tells that something has changed. Subscribe first, then look.
pub struct News {
    ingresses: Changes<Ingress>,
    ingress_classes: Changes<IngressClass>,
    gateways: Changes<Gateway>,
    gateway_classes: Changes<GatewayClass>,
    http_routes: Changes<HttpRoute>,
    grants: Changes<ReferenceGrant>,
    dns: Changes<Dns>,
    path_routes: Changes<PathRoute>,
    services: Changes<Service>,
    namespaces: Changes<Namespace>,
}

impl Sources {
    /// Follows them through these informers.
    pub fn new(informers: &Informers) -> Self {
        Self {
            ingresses: informers.of(),
            ingress_classes: informers.of(),
            gateways: informers.of(),
            gateway_classes: informers.of(),
            http_routes: informers.of(),
            grants: informers.of(),
            dns: informers.of(),
            path_routes: informers.of(),
            services: informers.of(),
            namespaces: informers.of(),
        }
    }

    /// Waits until all are known; false where they were stopped before.
    pub async fn synced(&self) -> bool {
        self.ingresses.synced().await
            && self.ingress_classes.synced().await
            && self.gateways.synced().await
            && self.gateway_classes.synced().await
            && self.http_routes.synced().await
            && self.grants.synced().await
            && self.dns.synced().await
            && self.path_routes.synced().await
            && self.services.synced().await
            && self.namespaces.synced().await
    }

    /// What changes from now on.
    pub fn news(&self) -> News {
        News {
            ingresses: self.ingresses.subscribe(),
            ingress_classes: self.ingress_classes.subscribe(),
            gateways: self.gateways.subscribe(),
            gateway_classes: self.gateway_classes.subscribe(),
            http_routes: self.http_routes.subscribe(),
            grants: self.grants.subscribe(),
            dns: self.dns.subscribe(),
            path_routes: self.path_routes.subscribe(),
            services: self.services.subscribe(),
            namespaces: self.namespaces.subscribe(),
        }
    }

    /// Everything as it is now. Nobody has looked at certificates.
    pub fn world(&self) -> World {
        World {
            ingresses: self.ingresses.list(),
            ingress_classes: self.ingress_classes.list(),
            gateways: self.gateways.list(),
            gateway_classes: self.gateway_classes.list(),
            http_routes: self.http_routes.list(),
            grants: self.grants.list(),
            dns: self.dns.list(),
            path_routes: self.path_routes.list(),
            services: self.services.list(),
            namespaces: self.namespaces.list(),
            certificates: None,
        }
    }
}

impl News {
    /// Waits for a change, and takes those that have come with it. False where the informers were stopped.
    pub async fn next(&mut self) -> bool {
        let some = tokio::select! {
            biased;
            change = self.gateway_classes.next() => change.is_some(),
            change = self.ingress_classes.next() => change.is_some(),
            change = self.grants.next() => change.is_some(),
            change = self.gateways.next() => change.is_some(),
            change = self.http_routes.next() => change.is_some(),
            change = self.ingresses.next() => change.is_some(),
            change = self.path_routes.next() => change.is_some(),
            change = self.dns.next() => change.is_some(),
            change = self.services.next() => change.is_some(),
            change = self.namespaces.next() => change.is_some(),
        };
        self.skip();
        some
    }

    /// Takes what has come.
    pub fn skip(&mut self) {
        while self.gateway_classes.try_next().is_some() {}
        while self.ingress_classes.try_next().is_some() {}
        while self.grants.try_next().is_some() {}
        while self.gateways.try_next().is_some() {}
        while self.http_routes.try_next().is_some() {}
        while self.ingresses.try_next().is_some() {}
        while self.path_routes.try_next().is_some() {}
        while self.dns.try_next().is_some() {}
        while self.services.try_next().is_some() {}
        while self.namespaces.try_next().is_some() {}
    }
}
