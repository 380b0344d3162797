//! The table in the kernel: made, changed in single transactions, checked for what others did to it, removed.

use super::base::Surroundings;
use super::drift;
use super::flows::{self, Reach};
use super::plan::Front;
use super::program::{PodRules, Program};
use crate::kernel::failed;
use crate::nft::{Batch, NftError, NftSocket};
use ipnet::Ipv4Net;
use minik8s_core::network::{NetworkError, NetworkResult, Protocol, ServiceTable};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Service rules of one node. Calls block a thread of their own, never the runtime.
#[derive(Clone, Debug)]
pub(crate) struct ServiceRules {
    table: String,
    inner: Arc<Mutex<Inner>>,
    forgetter: Arc<Forgetter>,
}

/// Forgets flows beside the lock of the rules: the kernel takes its time to say all that it remembers, and nobody's change
/// waits for that of another. One at a time, which does it for all that came while it waited for its turn.
#[derive(Debug, Default)]
struct Forgetter(Mutex<Option<NftSocket>>);

impl Forgetter {
    fn settle(
        &self,
        inner: &Mutex<Inner>,
        forget: impl FnOnce(&mut Option<NftSocket>, &Due) -> Result<(), NftError>,
    ) -> Result<(), NftError> {
        let mut socket = self.0.lock();
        let due = inner.lock().due();
        if due.stale.is_empty() {
            return Ok(());
        }
        let done = forget(&mut socket, &due);
        if done.is_err() {
            inner.lock().stale.put_back(due.stale);
        }
        done
    }
}

/// What is to be forgotten, and what the rules lead to.
struct Due {
    stale: Stale,
    reach: Reach,
    cluster: Ipv4Net,
}

fn forget(socket: &mut Option<NftSocket>, due: &Due) -> Result<(), NftError> {
    flows::forget(open(socket)?, due.cluster, &due.reach, &due.stale.gone)
}

#[derive(Debug)]
struct Inner {
    socket: Option<NftSocket>,
    program: Program,
    services: Arc<ServiceTable>,
    /// Of the rules when they were last known to be as the program says; `None` before the first time.
    generation: Option<u32>,
    stale: Stale,
    /// What services there are was said, and may be none.
    told: bool,
    /// The kernel has the table of an earlier process, which leads to services that are not known here yet.
    inherited: bool,
}

/// What remembered flows are about that must be forgotten: kept until that has worked.
#[derive(Debug, Default)]
struct Stale {
    fronts: BTreeSet<Front>,
    gone: BTreeSet<Ipv4Addr>,
}

impl Stale {
    fn is_empty(&self) -> bool {
        self.fronts.is_empty() && self.gone.is_empty()
    }

    /// What could not be forgotten is tried again.
    fn put_back(&mut self, other: Self) {
        self.fronts.extend(other.fronts);
        self.gone.extend(other.gone);
    }
}

impl ServiceRules {
    pub(crate) fn new(around: Surroundings) -> Self {
        Self {
            table: around.table.clone(),
            forgetter: Arc::default(),
            inner: Arc::new(Mutex::new(Inner::new(Program::new(around)))),
        }
    }

    /// Makes the table, or repairs it. One that an earlier process left stays as it is until the services are known:
    /// without them it would lead nowhere, and it is as true as it was a moment ago.
    pub(crate) async fn ensure(&self) -> NetworkResult<()> {
        self.run(Inner::ensure).await
    }

    /// Makes rules match `services`.
    pub(crate) async fn sync(&self, services: Arc<ServiceTable>) -> NetworkResult<()> {
        self.run(|inner| {
            (inner.told, inner.inherited) = (true, false);
            inner.sync(services)
        })
        .await
    }

    /// Adds or changes what a pod needs.
    pub(crate) async fn set_pod(&self, id: String, pod: PodRules) -> NetworkResult<()> {
        self.run(move |inner| inner.set_pod(&id, pod)).await
    }

    /// Notes a pod before the table is made.
    pub(crate) fn note_pod(&self, id: &str, pod: PodRules) {
        self.inner.lock().program.set_pod(id, pod);
    }

