//! Where pods go: the contract, the filter/score framework, its plug-ins, the named policies, and the driver.
//!
//! A [`Scheduler`] is a pure function of a [`Snapshot`] and a pod. It sees no clock, no network and no API; the
//! [`driver`](SchedulerDriver) keeps the snapshot, asks, binds, and says why not.
//!
//! ```
//! use minik8s_core::scheduler::{FrameworkScheduler, NodeInfo, Outcome, PodInfo, Policy, Resources, Scheduler, Snapshot};
//!
//! let mut snapshot = Snapshot::default();
//! for (name, cpu) in [("small", 500), ("large", 4000)] {
//!     let room = Resources { milli_cpu: cpu, memory: 1 << 30, pods: 110, ..Resources::default() };
//!     snapshot.put_node(NodeInfo { name: name.into(), allocatable: room, ..NodeInfo::default() });
//! }
//! let requests = Resources { milli_cpu: 1000, ..Resources::default() };
//! let pod = PodInfo { name: "web".into(), requests, ..PodInfo::default() };
//! let scheduler = FrameworkScheduler::new(Policy::Default.profile());
//! let Outcome::Node(choice) = scheduler.schedule(&snapshot, &pod) else { panic!("no node") };
//! assert_eq!(choice.node, "large");
//! assert_eq!((choice.feasible, choice.considered), (1, 2));
//! ```

mod budgets;
pub mod config;
mod domains;
mod driver;
mod framework;
mod info;
mod outcome;
mod peers;
mod plugins;
mod policy;
mod preemption;
mod queue;
mod resources;
mod snapshot;
mod terms;
mod topology;

pub use budgets::Budget;
pub use driver::{Followed, SchedulerConfig, SchedulerDriver, SchedulerLoop};
pub use framework::{
    ClusterChange, ClusterEvent, Enough, FilterPlugin, FrameworkScheduler, PodFilter, Profile, Reasons, ScorePlugin,
    Weighted,
};
pub use info::{NodeInfo, PodInfo};
pub use outcome::{Choice, Diagnosis, Outcome};
pub use peers::Places;
pub use plugins::{
    HostPorts, InterPodAffinity, LeastRequested, MostRequested, NodeAffinity, NodeName, NodeSchedulable, PodSpread,
    RandomOrder, ResourceFit, RoundRobin, Taints,
};
pub use policy::Policy;
pub use preemption::{NoRoom, Preemption};
pub use queue::{SchedulingQueue, Wake};
pub use resources::Resources;
pub use snapshot::Snapshot;
pub use topology::NodeTopology;

/// Chooses nodes for pods.
///
/// # What every implementation promises
/// - The answer depends on the arguments alone: the same snapshot and pod give the same node. Chance, where it is
///   wanted, comes from a seed that the implementation was made with and from the pod.
/// - No node is returned that a filter rejects; the pod fits on the node returned, as the snapshot has it.
/// - That no node fits is [`Outcome::Unschedulable`] with a reason for every node, never an error or a panic.
///
/// It is called from one task and must not block; a call over thousands of nodes should take well under a millisecond.
pub trait Scheduler: Send + Sync + 'static {
    /// The name pods ask for with `spec.schedulerName`.
    fn name(&self) -> &str;

    /// Chooses a node for `pod`.
    fn schedule(&self, snapshot: &Snapshot, pod: &PodInfo) -> Outcome;

    /// True where `event` may make room for a pod that was refused with `diagnosis`. Asked once per refusal and event.
    fn may_help(&self, _diagnosis: &Diagnosis, _event: ClusterEvent) -> bool {
        true
    }

    /// True where this very change may make room for a pod that these filters refused. Asked of the changes that
    /// [`may_help`](Self::may_help) named; must not miss any that does.
    fn helps(&self, _: &Snapshot, _pod: &PodInfo, _refused_by: &[&str], _: &ClusterChange<'_>) -> bool {
        true
    }

    /// Which pods of lower priority have to go so that `pod`, refused with `diagnosis`, fits somewhere.
    ///
    /// # Errors
    /// Why none: what the driver adds to the reason that people read.
    fn preempt(&self, _snapshot: &Snapshot, _pod: &PodInfo, _diagnosis: &Diagnosis) -> Result<Preemption, NoRoom> {
        Err(NoRoom::Unsupported)
    }
}
