//! What the processes of a fake runtime use.

use super::FakeRuntime;
use crate::node::ids::{CONTAINER_NAME, POD_NAME};
use crate::runtime::Labels;

/// What a container uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Thousandths of a core.
    pub milli_cpu: u64,
    /// Bytes of memory that cannot be reclaimed.
    pub memory_bytes: u64,
}

/// A hundredth of a core and a few megabytes: plausible for something idle.
impl Default for Load {
    fn default() -> Self {
        Self { milli_cpu: 10, memory_bytes: 4 << 20 }
    }
}

/// The load of a container, by its labels.
pub(super) type Loads = Box<dyn Fn(&Labels) -> Load + Send>;

/// What a container has used: the load counts from reading to reading.
#[derive(Default)]
pub(super) struct Used {
    at: i64,
    cpu_ns: u64,
}

impl Used {
    pub(super) fn begin(&mut self, now: i64) {
        *self = Self { at: now, cpu_ns: 0 };
    }

    pub(super) fn until(&mut self, now: i64, milli_cpu: u64) -> u64 {
        self.cpu_ns += u64::try_from(now - self.at).unwrap_or(0) * milli_cpu * 1000;
        self.at = now;
        self.cpu_ns
    }
}

impl FakeRuntime {
    /// From now on the containers use what this says, given the names of pod and container.
    pub fn load(&self, of: impl Fn(&str, &str) -> Load + Send + 'static) {
        let name = |labels: &Labels, key: &str| labels.get(key).cloned().unwrap_or_default();
        let by_labels = move |labels: &Labels| of(&name(labels, POD_NAME), &name(labels, CONTAINER_NAME));
        self.inner.state.lock().loads = Some(Box::new(by_labels));
    }
}