    /// Removes what a pod needed, and forgets its flows.
    pub(crate) async fn remove_pod(&self, id: String, ip: Ipv4Addr) -> NetworkResult<()> {
        // Before anybody is told that the pod is no more: who asked a service and heard nothing yet is led elsewhere when
        // it asks again.
        let before = self.run(move |inner| {
            inner.stale.gone.insert(ip);
            Ok(())
        });
        if let Err(error) = before.await {
            tracing::warn!(%error, pod = %ip, "flows to a pod that goes cannot be forgotten yet");
        }
        self.run(move |inner| inner.remove_pod(&id, ip)).await
    }

    /// Removes the table.
    pub(crate) async fn remove(&self) -> NetworkResult<()> {
        self.run(Inner::remove).await
    }

    async fn run(&self, work: impl FnOnce(&mut Inner) -> Result<(), NftError> + Send + 'static) -> NetworkResult<()> {
        let (inner, forgetter) = (self.inner.clone(), self.forgetter.clone());
        let done = tokio::task::spawn_blocking(move || {
            let is_due = {
                let mut inner = inner.lock();
                work(&mut inner)?;
                !inner.stale.is_empty()
            };
            if is_due { forgetter.settle(&inner, forget) } else { Ok(()) }
        });
        let done = done.await;
        let table = format!("table ip {}", self.table);
        done.map_err(failed("change", table.clone()))?.map_err(|error| NetworkError::Kernel {
            operation: "change",
            object: table,
            cause: match error {
                NftError::Refused { what, source } => format!("{what}: {source}"),
                NftError::Io(source) => source.to_string(),
                NftError::Stale => error.to_string(),
            },
        })
    }
}

impl Inner {
    fn new(program: Program) -> Self {
        Self {
            socket: None,
            program,
            services: Arc::default(),
            generation: None,
            stale: Stale::default(),
            told: false,
            inherited: false,
        }
    }

    fn ensure(&mut self) -> Result<(), NftError> {
        if !self.told && self.generation.is_none() {
            let Self { socket, program, .. } = self;
            self.inherited = drift::exists(open(socket)?, program)?;
            if self.inherited {
                return Ok(());
            }
        }
        self.sync(self.services.clone())
    }

    fn sync(&mut self, services: Arc<ServiceTable>) -> Result<(), NftError> {
        self.services = services;
        if !self.check()? {
            return self.rebuild();
        }
        let (changes, touched) = self.program.update(&self.services);
        self.stale.fronts.extend(touched);
        let mut batch = self.batch();
        changes.write(&mut batch);
        self.commit_or_rebuild(batch)
    }

    fn set_pod(&mut self, id: &str, pod: PodRules) -> Result<(), NftError> {
        let sound = self.check()?;
        self.stale.fronts.extend(self.program.host_ports(id));
        let [go, come] = self.program.set_pod(id, pod);
        // A client that asked before there was a pod has a flow to the host itself.
        self.stale.fronts.extend(self.program.host_ports(id));
        // It comes with the services.
        if self.inherited {
            return Ok(());
        }
        if !sound {
            return self.rebuild();
        }
        let mut batch = self.batch();
        go.iter().for_each(|(set, elements)| batch.delete_elements(set, elements));
        come.iter().for_each(|(set, elements)| batch.add_elements(set, elements));
        self.commit_or_rebuild(batch)
    }

    fn remove_pod(&mut self, id: &str, ip: Ipv4Addr) -> Result<(), NftError> {
        let sound = self.check()?;
        // Whoever asked since its flows were forgotten.
        self.stale.gone.insert(ip);
        self.stale.fronts.extend(self.program.host_ports(id));
        let go = self.program.remove_pod(id);
        if sound {
            let mut batch = self.batch();
            go.iter().for_each(|(set, elements)| batch.delete_elements(set, elements));
            self.commit_or_rebuild(batch)?;
        } else if self.generation.is_some() {
            self.rebuild()?;
        }
        Ok(())
    }

