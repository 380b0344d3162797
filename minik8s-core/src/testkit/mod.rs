//! Help for tests, of this project and of its users: fakes that keep state, conformance suites, waiting on conditions.

pub mod api;
pub mod clock;
#[cfg(feature = "etcd")]
pub mod etcd;
mod fake_jobs;
mod fake_runtime;
pub mod faults;
pub mod frozen;
pub mod grpc;
pub mod history;
pub mod hosts;
pub mod inside;
pub mod jobs;
pub mod kubectl;
pub mod need;
pub mod network;
pub mod runtime;
pub mod scheduler;
pub mod served;
pub mod sim_node;
pub mod simulation;
pub mod store;
mod stub;
pub mod suite;
pub mod wait;

pub use fake_jobs::FakeJobs;
pub use fake_runtime::{End, ExecAnswer, FakeCall, FakeOp, FakeRuntime, Load, Script, Which};
pub use stub::StubTransport;
