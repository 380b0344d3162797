//! The parts of the cluster, each of which can be killed at any instant and started again without any memory.

use super::wire::Wire;
use super::world::World;
use crate::client::{Client, Election, ElectionConfig, SharedTransport};
use crate::controllers::{ControllerManager, ControllersConfig};
use crate::network::NoopNetwork;
use crate::node::{NodeAgent, NodeCapacity, NodeConfig};
use crate::server::{ApiServer, Settings};
use crate::store::{FaultRates, FaultStore};
use crate::testkit::FakeRuntime;
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The API servers.
#[derive(Default)]
pub(super) struct Servers {
    slots: Mutex<Vec<Slot>>,
    /// The faulty hands that the servers hold on the store.
    pub(super) stores: Mutex<Vec<FaultStore>>,
}

#[derive(Clone, Default)]
struct Slot {
    running: Option<Arc<ApiServer>>,
    crashed: CancellationToken,
}

/// Answers get lost, delays, broken watches between a server and its store.
fn rates() -> FaultRates {
    let delay = Duration::from_millis(2);
    FaultRates { refuse: 0.005, lose_request: 0.01, lose_reply: 0.01, cut_watch: 0.002, delay }
}

impl Servers {
    /// The server at `first`, or the next one that runs, and what is cancelled when it crashes.
    pub(super) fn pick(&self, first: usize) -> Option<(SharedTransport, CancellationToken)> {
        let slots = self.slots.lock();
        let mut all = (0..slots.len()).map(|i| &slots[(first + i) % slots.len()]);
        all.find_map(|slot| Some((slot.running.clone()? as SharedTransport, slot.crashed.clone())))
    }

    /// A running server itself, for what a server knows about its kinds.
    pub(super) fn any(&self) -> Option<Arc<ApiServer>> {
        self.slots.lock().iter().find_map(|slot| slot.running.clone())
    }

    pub(super) fn count(&self) -> usize {
        self.slots.lock().len()
    }

