//! Help for tests, of this project and of its users: fakes that keep state, conformance suites, waiting on conditions.

pub mod need;
pub mod wait;
