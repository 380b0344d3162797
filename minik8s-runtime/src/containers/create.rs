//! Making a container: specification, containerd's record, the writable layer.

use super::{ContainerFiles, EXTENSION, Record, SANDBOX_LABEL, containerd_id, refused};
use crate::connection::{Lease, Tolerate, unavailable};
use crate::images::Image;
use crate::runtime::{Inner, now};
use crate::spec::{self, Accounts};
use containerd_client::services::v1 as api;
use containerd_client::services::v1::snapshots as snap;
use containerd_client::types::Mount;
use minik8s_core::runtime::{ContainerSpec, RuntimeError, RuntimeResult, SandboxInfo, Seccomp};
use prost::Message;
use prost_types::Any;
use std::sync::Arc;
use tonic::Code;

pub(crate) const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const RUNTIME: &str = "io.containerd.runc.v2";

/// `containerd.runc.v1.Options`, the part we set.
#[derive(Clone, PartialEq, Message)]
struct RuncOptions {
    #[prost(string, tag = "7")]
    root: String,
}

impl Inner {
    pub(crate) async fn create_container(self: &Arc<Self>, sandbox: &str, spec: &ContainerSpec) -> RuntimeResult<()> {
        let cid = containerd_id(&spec.id);
        let _guard = self.locks.lock(&cid).await;
        let (sandbox_id, mounts) = (sandbox.to_owned(), spec.mounts.clone());
        let id = spec.id.clone();
        let (there, image, found) = tokio::join!(
            self.record(&cid),
            self.images.require(&spec.image),
            self.blocking(move |this| {
                if let Some(mount) = mounts.iter().find(|m| !m.source.exists()) {
                    let cause = format!("mount source {} does not exist", mount.source.display());
                    return Err(refused("create", &id)(cause));
                }
                let missing = RuntimeError::NotFound { what: "sandbox", name: sandbox_id.clone() };
                this.sandboxes.load(&sandbox_id)?.ok_or(missing)
            }),
        );
        if let Some(there) = there? {
            return same_sandbox(&there, sandbox);
        }
        let (image, sandbox) = (image?, found?);
        if !sandbox.ready {
            return Err(RuntimeError::WrongState {
                name: sandbox.spec.id,
                state: "not ready",
                operation: "create a container",
            });
        }
        let made = self.make(&cid, &sandbox, spec, &image).await;
        if made.is_err() {
            self.undo_create(&cid).await;
        }
        made
    }

    async fn make(
        self: &Arc<Self>,
        cid: &str,
        sandbox: &SandboxInfo,
        spec: &ContainerSpec,
        image: &Arc<Image>,
    ) -> RuntimeResult<()> {
        let mut record =
            Record::new(&sandbox.spec.id, spec, format!("{}/{cid}", self.pod_cgroup(&sandbox.spec)), now());
        record.image_id.clone_from(&image.id);
        record.stop_signal.clone_from(&image.config.config.stop_signal);
        let accounts = self.accounts.lock().get(&image.chain_id).cloned();
        let mounts = match accounts {
            // The record refers to the layer, which keeps it from the collector, so it comes first.
            Some(accounts) => {
                self.store(cid, &record, self.specify(sandbox, spec, image, &accounts, &record)?).await?;
                self.prepare_layer(cid, image, None).await?
            }
            None => {
                let lease = self.connection.lease().await?;
                let mounts = self.make_first(cid, sandbox, spec, image, &record, &lease).await;
                self.connection.release(lease).await;
                mounts?
            }
        };
        self.prepared.lock().insert(cid.to_owned(), mounts);
        self.records.lock().insert(cid.to_owned(), Arc::new(record));
        Ok(())
    }

    /// The first container of an image: its users are read through the layer's mounts, so the layer comes first, and
    /// a lease keeps it meanwhile.
    async fn make_first(
        self: &Arc<Self>,
        cid: &str,
        sandbox: &SandboxInfo,
        spec: &ContainerSpec,
        image: &Image,
        record: &Record,
        lease: &Lease,
    ) -> RuntimeResult<Vec<Mount>> {
        let mounts = self.prepare_layer(cid, image, Some(lease)).await?;
        let probe = mounts.clone();
        let accounts = self.blocking(move |_| Ok(Arc::new(spec::read_accounts(&probe)))).await?;
        self.accounts.lock().insert(image.chain_id.clone(), accounts.clone());
        self.store(cid, record, self.specify(sandbox, spec, image, &accounts, record)?).await?;
        Ok(mounts)
    }