    /// True where the kernel is known to have what the program says. Cheap while nobody else changes any rules.
    fn check(&mut self) -> Result<bool, NftError> {
        let Some(expected) = self.generation else { return Ok(false) };
        let Self { socket, program, .. } = self;
        let socket = open(socket)?;
        let now = socket.generation()?;
        if now == expected {
            return Ok(true);
        }
        let intact = drift::intact(socket, program)?;
        if intact {
            self.generation = Some(now);
        } else {
            tracing::warn!(table = program.around().table, "service rules were changed by somebody else; repairing");
        }
        Ok(intact)
    }

    fn batch(&self) -> Batch {
        Batch::new(&self.program.around().table, self.generation)
    }

    fn commit_or_rebuild(&mut self, batch: Batch) -> Result<(), NftError> {
        match open(&mut self.socket)?.commit(batch) {
            Ok(changed) => {
                self.generation = self.generation.map(|g| if changed { next(g) } else { g });
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "rules did not fit what the kernel has; making them anew");
                self.rebuild()
            }
        }
    }

    /// The whole table in one transaction, whatever there was.
    fn rebuild(&mut self) -> Result<(), NftError> {
        self.generation = None;
        // What there was in the kernel is not known, nor what became of it.
        self.stale.fronts.extend(self.program.fronts());
        self.program.forget();
        let (changes, _) = self.program.update(&self.services);
        self.stale.fronts.extend(self.program.fronts());
        let mut batch = Batch::new(&self.program.around().table, None);
        self.program.write_all(&changes, &mut batch);
        let socket = open(&mut self.socket)?;
        let before = socket.generation()?;
        socket.commit(batch)?;
        // Where somebody else came between, the next check notices.
        self.generation = Some(next(before));
        Ok(())
    }

    /// Takes out what is to be forgotten.
    fn due(&mut self) -> Due {
        let mut stale = std::mem::take(&mut self.stale);
        stale.fronts.retain(|front| front.protocol() != Protocol::Sctp);
        let reach = |front: &Front| (*front, self.program.reach(*front).into_iter().collect());
        let reach = stale.fronts.iter().map(reach).collect();
        Due { stale, reach, cluster: self.program.around().cluster }
    }

    fn remove(&mut self) -> Result<(), NftError> {
        self.generation = None;
        self.program = Program::new(self.program.around().clone());
        self.services = Arc::default();
        self.stale = Stale::default();
        (self.told, self.inherited) = (false, false);
        let mut batch = Batch::new(&self.program.around().table, None);
        // Adding first makes removing succeed where there is none.
        batch.add_table();
        batch.delete_table();
        open(&mut self.socket)?.commit(batch)?;
        self.socket = None;
        Ok(())
    }
}

fn open(socket: &mut Option<NftSocket>) -> Result<&mut NftSocket, NftError> {
    match socket {
        Some(socket) => Ok(socket),
        empty => Ok(empty.insert(NftSocket::new()?)),
    }
}

/// The kernel never uses generation 0.
fn next(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::super::program::tests::program;
    use super::*;

    #[test]
    fn what_could_not_be_forgotten_is_tried_again() {
        let (inner, forgetter) = (Mutex::new(Inner::new(program())), Forgetter::default());
        let (front, other) = (Front::NodePort(Protocol::Udp, 53), Front::NodePort(Protocol::Udp, 54));
        inner.lock().stale.fronts.insert(front);
        let busy = forgetter.settle(&inner, |_, _| {
            // Whoever changes rules meanwhile does not wait.
            inner.lock().stale.fronts.insert(other);
            Err(NftError::Stale)
        });
        assert!(busy.is_err());
        let seen = Mutex::new(Vec::new());
        for _ in 0..2 {
            let all = |_: &mut _, due: &Due| {
                seen.lock().push(due.stale.fronts.clone());
                Ok(())
            };
            forgetter.settle(&inner, all).unwrap();
        }
        assert_eq!(seen.into_inner(), [[front, other].into()], "once more, and then never again");
    }
}
