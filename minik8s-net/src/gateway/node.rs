//! The gateway of a node: beside its pods, it follows what the API says.

use super::canaries::Canaries;
use super::demand;
use super::secrets::Secrets;
use super::{Gateway, GatewayConfig, GatewayMetrics, Sockets};
use crate::dns::{HostTable, Hosts, SHARED_DOMAINS};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use minik8s_core::client::PatchType;
use minik8s_core::node::{Companion, CompanionContext};
use minik8s_core::routing::{GATEWAY_ANNOTATION, GatewayPlace, RouteSet, Sources, translate};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Changes of routes that come this close together are followed together.
const TOGETHER: Duration = Duration::from_millis(3);
/// Wait after the API did not take word of the ports.
const AGAIN: Duration = Duration::from_secs(1);
/// How often is told what was counted of canaries, while there are some.
const COUNT: Duration = Duration::from_secs(1);

/// Runs a [`Gateway`] beside the pods of a node, fed by the API, and tells the name server which names lead to it.
pub struct NodeGateway {
    config: GatewayConfig,
    metrics: GatewayMetrics,
    /// Where ports are opened.
    address: IpAddr,
    hosts: Arc<Hosts>,
    /// Opened beforehand, for those ports that every gateway has.
    listeners: Mutex<Vec<(TcpListener, u16, bool)>>,
    /// Ports that routes may not have, as something else of this machine is there.
    open_more: bool,
    /// Whose names lead to the gateway for all namespaces.
    shared_domains: Vec<String>,
}

impl NodeGateway {
    /// A gateway that opens ports at `address` as Gateways ask for them, and tells `hosts` which names lead there. Without
    /// any port of its own it passes nothing on, but names still lead to the gateways of other nodes.
    pub fn new(config: GatewayConfig, metrics: GatewayMetrics, address: IpAddr, hosts: Arc<Hosts>) -> Self {
        let open_more = config.http_port.or(config.https_port).is_some();
        let shared_domains = SHARED_DOMAINS.map(str::to_owned).to_vec();
        Self { config, metrics, address, hosts, listeners: Mutex::default(), open_more, shared_domains }
    }

    /// Hosts of routes below these domains lead to the gateway for pods of all namespaces, and not only for those of the
    /// route's own; `*` for all. Instead of [`SHARED_DOMAINS`].
    #[must_use]
    pub fn shared_domains(self, domains: Vec<String>) -> Self {
        Self { shared_domains: domains, ..self }
    }

    /// Serves one of its own ports at this listener.
    #[must_use]
    pub fn listener(self, listener: TcpListener, port: u16, tls: bool) -> Self {
        self.listeners.lock().push((listener, port, tls));
        self
    }

    /// Opens the ports that routes ask for, and leaves those that none asks for any more.
    fn follow_ports(&self, gateway: &Gateway, routes: &RouteSet, told: &mut BTreeSet<u16>) {
        let own = [self.config.http_port, self.config.https_port];
        gateway.keep_ports(|port| own.contains(&Some(port)) || routes.ports.contains_key(&port));
        told.retain(|port| routes.ports.contains_key(port));
        for (port, tls) in routes.ports.iter().filter(|_| self.open_more) {
            match gateway.open(SocketAddr::new(self.address, *port), *tls) {
                Ok(()) => drop(told.remove(port)),
                Err(error) if told.insert(*port) => {
                    tracing::warn!(%error, port, "the gateway cannot listen where a Gateway asks for it");
                }
                Err(_) => {}
            }
        }
    }

    /// Without listeners that would have the gateway's own ports speak something else: what is meant to be encrypted is
    /// not served in clear, and the other way round.
    fn possible(&self, routes: RouteSet, noted: &mut BTreeSet<String>) -> RouteSet {
        let clash = |(port, tls): (&u16, &bool)| {
            let own = if *tls { self.config.http_port } else { self.config.https_port };
            (own == Some(*port)).then_some(*port)
        };
        let clashes: Vec<u16> = routes.ports.iter().filter_map(clash).collect();
        let why = |port: &u16| format!("port {port} speaks another protocol here than a Gateway wants");
        note(clashes.iter().map(why).collect(), noted);
        if clashes.is_empty() { routes } else { routes.without_ports(&clashes) }
    }

    fn follow_names(&self, gateway: &Gateway, routes: &RouteSet, nodes: &[Arc<Node>], own: &str) {
        let others = nodes.iter().filter(|node| node.metadata.name.as_deref() != Some(own));
        let mut table = HostTable {
            shared: self.shared_domains.clone(),
            here: !gateway.ports().is_empty(),
            elsewhere: others.filter_map(|node| address_of_gateway(node)).collect(),
            ..HostTable::default()
        };
        routes.hosts().for_each(|(name, namespace)| table.add(name, namespace));
        routes.patterns().for_each(|(suffix, one, namespace)| table.add_below(suffix, one, namespace));
        self.hosts.set(table);
    }

    fn place(&self, gateway: &Gateway) -> GatewayPlace {
        let ports = gateway.ports();
        let open = |port: Option<u16>| port.filter(|port| ports.contains(port));
        GatewayPlace { http: open(self.config.http_port), https: open(self.config.https_port), ports }
    }
}

/// Where the gateway of a node is, if it runs one.
fn address_of_gateway(node: &Node) -> Option<IpAddr> {
    let place = node.metadata.annotations.as_ref()?.get(GATEWAY_ANNOTATION)?;
    let place: GatewayPlace = serde_json::from_str(place).ok()?;
    let address = node.status.as_ref()?.addresses.iter().flatten().find(|a| a.type_ == "InternalIP")?;
    (!place.ports.is_empty()).then(|| address.address.parse().ok())?
}

