//! Records of sandboxes on disk, and the calls on one sandbox.

use super::Joined;
use super::namespaces::{Wanted, is_pinned, pin, unpin};
use super::spares::Spares;
use super::sysctls;
use minik8s_core::runtime::{RuntimeError, RuntimeResult, SandboxInfo, SandboxSpec};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    spec: SandboxSpec,
    created_at: i64,
}

/// Sandboxes below one root: records survive reboots, pins do not.
#[derive(Debug)]
pub(crate) struct SandboxStore {
    records: PathBuf,
    pins: PathBuf,
    spares: Spares,
}

impl SandboxStore {
    /// With as many spares as said.
    pub(crate) fn new(root: &Path, state: &Path, spares: usize) -> Self {
        let spares = Spares::new(state.join("spares"), spares);
        Self { records: root.join("sandboxes"), pins: state.join("sandboxes"), spares }
    }

    pub(crate) fn spares(&self) -> &Spares {
        &self.spares
    }

    fn record_file(&self, id: &str) -> PathBuf {
        self.records.join(format!("{id}.json"))
    }

    /// Directory of the pins of one sandbox.
    pub(crate) fn pins(&self, id: &str) -> PathBuf {
        self.pins.join(id)
    }

    /// What containers of it join.
    pub(crate) fn joined(&self, spec: &SandboxSpec) -> Joined {
        let dir = self.pins(&spec.id);
        let pin = |shared: bool, name: &str| shared.then(|| dir.join(name));
        Joined {
            net: pin(!spec.host_network, "net"),
            ipc: pin(!spec.host_ipc, "ipc"),
            uts: pin(!spec.host_network, "uts"),
            pid: pin(spec.share_pids && !spec.host_pid, "pid"),
            shm: pin(!spec.host_ipc, "shm"),
        }
    }

    /// The sandbox as it is now. Blocking.
    pub(crate) fn load(&self, id: &str) -> RuntimeResult<Option<SandboxInfo>> {
        match fs::read(self.record_file(id)) {
            Ok(bytes) => match serde_json::from_slice::<Record>(&bytes) {
                Ok(record) => Ok(Some(self.info(record))),
                // Torn by a crash while it was written: there is a sandbox, but nobody knows what it was.
                Err(_) => Ok(Some(torn(id))),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("reading a sandbox record", &e)),
        }
    }

    fn info(&self, record: Record) -> SandboxInfo {
        let joined = self.joined(&record.spec);
        let pins = [&joined.net, &joined.ipc, &joined.uts, &joined.pid];
        let ready = pins.into_iter().flatten().all(|p| is_pinned(p));
        SandboxInfo {
            version: record.version,
            ready,
            netns: joined.net,
            created_at: record.created_at,
            spec: record.spec,
        }
    }

    /// Every sandbox of which something is left. Blocking.
    pub(crate) fn all(&self) -> RuntimeResult<Vec<SandboxInfo>> {
        let mut ids: Vec<String> =
            names(&self.records).filter_map(|n| Some(n.strip_suffix(".json")?.to_owned())).collect();
        ids.extend(names(&self.pins));
        ids.sort();
        ids.dedup();
        ids.iter().map(|id| Ok(self.load(id)?.unwrap_or_else(|| torn(id)))).collect()
    }

    /// Makes what is missing. The record comes first, so that a crash leaves nothing unknown. Blocking.
    pub(crate) fn make(&self, spec: &SandboxSpec, now: i64) -> RuntimeResult<SandboxInfo> {
        check_id(&spec.id)?;
        if let Some(info) = self.load(&spec.id)?.filter(|i| i.ready) {
            return Ok(info);
        }
        let sysctls = sysctls::settings(spec)?;
        let wrong = |e: io::Error| failed("making a sandbox", &e);
        self.unpin(&spec.id)?;
        let record = Record { version: VERSION, spec: spec.clone(), created_at: now };
        let bytes = serde_json::to_vec(&record).map_err(|e| wrong(e.into()))?;
        fs::create_dir_all(&self.records).map_err(wrong)?;
        fs::write(self.record_file(&spec.id), bytes).map_err(wrong)?;
        let wanted = Wanted {
            net: !spec.host_network,
            ipc: !spec.host_ipc,
            uts: !spec.host_network,
            hostname: spec.hostname.clone(),
            sysctls,
        };
        fs::create_dir_all(&self.pins).map_err(wrong)?;
        let dir = self.pins(&spec.id);
        if !self.spares.take(&dir, &wanted) {
            fs::create_dir_all(&dir).map_err(wrong)?;
            write_host_name(&dir, &wanted).map_err(wrong)?;
            pin(&dir, &wanted).map_err(wrong)?;
        }
        Ok(self.info(record))
    }

