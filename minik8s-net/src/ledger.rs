//! Who has which address, on disk: one file for each pod, replaced as a whole, so that a kill at any moment leaves
//! either the record or none.

use minik8s_core::network::pool::AddressPool;
use minik8s_core::network::{HostPort, NetworkError, NetworkResult, PodAttachment, PodNetwork};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// One pod's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) ip: Ipv4Addr,
    pub(crate) link: String,
    #[serde(default)]
    pub(crate) host_ports: Vec<HostPort>,
}

impl Record {
    /// As callers know it.
    pub(crate) fn network(&self) -> PodNetwork {
        PodNetwork { id: self.id.clone(), ips: vec![IpAddr::V4(self.ip)] }
    }
}

/// All records, and the pool they are taken from.
#[derive(Debug)]
pub(crate) struct Ledger {
    dir: PathBuf,
    pool: AddressPool,
    records: BTreeMap<String, Record>,
}

impl Ledger {
    /// Reads what a predecessor left in `dir`. Unreadable files are dropped: nobody was told of them.
    pub(crate) fn open(dir: PathBuf, pool: AddressPool) -> io::Result<Self> {
        std::fs::create_dir_all(dir.join("pods"))?;
        let mut ledger = Self { dir, pool, records: BTreeMap::new() };
        for entry in std::fs::read_dir(ledger.dir.join("pods"))? {
            let path = entry?.path();
            let record = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
            match record {
                Some(record) if path == ledger.file(&record.id) => {
                    ledger.pool.claim(record.ip, &record.id);
                    ledger.records.insert(record.id.clone(), record);
                }
                _ => std::fs::remove_file(&path)?,
            }
        }
        let last = std::fs::read_to_string(ledger.dir.join("last")).ok();
        if let Some(last) = last.and_then(|text| text.trim().parse().ok()) {
            ledger.pool.resume_after(last);
        }
        Ok(ledger)
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Record> {
        self.records.get(id)
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// The pod's record, made where there is none, and its file where that is new. Who tells somebody of the address syncs
    /// the file first; whatever a kill may leave needs no sync. A record of another range counts as none.
    pub(crate) fn allocate(&mut self, pod: &PodAttachment, link: String) -> NetworkResult<(Record, Option<File>)> {
        self.check_ports(pod)?;
        if let Some(known) = self.records.get(&pod.id)
            && self.pool.range().contains(&known.ip)
        {
            let record = Record { host_ports: pod.host_ports.clone(), ..known.clone() };
            return self.keep(record);
        }
        let ip = self.pool.allocate(&pod.id)?;
        let record = Record {
            id: pod.id.clone(),
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            ip,
            link,
            host_ports: pod.host_ports.clone(),
        };
        // A hint: nothing is lost where it is.
        let _ = replace(&self.dir.join("last"), ip.to_string().as_bytes());
        self.keep(record).inspect_err(|_| self.pool.release(ip))
    }

    /// Refuses ports of the host that another pod has.
    fn check_ports(&self, pod: &PodAttachment) -> NetworkResult<()> {
        let clash = |a: &HostPort, b: &HostPort| {
            let all = |port: &HostPort| port.host_ip.is_none_or(|ip| ip.is_unspecified());
            let same_address = a.host_ip == b.host_ip || all(a) || all(b);
            a.host_port == b.host_port && a.protocol == b.protocol && same_address
        };
        let others = self.records.values().filter(|record| record.id != pod.id);
        for (record, taken) in others.flat_map(|record| record.host_ports.iter().map(move |port| (record, port))) {
            if pod.host_ports.iter().any(|wanted| clash(wanted, taken)) {
                return Err(NetworkError::Taken {
                    what: "port",
                    name: format!("{}/{}", taken.host_port, taken.protocol.as_str()),
                    hint: format!("pod {}/{} on this node has it", record.namespace, record.name),
                });
            }
        }
        Ok(())
    }

    fn keep(&mut self, record: Record) -> NetworkResult<(Record, Option<File>)> {
        if self.records.get(&record.id) == Some(&record) {
            return Ok((record, None));
        }
        let file = self.file(&record.id);
        let bytes = serde_json::to_vec(&record).map_err(|e| unwritable(&file, &e))?;
        let fresh = replace(&file, &bytes).map_err(|e| unwritable(&file, &e))?;
        self.records.insert(record.id.clone(), record.clone());
        Ok((record, Some(fresh)))
    }

    /// Strikes a record out. Missing is success.
    pub(crate) fn release(&mut self, id: &str) -> io::Result<()> {
        if let Err(error) = std::fs::remove_file(self.file(id))
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        if let Some(record) = self.records.remove(id) {
            self.pool.release(record.ip);
        }
        Ok(())
    }

    /// Removes every file of the ledger.
    pub(crate) fn erase(&mut self) -> Vec<String> {
        let ids: Vec<String> = self.records.keys().cloned().collect();
        let mut problems: Vec<String> =
            ids.iter().filter_map(|id| self.release(id).err().map(|e| format!("forget pod {id}: {e}"))).collect();
        let _ = std::fs::remove_file(self.dir.join("last"));
        if let Err(error) = std::fs::remove_dir(self.dir.join("pods"))
            && error.kind() != io::ErrorKind::NotFound
        {
            problems.push(format!("remove {}: {error}", self.dir.join("pods").display()));
        }
        problems
    }

    /// A uid is a file name as it is, unless it holds what a file name should not.
    fn file(&self, id: &str) -> PathBuf {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let fits = !id.is_empty() && id.len() <= 100 && id.bytes().all(plain);
        let stem = if fits { id.to_owned() } else { format!("x.{:016x}", crate::config::fnv(id.bytes())) };
        self.dir.join("pods").join(format!("{stem}.json"))
    }
}

fn unwritable(file: &Path, cause: &dyn std::fmt::Display) -> NetworkError {
    NetworkError::Kernel { operation: "write", object: file.display().to_string(), cause: cause.to_string() }
}

/// Replaces a file as a whole: readers and successors see the old content or the new.
pub(crate) fn write_atomically(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let (fresh, out) = write_beside(file, bytes)?;
    out.sync_data()?;
    std::fs::rename(&fresh, file)
}

/// The same, but for the machine's own end: then what is there may be torn until the file is synced.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<File> {
    let (fresh, out) = write_beside(file, bytes)?;
    std::fs::rename(&fresh, file)?;
    Ok(out)
}

fn write_beside(file: &Path, bytes: &[u8]) -> io::Result<(PathBuf, File)> {
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let fresh = file.with_extension("new");
    let mut out = File::create(&fresh)?;
    out.write_all(bytes)?;
    Ok((fresh, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> Ledger {
        Ledger::open(dir.to_owned(), AddressPool::new("10.9.0.0/24".parse().unwrap())).unwrap()
    }

    fn pod(id: &str) -> PodAttachment {
        PodAttachment { id: id.into(), ..PodAttachment::default() }
    }

    #[test]
    fn records_survive_a_restart_and_addresses_are_not_reused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(dir.path());
        let (a, fresh) = ledger.allocate(&pod("a"), "l".into()).unwrap();
        let (b, _) = ledger.allocate(&pod("b"), "l".into()).unwrap();
        assert!(fresh.is_some(), "it is to be synced");
        ledger.release("b").unwrap();
        drop(ledger);
        let mut ledger = open(dir.path());
        let (again, fresh) = ledger.allocate(&pod("a"), "l".into()).unwrap();
        assert!(again == a && fresh.is_none());
        assert_ne!(ledger.allocate(&pod("c"), "l".into()).unwrap().0.ip, b.ip);
        assert_eq!(ledger.records().count(), 2);
    }

    #[test]
    fn half_written_files_are_as_if_never_written() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        std::fs::write(dir.path().join("pods/a.json"), b"{\"id\":\"a").unwrap();
        std::fs::write(dir.path().join("pods/b.new"), b"{}").unwrap();
        assert_eq!(open(dir.path()).records().count(), 0);
        assert_eq!(std::fs::read_dir(dir.path().join("pods")).unwrap().count(), 0);
    }

    #[test]
    fn hostile_uids_stay_inside_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(dir.path());
        for id in ["../../etc/passwd", "", ".", "a/b", &"long".repeat(90)] {
            ledger.allocate(&pod(id), "l".into()).unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path().join("pods")).unwrap().count(), 5);
        assert!(ledger.erase().is_empty());
        assert!(!dir.path().join("pods").exists());
    }
}