#[async_trait]
impl Companion for NodeGateway {
    fn name(&self) -> &str {
        "gateway"
    }

    fn register(&self, page: &mut Registry) {
        self.metrics.register(page);
    }

    async fn run(self: Arc<Self>, ctx: CompanionContext) {
        let gateway = Gateway::new(self.config.clone(), self.metrics.clone());
        let listeners = std::mem::take(&mut *self.listeners.lock());
        tokio::select! {
            biased;
            () = ctx.stop.cancelled() => {}
            () = self.follow(&ctx, &gateway, listeners) => {}
            () = demand::tell(&ctx, &gateway) => {}
        }
        gateway.shutdown().await;
    }
}

impl NodeGateway {
    async fn follow(&self, ctx: &CompanionContext, gateway: &Gateway, listeners: Vec<(TcpListener, u16, bool)>) {
        let sources = Sources::new(&ctx.informers);
        let nodes = ctx.informers.of::<Node>();
        let (mut news, mut node_news) = (sources.news(), nodes.subscribe());
        let mut services = ctx.services.clone();
        // A gateway that answers before it knows the routes would refuse what it should pass on.
        if !(sources.synced().await && nodes.synced().await && services.wait_for(Option::is_some).await.is_ok()) {
            return;
        }
        let (mut secrets, mut told, mut noted) = (Secrets::new(ctx), BTreeSet::new(), BTreeSet::new());
        let mut routes = Arc::new(RouteSet::default());
        let mut first = Some(listeners);
        let (mut said, mut canaries) = (None, Canaries::default());
        let mut turn = tokio::time::interval(COUNT);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if let Some(table) = services.borrow_and_update().clone() {
                gateway.set_services(table);
            }
            let world = sources.world();
            canaries.follow(&world, gateway);
            let made = self.possible(translate(&world).routes, &mut noted);
            if *routes != made || first.is_some() {
                routes = Arc::new(made);
                note(gateway.set_routes(routes.clone()), &mut noted);
            }
            secrets.follow(&routes.certificates);
            if first.is_some() {
                secrets.known().await;
            }
            note(gateway.set_secrets(Arc::new(secrets.all())), &mut noted);
            for (listener, port, tls) in first.take().into_iter().flatten() {
                gateway.listen(listener, port, tls);
            }
            self.follow_ports(gateway, &routes, &mut told);
            self.config.sockets.iter().for_each(Sockets::settle);
            self.follow_names(gateway, &routes, &nodes.list(), &ctx.node);
            let place = self.place(gateway);
            if said.as_ref() != Some(&place) && say(ctx, &place).await {
                said = Some(place.clone());
            }
            let unsaid = said.as_ref() != Some(&place);
            loop {
                let goes_on = tokio::select! {
                    biased;
                    some = news.next() => some,
                    // Endpoints change more often than all else, and nothing else follows from them.
                    changed = services.changed() => {
                        if let Some(table) = services.borrow_and_update().clone() {
                            gateway.set_services(table);
                        }
                        match changed {
                            Ok(()) => continue,
                            Err(_) => false,
                        }
                    }
                    () = secrets.changed() => true,
                    _ = turn.tick(), if canaries.any() => {
                        canaries.say(ctx, gateway).await;
                        continue;
                    }
                    some = node_news.next() => some.is_some(),
                    () = tokio::time::sleep(AGAIN), if unsaid || !told.is_empty() => true,
                };
                if !goes_on {
                    return;
                }
                break;
            }
            tokio::time::sleep(TOGETHER).await;
            news.skip();
            while node_news.try_next().is_some() {}
        }
    }
}

/// Warns of what has not been warned of before.
fn note(broken: Vec<String>, noted: &mut BTreeSet<String>) {
    for what in broken {
        if noted.insert(what.clone()) {
            tracing::warn!("the gateway leaves something out: {what}");
        }
    }
}

/// Tells the cluster where this gateway listens. True where that was heard.
async fn say(ctx: &CompanionContext, place: &GatewayPlace) -> bool {
    let mut registered = ctx.registered.clone();
    if registered.wait_for(|done| *done).await.is_err() {
        return false;
    }
    let text = (!place.ports.is_empty()).then(|| serde_json::to_string(place).unwrap_or_default());
    let patch = json!({"metadata": {"annotations": {GATEWAY_ANNOTATION: text}}});
    match ctx.client.all::<Node>().patch(&ctx.node, PatchType::Merge, &patch).await {
        Ok(_) => true,
        Err(error) => {
            tracing::debug!(%error, "cannot tell the cluster where the gateway listens");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik8s_core::routing::{At, Rule};

    #[test]
    fn own_ports_never_speak_what_only_some_gateway_wants() {
        let metrics = GatewayMetrics::default();
        let gateway = NodeGateway::new(GatewayConfig::default(), metrics, [127, 0, 0, 1].into(), Arc::default());
        let rule = |port| Rule { at: At::Port(port), ..Rule::default() };
        let routes = RouteSet {
            rules: vec![rule(80), rule(443), rule(8443), Rule::default()],
            ports: [(80, true), (443, false), (8443, true)].into(),
            ..RouteSet::default()
        };
        let mut noted = BTreeSet::new();
        let left = gateway.possible(routes, &mut noted);
        assert_eq!(left.ports.keys().collect::<Vec<_>>(), [&8443]);
        assert_eq!(left.rules.iter().map(|rule| rule.at).collect::<Vec<_>>(), [At::Port(8443), At::Usual]);
        assert_eq!(noted.len(), 2);
    }
}