    /// Keeps a process's PID namespace as the sandbox's. Blocking.
    pub(crate) fn pin_pids(&self, id: &str, pid: u32) -> RuntimeResult<()> {
        let bound = super::namespaces::bind(&format!("/proc/{pid}/ns/pid"), &self.pins(id).join("pid"));
        bound.map_err(|e| failed("sharing process ids", &e))
    }

    fn unpin(&self, id: &str) -> RuntimeResult<()> {
        unpin(&self.pins(id)).map_err(|e| failed("unpinning namespaces", &e))
    }

    /// Forgets it; the record goes last. Blocking.
    pub(crate) fn remove(&self, id: &str) -> RuntimeResult<()> {
        check_id(id)?;
        self.unpin(id)?;
        match fs::remove_file(self.record_file(id)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("removing a sandbox record", &e)),
            _ => Ok(()),
        }
    }
}

/// What containers get as `/etc/hostname`.
pub(super) fn write_host_name(dir: &Path, wanted: &Wanted) -> io::Result<()> {
    fs::write(dir.join("hostname"), format!("{}\n", wanted.hostname))
}

fn torn(id: &str) -> SandboxInfo {
    let spec = SandboxSpec { id: id.to_owned(), ..SandboxSpec::default() };
    SandboxInfo { version: VERSION, spec, ..SandboxInfo::default() }
}

pub(super) fn names(dir: &Path) -> impl Iterator<Item = String> + use<> {
    fs::read_dir(dir).into_iter().flatten().filter_map(|e| e.ok()?.file_name().into_string().ok())
}

/// Ids become file names.
pub(crate) fn check_id(id: &str) -> RuntimeResult<()> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if (1..=200).contains(&id.len()) && id.bytes().all(ok) && !id.starts_with('.') {
        return Ok(());
    }
    Err(RuntimeError::Invalid(format!("sandbox id {id:?}: letters, digits, '-', '_' and '.' only")))
}

fn failed(operation: &'static str, error: &io::Error) -> RuntimeError {
    RuntimeError::Unavailable { operation, cause: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_leave_the_directory() {
        for bad in ["", "..", ".hidden", "a/b", "../x"] {
            check_id(bad).expect_err(bad);
        }
        check_id("0a1b-2c").expect("uid");
    }

    #[test]
    fn a_torn_record_is_a_sandbox_that_is_not_ready() {
        let dir = tempfile::tempdir().expect("dir");
        let store = SandboxStore::new(dir.path(), &dir.path().join("state"), 0);
        fs::create_dir_all(dir.path().join("sandboxes")).expect("mkdir");
        fs::write(store.record_file("p1"), "{\"ver").expect("write");
        fs::create_dir_all(store.pins("p2")).expect("mkdir");
        let all = store.all().expect("all");
        assert_eq!(
            all.iter().map(|i| (i.spec.id.as_str(), i.ready)).collect::<Vec<_>>(),
            [("p1", false), ("p2", false)]
        );
        store.remove("p1").expect("remove");
        store.remove("p2").expect("remove");
        assert_eq!(store.all().expect("all"), []);
    }

    #[test]
    fn a_sandbox_that_asks_for_the_machines_parameters_is_not_made() {
        let dir = tempfile::tempdir().expect("dir");
        let store = SandboxStore::new(dir.path(), &dir.path().join("state"), 0);
        let sysctls = [("kernel.no_such_parameter".to_owned(), "1".to_owned())].into();
        let spec = SandboxSpec { id: "p".into(), sysctls, ..SandboxSpec::default() };
        let error = store.make(&spec, 0).expect_err("refused");
        assert!(matches!(&error, RuntimeError::Invalid(why) if why.contains("kernel.no_such_parameter")), "{error}");
        assert_eq!(store.all().expect("all"), []);
    }

    #[test]
    fn host_namespaces_are_not_joined() {
        let store = SandboxStore::new(Path::new("/r"), Path::new("/s"), 0);
        let spec = SandboxSpec { id: "p".into(), host_network: true, host_ipc: true, ..SandboxSpec::default() };
        assert_eq!(store.joined(&spec), Joined::default());
        let shared = SandboxSpec { id: "p".into(), share_pids: true, ..SandboxSpec::default() };
        assert_eq!(store.joined(&shared).pid, Some("/s/sandboxes/p/pid".into()));
    }
}
