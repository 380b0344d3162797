//! All that one run consists of, and its course.

use super::components::{Component, Machine, Servers};
use super::invariants::Observed;
use super::{Failure, Report, Simulation, clients, converge, nemesis};
use crate::clock::SharedClock;
use crate::store::{MemoryStore, Store, WatchBatch, WatchStart};
use crate::testkit::clock::TokioClock;
use crate::testkit::history::{Recorder, StoreLog, linearizable};
use futures::StreamExt;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What a failure shows of what happened last.
const RECENT: usize = 60;
/// When the simulated time begins: 2026-01-01.
const DAWN: i64 = 1_767_225_600;

pub(super) struct World {
    pub(super) plan: Simulation,
    pub(super) raw: Arc<dyn Store>,
    pub(super) clock: SharedClock,
    pub(super) recorder: Recorder,
    pub(super) servers: Arc<Servers>,
    pub(super) managers: Vec<Component>,
    pub(super) machines: Mutex<Vec<Arc<Machine>>>,
    pub(super) observed: Mutex<Observed>,
    /// All chance of this run.
    dice: Mutex<StdRng>,
    healthy: AtomicBool,
    journal: Mutex<Journal>,
    /// What did not hold, once something did not.
    verdict: Mutex<Option<(Duration, String)>>,
    judged: Notify,
    began: Instant,
}

#[derive(Default)]
struct Journal {
    trace: DefaultHasher,
    recent: VecDeque<String>,
    commits: u64,
    faults: u64,
    log: StoreLog,
}

impl World {
    /// Plays one seed to its end.
    pub(super) async fn play(plan: Simulation, seed: u64) -> Result<Report, Failure> {
        let world = Arc::new(Self::new(plan, seed));
        let story = async {
            let result = world.story().await;
            if let Err(why) = result {
                world.judge(why);
                std::future::pending::<()>().await;
            }
        };
        let settled = tokio::select! {
            biased;
            () = world.judged.notified() => None,
            () = story => Some(()),
        };
        let journal = world.journal.lock();
        if let (None, Some((at, why))) = (settled, world.verdict.lock().clone()) {
            return Err(Failure { seed, at, why, recent: journal.recent.iter().cloned().collect() });
        }
        Ok(Report {
            trace: journal.trace.finish(),
            commits: journal.commits,
            faults: journal.faults,
            calls: world.recorder.calls().len(),
            settled: world.began.elapsed().saturating_sub(world.plan.faults),
        })
    }

    fn new(plan: Simulation, seed: u64) -> Self {
        let raw: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let start = jiff::Timestamp::from_second(DAWN).unwrap_or_default();
        let managers = (0..plan.managers).map(|i| Component::new(format!("manager-{i}"), i)).collect();
        Self {
            plan,
            recorder: Recorder::beside(raw.clone()),
            raw,
            clock: Arc::new(TokioClock::starting_at(start)),
            servers: Arc::default(),
            managers,
            machines: Mutex::default(),
            observed: Mutex::default(),
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
            healthy: AtomicBool::new(true),
            journal: Mutex::default(),
            verdict: Mutex::default(),
            judged: Notify::new(),
            began: Instant::now(),
        }
    }

    async fn story(self: &Arc<Self>) -> Result<(), String> {
        let mut batches = self.raw.watch("", WatchStart::After(0)).await.map_err(|e| e.to_string())?;
        let world = self.clone();
        let observer = tokio::spawn(async move {
            while let Some(Ok(batch)) = batches.next().await {
                world.observe(&batch);
            }
        });
        for index in 0..self.plan.servers {
            self.servers.start(self, index).await;
        }
        for index in 0..self.plan.nodes {
            self.add_machine(index)?;
        }
        self.managers.iter().for_each(|manager| manager.start_manager(self));
        self.healthy.store(false, Ordering::SeqCst);
        self.servers.store_faults(true);
        let mut busy = JoinSet::new();
        for index in 0..self.plan.clients {
            busy.spawn(clients::play(self.clone(), index));
        }
        busy.spawn(nemesis::play(self.clone()));
        busy.join_all().await;
        self.heal();
        converge::wait(self).await?;
        self.check_history()?;
        observer.abort();
        Ok(())
    }

    /// Adds a machine and starts its agent.
    pub(super) fn add_machine(self: &Arc<Self>, index: usize) -> Result<(), String> {
        let machine = Arc::new(Machine::new(self, index).map_err(|e| format!("no directory for a node: {e}"))?);
        machine.start_agent(self);
        self.machines.lock().push(machine);
        Ok(())
    }

    /// Ends all faults, and starts what does not run.
    fn heal(self: &Arc<Self>) {
        self.note("faults end");
        self.healthy.store(true, Ordering::SeqCst);
        self.servers.store_faults(false);
    }

    fn check_history(&self) -> Result<(), String> {
        let log = self.journal.lock().log.clone();
        log.explains(&self.recorder).map_err(|e| e.to_string())?;
        let maps = self.recorder.calls().into_iter().filter(|call| call.object.contains("/configmaps/default/m"));
        linearizable(&maps.collect::<Vec<_>>()).map_err(|e| e.to_string())
    }

    fn observe(&self, batch: &WatchBatch) {
        let at = self.began.elapsed();
        {
            let mut journal = self.journal.lock();
            journal.log.add(batch);
            journal.commits += 1;
            for event in batch.events.iter() {
                let entry = event.entry();
                (at, &*entry.key, entry.revision, &entry.value).hash(&mut journal.trace);
                let what = if matches!(event, crate::store::Event::Delete(_)) { "deleted" } else { "written" };
                journal.line(&*self.plan.listener, format!("{at:?} {what} {} at {}", entry.key, entry.revision));
            }
        }
        let result =
            self.observed.lock().add(batch).and_then(|()| super::invariants::on_machines(&self.machines.lock()));
        if let Err(why) = result {
            self.judge(why);
        }
    }

    /// Says that something does not hold. The first word counts.
    pub(super) fn judge(&self, why: String) {
        self.verdict.lock().get_or_insert((self.began.elapsed(), why));
        self.judged.notify_one();
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::SeqCst)
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// A number below `end`.
    pub(super) fn below(&self, end: u64) -> u64 {
        self.dice.lock().random_range(0..end.max(1))
    }

    pub(super) fn random(&self) -> u64 {
        self.dice.lock().random()
    }

    /// Notes a fault.
    pub(super) fn fault(&self, what: &str) {
        self.journal.lock().faults += 1;
        self.note(what);
    }

    fn note(&self, what: &str) {
        let at = self.began.elapsed();
        let mut journal = self.journal.lock();
        (at, what).hash(&mut journal.trace);
        journal.line(&*self.plan.listener, format!("{at:?} FAULT {what}"));
    }
}

impl Journal {
    fn line(&mut self, listener: &(dyn Fn(&str) + Send + Sync), line: String) {
        listener(&line);
        // Heartbeats would push out everything else.
        if line.contains("/leases/") {
            return;
        }
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(line);
    }
}
