//! Containers: records, and a task per running process.

use super::images::normalise;
use super::process::Control;
use super::script::command_line;
use super::{FakeContainer, FakeOp, FakeRuntime, Load, not_found};
use crate::runtime::{
    ContainerInfo, ContainerSpec, ContainerState, ContainerStats, Containers, Exit, RuntimeError, RuntimeResult,
};
use async_trait::async_trait;
use std::time::Duration;

/// Words in a program's name that make it "not found", so that mistakes can be played without a script.
const MISSING: [&str; 5] = ["no-such", "no/such", "nosuch", "does-not-exist", "nonexistent"];

impl FakeRuntime {
    fn refuse(&self, operation: &'static str, id: &str, cause: impl Into<String>) -> RuntimeError {
        RuntimeError::Container { operation, id: id.to_owned(), cause: cause.into() }
    }

    fn create(&self, sandbox: &str, spec: &ContainerSpec) -> RuntimeResult<()> {
        let now = self.inner.now();
        let mut state = self.inner.state.lock();
        if let Some(there) = state.containers.get(&spec.id) {
            let same = there.info.sandbox == sandbox;
            return if same { Ok(()) } else { Err(self.refuse("create", &spec.id, "exists in another sandbox")) };
        }
        if !state.sandboxes.get(sandbox).is_some_and(|s| s.ready) {
            return Err(not_found("sandbox", sandbox));
        }
        let name = normalise(&spec.image)?;
        let found = state.images.get(&name).or_else(|| state.images.values().find(|i| i.id == spec.image));
        let image = found.cloned().ok_or_else(|| not_found("image", &spec.image))?;
        let root = spec.security.user.map_or(image.user.is_empty() || image.user == "0", |user| user == 0);
        if spec.security.run_as_non_root && root {
            return Err(self.refuse("create", &spec.id, "it must not run as root, and its image runs as root"));
        }
        if let Some(mount) = spec.mounts.iter().find(|m| !m.source.exists()) {
            let cause = format!("mount source {} does not exist", mount.source.display());
            return Err(self.refuse("create", &spec.id, cause));
        }
        let info = ContainerInfo {
            id: spec.id.clone(),
            sandbox: sandbox.to_owned(),
            image: spec.image.clone(),
            image_id: image.id,
            state: ContainerState::Created,
            created_at: now,
            log_path: spec.log_path.clone(),
            labels: spec.labels.clone(),
            ..ContainerInfo::default()
        };
        state.containers.insert(
            spec.id.clone(),
            FakeContainer { info, spec: spec.clone(), control: None, used: super::load::Used::default() },
        );
        Ok(())
    }

    fn start(&self, id: &str) -> RuntimeResult<Option<String>> {
        let mut guard = self.inner.state.lock();
        let state = &mut *guard;
        let container = state.containers.get_mut(id).ok_or_else(|| not_found("container", id))?;
        match container.info.state {
            ContainerState::Created => {}
            ContainerState::Running => return Ok(None),
            ContainerState::Exited(_) => return Err(wrong_state(id, "exited", "start")),
        }
        let script = state.scripts.iter().rev().find(|(which, _)| which.matches(&container.spec)).map(|(_, s)| s);
        let argv = command_line(&container.spec);
        let program = argv.first().map_or("", String::as_str);
        if script.is_none() && MISSING.iter().any(|word| program.contains(word)) {
            container.info.state =
                ContainerState::Exited(Exit { code: 128, oom_killed: false, finished_at: self.inner.now() });
            return Err(self.refuse("start", id, format!("exec: {program:?}: executable file not found in $PATH")));
        }
        state.last_pid += 1;
        let (control, stdin) = Control::new();
        container.info.state = ContainerState::Running;
        container.info.started_at = self.inner.now();
        container.used.begin(container.info.started_at);
        container.info.pid = Some(100_000 + state.last_pid);
        container.control = Some(control.clone());
        let sandbox = container.info.sandbox.clone();
        let hostname = state.sandboxes.get(&sandbox).map(|s| s.spec.hostname.clone()).unwrap_or_default();
        self.inner.spawn(container, control, stdin, hostname, script.cloned());
        Ok(Some(sandbox))
    }
}

