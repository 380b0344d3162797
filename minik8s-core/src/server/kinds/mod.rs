//! The built-in kinds: one file each, and one line in `builtin`. Nothing else in the server names them. What they are
//! made of ([`cells`], [`util`]) is there for the kinds of extensions too.

pub mod cells;
mod certificate_signing_request;
mod config_map;
mod demand;
mod deployment;
mod dns;
mod endpoint_slice;
mod endpoints;
mod event;
mod gateway;
mod gateway_class;
mod horizontal_pod_autoscaler;
mod hosts;
mod http_route;
mod ingress;
mod ingress_class;
mod lease;
mod metrics;
mod namespace;
mod node;
mod path_route;
pub(super) mod pod;
mod pod_disruption_budget;
mod pod_template;
mod priority_class;
mod reference_grant;
mod replica_set;
mod secret;
mod service;
mod service_account;
pub mod util;
mod workload;

pub(crate) use priority_class::SYSTEM_CLASSES;

use super::Kind;
use std::sync::Arc;

/// Every built-in kind.
pub(crate) fn builtin() -> Vec<Arc<dyn Kind>> {
    vec![
        Arc::new(certificate_signing_request::CertificateSigningRequestKind::new()),
        Arc::new(config_map::ConfigMapKind::new()),
        Arc::new(demand::DemandKind::new()),
        Arc::new(deployment::DeploymentKind::new()),
        Arc::new(dns::DnsKind::new()),
        Arc::new(endpoint_slice::EndpointSliceKind::new()),
        Arc::new(endpoints::EndpointsKind::new()),
        Arc::new(event::CoreEventKind::new()),
        Arc::new(event::EventKind::new()),
        Arc::new(gateway::GatewayKind::new()),
        Arc::new(gateway_class::GatewayClassKind::new()),
        Arc::new(horizontal_pod_autoscaler::AutoscalerKind::new()),
        Arc::new(horizontal_pod_autoscaler::AutoscalerV1Kind::new()),
        Arc::new(http_route::HttpRouteKind::new()),
        Arc::new(ingress::IngressKind::new()),
        Arc::new(ingress_class::IngressClassKind::new()),
        Arc::new(lease::LeaseKind::new()),
        Arc::new(metrics::CustomMetricKind::new()),
        Arc::new(metrics::CustomMetricKind::v1beta1()),
        Arc::new(metrics::ExternalMetricKind::new()),
        Arc::new(metrics::NodeMetricsKind::new()),
        Arc::new(metrics::PodMetricsKind::new()),
        Arc::new(namespace::NamespaceKind::new()),
        Arc::new(node::NodeKind::new()),
        Arc::new(path_route::PathRouteKind::new()),
        Arc::new(pod::PodKind::new()),
        Arc::new(pod_disruption_budget::PodDisruptionBudgetKind::new()),
        Arc::new(priority_class::PriorityClassKind::new()),
        Arc::new(reference_grant::ReferenceGrantKind::new()),
        Arc::new(replica_set::ReplicaSetKind::new()),
        Arc::new(secret::SecretKind::new()),
        Arc::new(service::ServiceKind::new()),
        Arc::new(service_account::ServiceAccountKind::new()),
    ]
}
