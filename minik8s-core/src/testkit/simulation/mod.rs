//! A whole cluster played through by the dice: API servers on one store, controllers and schedulers that stand for
//! election, node agents on fakes, and clients that create, scale and delete, while requests and answers get lost, come
//! late or twice, watches break, nodes are cut off, and everything crashes and starts again. Then the faults end, and all
//! must become as it should be.
//!
//! Time is simulated, and one thread decides what happens when: **one seed is one run**. The same seed gives the same
//! commits with the same bytes at the same times, where the binary says [`repeatable_hashing!`](crate::repeatable_hashing)
//! once (else the order within hash maps differs from run to run), and where it is played in a process of its own, as
//! [`seeds::play`] does (else the dice inside Tokio depend on how many runtimes the process has started before).
//!
//! What must hold is looked at after each commit of the store ([`Failure::why`] names it), and at the end the history of
//! all clients is held against the store ([`super::history`]).
//!
//! ```
//! use minik8s_core::testkit::simulation::Simulation;
//! use std::time::Duration;
//!
//! let report = Simulation::new().nodes(1).faults_for(Duration::from_secs(5)).run(1).unwrap();
//! assert!(report.commits > 0);
//! ```

mod clients;
mod components;
mod converge;
pub mod entropy;
mod invariants;
mod nemesis;
pub mod seeds;
mod wire;
mod world;

use crate::client::SharedTransport;
use crate::controllers::{Controller, ControllersConfig};
use crate::random;
use crate::scheduler::{SchedulerConfig, SchedulerLoop};
use crate::store::Store;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use world::World;

type Listener = dyn Fn(&str) + Send + Sync;
type Controllers = dyn Fn(&ControllersConfig) -> Vec<Arc<dyn Controller>> + Send + Sync;
type OverStore = dyn Fn(Arc<dyn Store>) -> Arc<dyn Store> + Send + Sync;
type OverTransport = dyn Fn(SharedTransport) -> SharedTransport + Send + Sync;

/// What is simulated. Every part has a default.
#[derive(Clone)]
pub struct Simulation {
    servers: usize,
    managers: usize,
    nodes: usize,
    clients: usize,
    faults: Duration,
    settle: Duration,
    controllers: Arc<Controllers>,
    store: Arc<OverStore>,
    transport: Arc<OverTransport>,
    listener: Arc<Listener>,
}

impl Default for Simulation {
    fn default() -> Self {
        Self {
            servers: 2,
            managers: 2,
            nodes: 3,
            clients: 3,
            faults: Duration::from_secs(90),
            settle: Duration::from_secs(600),
            controllers: Arc::new(|config| {
                let mut all = crate::controllers::all(config);
                all.push(Arc::new(SchedulerLoop::new(SchedulerConfig::default())));
                all
            }),
            store: Arc::new(|store| store),
            transport: Arc::new(|transport| transport),
            listener: Arc::new(|_| ()),
        }
    }
}

impl Simulation {
    /// Two API servers on one store, two candidates for the control loops, three nodes, three clients.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many API servers share the store.
    #[must_use]
    pub fn servers(self, servers: usize) -> Self {
        Self { servers: servers.max(1), ..self }
    }

    /// How many nodes there are at first. Others may join, and one may leave.
    #[must_use]
    pub fn nodes(self, nodes: usize) -> Self {
        Self { nodes: nodes.max(1), ..self }
    }

    /// How many clients change things.
    #[must_use]
    pub fn clients(self, clients: usize) -> Self {
        Self { clients, ..self }
    }

    /// How long faults and changes go on, in simulated time.
    #[must_use]
    pub fn faults_for(self, faults: Duration) -> Self {
        Self { faults, ..self }
    }

    /// How long everything may take afterwards to become as it should be, in simulated time.
    #[must_use]
    pub fn settle_within(self, settle: Duration) -> Self {
        Self { settle, ..self }
    }

    /// The loops that run: controllers of your own among them, or instead.
    #[must_use]
    pub fn controllers(
        self,
        controllers: impl Fn(&ControllersConfig) -> Vec<Arc<dyn Controller>> + Send + Sync + 'static,
    ) -> Self {
        Self { controllers: Arc::new(controllers), ..self }
    }

    /// A layer between the API servers and the store, below the faults.
    #[must_use]
    pub fn store_layer(self, layer: impl Fn(Arc<dyn Store>) -> Arc<dyn Store> + Send + Sync + 'static) -> Self {
        Self { store: Arc::new(layer), ..self }
    }

    /// A layer between everyone and the API servers, below the faults and what is recorded.
    #[must_use]
    pub fn transport_layer(self, layer: impl Fn(SharedTransport) -> SharedTransport + Send + Sync + 'static) -> Self {
        Self { transport: Arc::new(layer), ..self }
    }

    /// Tells every commit and every fault, a line each.
    #[must_use]
    pub fn listener(self, listener: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { listener: Arc::new(listener), ..self }
    }

    /// Plays one seed, on a thread of its own.
    ///
    /// # Errors
    /// What did not hold.
    pub fn run(&self, seed: u64) -> Result<Report, Failure> {
        let plan = self.clone();
        let play = move || {
            // Before anything is hashed on this thread.
            entropy::seed(seed);
            random::seed_thread(seed);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            let broken = |why: String| Failure { seed, at: Duration::ZERO, why, recent: Vec::new() };
            let runtime = runtime.map_err(|e| broken(format!("no runtime: {e}")))?;
            runtime.block_on(World::play(plan, seed))
        };
        let broken = |why: String| Failure { seed, at: Duration::ZERO, why, recent: Vec::new() };
        let thread = std::thread::Builder::new().name(format!("seed {seed}")).stack_size(STACK).spawn(play);
        let thread = thread.map_err(|e| broken(format!("no thread: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(broken("the simulation itself panicked".to_owned())))
    }
}

/// Futures of a debug build are large.
const STACK: usize = 64 << 20;

/// A seed that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// A digest of every commit and every fault, with their times.
    pub trace: u64,
    /// How many commits there were.
    pub commits: u64,
    /// How many faults there were.
    pub faults: u64,
    /// How many calls were recorded.
    pub calls: usize,
    /// How long it took to become well after the faults, in simulated time.
    pub settled: Duration,
}

/// A seed that did not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// When, in simulated time.
    pub at: Duration,
    /// What did not hold.
    pub why: String,
    /// What happened last.
    pub recent: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.recent {
            writeln!(f, "  {line}")?;
        }
        write!(f, "seed {} failed after {:?}: {}", self.seed, self.at, self.why)
    }
}