pub(super) fn wrong_state(name: &str, state: &'static str, operation: &'static str) -> RuntimeError {
    RuntimeError::WrongState { name: name.to_owned(), state, operation }
}

#[async_trait]
impl Containers for FakeRuntime {
    async fn create_container(&self, sandbox: &str, spec: &ContainerSpec) -> RuntimeResult<()> {
        self.inner.call(FakeOp::Create, &spec.id).await?;
        self.create(sandbox, spec)?;
        self.inner.announce(sandbox, &spec.id);
        Ok(())
    }

    async fn start_container(&self, id: &str) -> RuntimeResult<()> {
        self.inner.call(FakeOp::Start, id).await?;
        if let Some(sandbox) = self.start(id)? {
            self.inner.announce(&sandbox, id);
        }
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> RuntimeResult<()> {
        self.inner.call(FakeOp::Stop, id).await?;
        let control = {
            let mut state = self.inner.state.lock();
            let container = state.containers.get_mut(id);
            container.and_then(|container| {
                container.info.paused = false;
                container.control.clone()
            })
        };
        let Some(control) = control else { return Ok(()) };
        control.term();
        if tokio::time::timeout(grace, control.ended.cancelled()).await.is_err() {
            control.kill();
            control.ended.cancelled().await;
        }
        Ok(())
    }

    async fn pause_container(&self, id: &str) -> RuntimeResult<()> {
        self.inner.call(FakeOp::Pause, id).await?;
        let sandbox = {
            let mut state = self.inner.state.lock();
            let container = state.containers.get_mut(id).ok_or_else(|| not_found("container", id))?;
            if container.info.state != ContainerState::Running {
                return Err(wrong_state(id, "not running", "pause"));
            }
            container.info.paused = true;
            container.info.sandbox.clone()
        };
        self.inner.announce(&sandbox, id);
        Ok(())
    }

    async fn resume_container(&self, id: &str) -> RuntimeResult<()> {
        self.inner.call(FakeOp::Pause, id).await?;
        let thawed = {
            let mut state = self.inner.state.lock();
            let paused = state.containers.get_mut(id).filter(|container| container.info.paused);
            paused.map(|container| {
                container.info.paused = false;
                container.info.sandbox.clone()
            })
        };
        thawed.iter().for_each(|sandbox| self.inner.announce(sandbox, id));
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> RuntimeResult<()> {
        self.inner.call(FakeOp::Remove, id).await?;
        let gone = self.inner.state.lock().containers.remove(id);
        if let Some(container) = gone {
            if let Some(control) = &container.control {
                control.kill();
            }
            self.inner.announce(&container.info.sandbox, id);
        }
        Ok(())
    }

    async fn containers(&self, sandbox: Option<&str>) -> RuntimeResult<Vec<ContainerInfo>> {
        self.inner.call(FakeOp::Containers, sandbox.unwrap_or_default()).await?;
        let state = self.inner.state.lock();
        let wanted = |c: &&FakeContainer| sandbox.is_none_or(|s| c.info.sandbox == s);
        Ok(state.containers.values().filter(wanted).map(|c| c.info.clone()).collect())
    }

    async fn container(&self, id: &str) -> RuntimeResult<Option<ContainerInfo>> {
        self.inner.call(FakeOp::Containers, id).await?;
        Ok(self.inner.state.lock().containers.get(id).map(|c| c.info.clone()))
    }

    async fn stats(&self, id: &str) -> RuntimeResult<ContainerStats> {
        self.inner.call(FakeOp::Stats, id).await?;
        let at = self.inner.now();
        let mut guard = self.inner.state.lock();
        let state = &mut *guard;
        let container = state.containers.get_mut(id).ok_or_else(|| not_found("container", id))?;
        if container.info.state != ContainerState::Running {
            return Err(wrong_state(id, "not running", "read its statistics"));
        }
        let load = state.loads.as_ref().map_or_else(Load::default, |loads| loads(&container.info.labels));
        let cpu_ns = container.used.until(at, load.milli_cpu);
        let memory_usage = load.memory_bytes + (2 << 20);
        Ok(ContainerStats { at, cpu_ns, memory_working_set: load.memory_bytes, memory_usage, pids: 1 })
    }
}