    /// Starts the `index`th server over the store, again and again until the store lets it.
    pub(super) async fn start(&self, world: &World, index: usize) {
        let store = {
            let mut stores = self.stores.lock();
            while stores.len() <= index {
                let below = (world.plan.store)(world.raw.clone());
                stores.push(FaultStore::seeded(below, world.random(), FaultRates::default()));
                self.slots.lock().push(Slot::default());
            }
            stores[index].clone()
        };
        loop {
            let builder = ApiServer::builder(Arc::new(store.clone())).clock(world.clock.clone()).settings(settings());
            match builder.seed(world.random()).start().await {
                Ok(server) => {
                    self.slots.lock()[index] = Slot { running: Some(server), crashed: CancellationToken::new() };
                    break;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
        store.set_rates(if world.is_healthy() { FaultRates::default() } else { rates() });
    }

    /// Kills a server: nothing that is under way gets an answer. False where it did not run.
    pub(super) fn crash(&self, index: usize) -> bool {
        let slot = std::mem::take(&mut self.slots.lock()[index]);
        slot.crashed.cancel();
        slot.running.inspect(|server| server.shutdown()).is_some()
    }

    /// Ends the faults of the stores, or begins them.
    pub(super) fn store_faults(&self, on: bool) {
        for store in self.stores.lock().iter() {
            if on { store.set_rates(rates()) } else { store.heal() }
        }
    }
}

/// Few addresses, so that they are taken again, and little patience with nodes that are gone.
fn settings() -> Settings {
    Settings {
        service_cidr: ipnet::IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 27)),
        node_ports: (30_000, 30_015),
        not_ready_seconds: 15,
        unreachable_seconds: 15,
        ..Settings::default()
    }
}

/// One life of a component.
struct Life {
    dead: CancellationToken,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Life {
    fn end(self) {
        // First the tongue, so that what dies says nothing more.
        self.dead.cancel();
        self.task.abort();
        self.stop.cancel();
    }
}

/// Something that runs, is cut off, and dies.
pub(super) struct Component {
    name: String,
    index: usize,
    pub(super) cut: watch::Sender<bool>,
    life: Mutex<Option<Life>>,
}

impl Component {
    pub(super) fn new(name: String, index: usize) -> Self {
        Self { name, index, cut: watch::Sender::new(false), life: Mutex::default() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn runs(&self) -> bool {
        self.life.lock().is_some()
    }

    /// A way to the API servers, and the token that ends it.
    pub(super) fn wire(&self, world: &Arc<World>) -> (Client, CancellationToken) {
        let dead = CancellationToken::new();
        let wire = Wire {
            world: world.clone(),
            servers: world.servers.clone(),
            name: self.name.clone(),
            first: self.index % world.servers.count().max(1),
            cut: self.cut.subscribe(),
            dead: dead.clone(),
        };
        (Client::new(Arc::new(wire)).with_manager(&self.name), dead)
    }

    /// Begins a life, and ends the one before it.
    fn live<F>(&self, world: &Arc<World>, work: impl FnOnce(Client, CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (client, dead) = self.wire(world);
        let stop = CancellationToken::new();
        let task = tokio::spawn(work(client, stop.clone()));
        let before = self.life.lock().replace(Life { dead, stop, task });
        before.into_iter().for_each(Life::end);
    }

    /// Kills it. False where it did not run.
    pub(super) fn crash(&self) -> bool {
        let life = self.life.lock().take();
        life.map(Life::end).is_some()
    }

    /// Runs controllers and scheduler whenever this candidate leads.
    pub(super) fn start_manager(&self, world: &Arc<World>) {
        let identity = format!("{}-{}", self.name, world.random() % 100_000);
        let shared = world.clone();
        self.live(world, |client, stop| async move {
            let world = shared;
            // The kinds are the same in all servers; one must have run to have them.
            let server = loop {
                match world.servers.any() {
                    Some(server) => break server,
                    None => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            };
            let config = ControllersConfig::new(Arc::new(server.registry().clone()));
            drop(server);
            let manager =
                ControllerManager::new(client.clone(), world.clock.clone(), (world.plan.controllers)(&config));
            let election = Election::new(&client, world.clock.clone(), ElectionConfig::new("controllers", identity));
            election.run(stop, |stop| manager.clone().run(stop)).await;
        });
    }
}

/// A machine with its agent. What runs on it outlives the agent, but not the power.
pub(super) struct Machine {
    pub(super) agent: Component,
    pub(super) runtime: Arc<FakeRuntime>,
    pub(super) network: Arc<NoopNetwork>,
    config: NodeConfig,
    pub(super) on: Mutex<bool>,
    /// It went for good.
    pub(super) left: Mutex<bool>,
    _directory: tempfile::TempDir,
}

impl Machine {
    pub(super) fn new(world: &World, index: usize) -> std::io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("minik8s-sim").tempdir()?;
        let name = format!("node-{index}");
        let third = u8::try_from(index % 250).unwrap_or_default();
        let range = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, third, 0), 24);
        let capacity = NodeCapacity { milli_cpu: 4_000, memory_bytes: 8 << 30, ephemeral_bytes: 64 << 30, pods: 30 };
        let config = NodeConfig {
            capacity,
            hostname: name.clone(),
            addresses: vec![Ipv4Addr::new(192, 168, 9, third).into()],
            pod_cidr: Some(range.into()),
            ..NodeConfig::new(&name, directory.path().join("data"))
        };
        Ok(Self {
            agent: Component::new(name, index),
            runtime: Arc::new(FakeRuntime::with_clock(world.clock.clone())),
            network: Arc::new(NoopNetwork::new(range)),
            config,
            on: Mutex::new(true),
            left: Mutex::new(false),
            _directory: directory,
        })
    }

    pub(super) fn start_agent(&self, world: &Arc<World>) {
        if !*self.on.lock() {
            return;
        }
        let (config, runtime, network) = (self.config.clone(), self.runtime.clone(), self.network.clone());
        let clock = world.clock.clone();
        self.agent.live(world, |client, stop| async move {
            NodeAgent::builder(config, client, runtime, network).clock(clock).build().run(stop).await;
        });
    }

    /// Takes its power: the agent and every container die.
    pub(super) fn power_off(&self) {
        *self.on.lock() = false;
        self.agent.crash();
        self.runtime.reboot();
    }

    pub(super) fn power_on(&self, world: &Arc<World>) {
        *self.on.lock() = true;
        self.start_agent(world);
    }
}
