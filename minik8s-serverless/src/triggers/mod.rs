//! Triggers: when something happens, a Function is called or a Workflow is run.
//!
//! A source sees something happen and writes a [`TriggerDelivery`], whose name follows from the event: what is seen twice is
//! delivered once, as long as the first delivery is kept. From then on the delivery is durable: it is tried until it went
//! well or is dead, and says which. All attempts bear one key, that of the event.
//!
//! What happens while nobody looks: times of a schedule are made up for within their deadline, the last one only. Objects
//! that came or changed and files that changed are told when somebody looks again, as one change; those that went are not.

mod cloud_event;
mod config;
mod cron;
mod deliver;
mod emit;
mod files;
mod kinds;
mod news;
mod objects;
mod schedule;
mod sources;
mod watch;
mod webhook;

pub(crate) use webhook::{Hooks, WEBHOOKS};

pub use cloud_event::{EventError, events};
pub use config::TriggersConfig;
pub use emit::TRIGGER_LABEL;
pub use objects::{
    CronSource, DeliveryRetry, DeliverySpec, DeliveryStatus, FileSource, ObjectSource, TargetSpec, Trigger,
    TriggerDelivery, TriggerSpec, TriggerStatus, WebhookSource, WorkflowRef,
};
pub use schedule::{Schedule, ScheduleError};

use crate::workflow::WorkflowsConfig;
use minik8s_core::controllers::Controller;
use minik8s_core::server::Kind;
use std::sync::Arc;

/// Types of the kinds, for the server.
pub(crate) const SCHEMAS: &str = include_str!("schema.txt");

pub(crate) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![Arc::new(kinds::TriggerKind::new()), Arc::new(kinds::DeliveryKind::new())]
}

pub(crate) fn controllers(config: &TriggersConfig, workflows: &WorkflowsConfig) -> Vec<Arc<dyn Controller>> {
    let deliveries = deliver::DeliveryController { config: workflows.clone(), workers: workflows.workers };
    vec![
        Arc::new(cron::CronController),
        Arc::new(sources::SourceController { config: config.clone() }),
        Arc::new(deliveries),
    ]
}

/// What takes events of webhooks, beside every API server: senders know an address, not who leads.
pub(crate) fn attendants(config: &TriggersConfig) -> Vec<Arc<dyn Controller>> {
    let listens = |address| webhook::WebhookAttendant { address, config: config.clone() };
    config.webhooks.map(|address| Arc::new(listens(address)) as Arc<dyn Controller>).into_iter().collect()
}
