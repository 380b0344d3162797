//! Stores under the conformance suite, and what each of them promises beyond it.

mod embedded;
mod etcd;
mod fanout;
mod faults;
mod kill;
mod memory;
mod model;
