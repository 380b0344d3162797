//! What gateways say is asked, by Service. A gateway that has fallen silent is not believed for ever.

use super::scale::Load;
use minik8s_core::api::Demand;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Gateways tell once a second while there is load: one that has not for so long is gone.
const SILENCE: Duration = Duration::from_secs(5);

/// The last word of each gateway, and when it was heard.
#[derive(Default)]
pub(super) struct Demands(Mutex<HashMap<String, (Arc<Demand>, Instant)>>);

impl Demands {
    /// A gateway's word; returns the Services it is about, and those the one before was about.
    pub(super) fn heard(&self, demand: &Arc<Demand>, now: Instant) -> Vec<String> {
        let node = demand.metadata.name.clone().unwrap_or_default();
        let before = self.0.lock().insert(node, (demand.clone(), now));
        let mut keys = services(demand);
        keys.extend(before.map(|(demand, _)| services(&demand)).unwrap_or_default());
        keys.sort();
        keys.dedup();
        keys
    }

    /// A gateway's node is gone.
    pub(super) fn gone(&self, demand: &Demand) -> Vec<String> {
        self.0.lock().remove(demand.metadata.name.as_deref().unwrap_or_default());
        services(demand)
    }

    /// What is asked of a Service.
    pub(super) fn load(&self, namespace: &str, service: &str, now: Instant) -> Load {
        let all = self.0.lock();
        let mut load = Load::default();
        let heard = all.values().filter(|(_, at)| now.duration_since(*at) < SILENCE);
        let told = heard.flat_map(|(demand, _)| &demand.spec.backends);
        told.filter(|b| b.namespace == namespace && b.service == service).for_each(|told| load.add(told));
        load
    }
}

fn services(demand: &Demand) -> Vec<String> {
    demand.spec.backends.iter().map(|b| format!("{}/{}", b.namespace, b.service)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik8s_core::api::{BackendDemand, DemandSpec};

    fn demand(node: &str, service: &str, waiting: i64) -> Arc<Demand> {
        let (namespace, service) = ("ns".to_owned(), service.to_owned());
        let backends = vec![BackendDemand { namespace, service, waiting, ..BackendDemand::default() }];
        let mut demand = Demand { spec: DemandSpec { at: None, backends }, ..Demand::default() };
        demand.metadata.name = Some(node.to_owned());
        Arc::new(demand)
    }

    #[test]
    fn gateways_are_added_up_and_silent_ones_forgotten() {
        let (demands, now) = (Demands::default(), Instant::now());
        assert_eq!(demands.heard(&demand("a", "f", 2), now), ["ns/f"]);
        demands.heard(&demand("b", "f", 3), now + Duration::from_secs(4));
        let waiting = |after: u64| demands.load("ns", "f", now + Duration::from_secs(after)).waiting;
        assert_eq!((waiting(4), waiting(6), waiting(10)), (5.0, 3.0, 0.0));
        assert_eq!(demands.heard(&demand("a", "g", 1), now), ["ns/f", "ns/g"]);
    }
}