    fn specify(
        &self,
        sandbox: &SandboxInfo,
        spec: &ContainerSpec,
        image: &Image,
        accounts: &Accounts,
        record: &Record,
    ) -> RuntimeResult<Vec<u8>> {
        let wrong = refused("create", &spec.id);
        let identity =
            spec::identify(&image.config.config.user, &spec.security, accounts).map_err(|e| wrong(e.to_string()))?;
        let joined = self.sandboxes.joined(&sandbox.spec);
        let hostname_file = Some(self.sandboxes.pins(&sandbox.spec.id).join("hostname"));
        let input = spec::Input {
            image: &image.config,
            container: spec,
            identity: &identity,
            joined: &joined,
            hostname: &sandbox.spec.hostname,
            hostname_file: hostname_file.filter(|_| !sandbox.spec.host_network),
            host_pid: sandbox.spec.host_pid,
            cgroup: &record.cgroup,
            cgroup_v2: self.cgroups.is_v2(),
            lowest_oom_score: self.lowest_oom_score,
            profile: read_profile(spec)?,
            devices: spec::given(&spec.devices).map_err(|e| wrong(e.to_string()))?,
            host_devices: if spec.security.privileged { spec::host_devices() } else { Vec::new() },
        };
        let built = spec::build(&input).map_err(|e| wrong(e.to_string()))?;
        serde_json::to_vec(&built).map_err(|e| wrong(e.to_string()))
    }

    async fn store(&self, cid: &str, record: &Record, spec: Vec<u8>) -> RuntimeResult<()> {
        let files: ContainerFiles = self.files(cid);
        files.create(record).map_err(|e| RuntimeError::Unavailable {
            operation: "writing a container's record",
            cause: e.to_string(),
        })?;
        let container = api::Container {
            id: cid.to_owned(),
            labels: [(SANDBOX_LABEL.to_owned(), record.sandbox.clone())].into(),
            image: record.image.clone(),
            runtime: Some(self.runc()),
            spec: Some(Any { type_url: SPEC_TYPE.to_owned(), value: spec }),
            snapshotter: self.config.snapshotter.clone(),
            snapshot_key: cid.to_owned(),
            extensions: [(EXTENSION.to_owned(), record.to_extension())].into(),
            ..Default::default()
        };
        let request = self.connection.request(api::CreateContainerRequest { container: Some(container) });
        self.connection
            .containers()
            .create(request)
            .await
            .map_err(|s| refused("create", &record.id)(s.message().to_owned()))?;
        Ok(())
    }

    /// runc's own state goes where ours goes: other containerds on the machine use the same container ids.
    pub(crate) fn runc(&self) -> api::container::Runtime {
        let options = RuncOptions { root: self.config.state.join("runc").to_string_lossy().into_owned() };
        let options = Any { type_url: "containerd.runc.v1.Options".to_owned(), value: options.encode_to_vec() };
        api::container::Runtime { name: RUNTIME.to_owned(), options: Some(options) }
    }

    async fn prepare_layer(&self, cid: &str, image: &Image, lease: Option<&Lease>) -> RuntimeResult<Vec<Mount>> {
        let failed = unavailable("preparing a root file system");
        if let Some(mounts) = self.try_prepare(cid, image, lease).await.map_err(&failed)? {
            return Ok(mounts);
        }
        // Left by a create that was interrupted; nobody ran in it, but nobody knows what it is either.
        self.images.remove_snapshot(cid).await?;
        let again = self.try_prepare(cid, image, lease).await.map_err(&failed)?;
        again.ok_or_else(|| failed(tonic::Status::already_exists(format!("snapshot {cid} does not go away"))))
    }

    async fn try_prepare(
        &self,
        cid: &str,
        image: &Image,
        lease: Option<&Lease>,
    ) -> Result<Option<Vec<Mount>>, tonic::Status> {
        let request = snap::PrepareSnapshotRequest {
            snapshotter: self.config.snapshotter.clone(),
            key: cid.to_owned(),
            parent: image.chain_id.clone(),
            ..Default::default()
        };
        let request = match lease {
            Some(lease) => self.connection.leased(request, lease),
            None => self.connection.request(request),
        };
        let prepared = self.connection.snapshots().prepare(request).await.tolerate(Code::AlreadyExists)?;
        Ok(prepared.map(|p| p.mounts))
    }

    async fn undo_create(&self, cid: &str) {
        let request = self.connection.request(api::DeleteContainerRequest { id: cid.to_owned() });
        let _ = self.connection.containers().delete(request).await;
        let _ = self.images.remove_snapshot(cid).await;
        let _ = self.files(cid).remove();
    }
}

/// The text of the container's seccomp profile, where it names one. A small file, read where the agent just wrote others.
fn read_profile(spec: &ContainerSpec) -> RuntimeResult<Option<Vec<u8>>> {
    let Seccomp::Profile(path) = &spec.security.seccomp else { return Ok(None) };
    let unreadable = |e| format!("cannot read the seccomp profile {}: {e}", path.display());
    std::fs::read(path).map(Some).map_err(|e: std::io::Error| refused("create", &spec.id)(unreadable(e)))
}

fn same_sandbox(record: &Record, sandbox: &str) -> RuntimeResult<()> {
    if record.sandbox == sandbox {
        return Ok(());
    }
    Err(RuntimeError::Invalid(format!("container {} exists in sandbox {}", record.id, record.sandbox)))
}
