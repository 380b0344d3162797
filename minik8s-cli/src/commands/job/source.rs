//! The files a job starts with: a directory becomes an archive, which goes to the cluster in ConfigMaps that hold a piece each.

use crate::api::Conn;
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use minik8s_core::job::{FileName, SourceFile, digest};
use minik8s_core::random;
use minik8s_gpu::archive;
use minik8s_gpu::kinds::{ArchiveReference, MOST_PARTS};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The manifest in a directory.
pub(super) const MANIFEST: &str = "job.yaml";
/// The entry of a ConfigMap.
const KEY: &str = "source.tar.gz";
/// Bytes of a piece: what an object may hold, less what surrounds it.
const PART: usize = 1_000_000;
/// Bytes of all files, where the JobCluster says nothing else.
const SOURCE_BYTES: u64 = 64 << 20;

/// The files of a directory, packed.
pub(super) struct Source {
    reference: ArchiveReference,
    packed: Vec<u8>,
}

impl Source {
    /// Packs a directory for a job, as far as the job's cluster takes it.
    pub(super) async fn of(conn: &Conn, namespace: &str, job: &Value, directory: &Path) -> Result<Self> {
        let cluster = job["spec"]["cluster"].as_str().unwrap_or_default();
        let at = format!("/apis/minik8s.io/v1alpha1/namespaces/{namespace}/jobclusters/{cluster}");
        // One that does not exist yet is waited for by the job.
        let said = match cluster.is_empty() {
            true => None,
            false => conn.get(&at).await.ok().and_then(|found| found["spec"]["limits"]["sourceBytes"].as_u64()),
        };
        let packed = pack(directory, said.unwrap_or(SOURCE_BYTES))?;
        let (parts, most) = (packed.len().div_ceil(PART), usize::try_from(MOST_PARTS).unwrap_or_default());
        if parts > most {
            let (size, most) = (packed.len(), most * PART);
            let place = directory.display();
            bail!(
                "{place} is {size} bytes when it is packed, of which {most} are taken: leave out what can be fetched there"
            );
        }
        // Those of an earlier job of this name may not be gone yet.
        let name = format!("{}-source-{}", job["metadata"]["name"].as_str().unwrap_or_default(), random::word(5));
        let sha256 = Some(digest(&packed));
        let reference = ArchiveReference { name, key: KEY.to_owned(), parts: i32::try_from(parts).ok(), sha256 };
        Ok(Self { reference, packed })
    }

    /// How a job refers to it.
    pub(super) fn reference(&self) -> Value {
        json!({"archive": self.reference})
    }

    /// Uploads it; it goes when its owner goes.
    pub(super) async fn upload(&self, conn: &Conn, namespace: &str, owner: &Value) -> Result<()> {
        for (index, part) in self.packed.chunks(PART).enumerate() {
            let map = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "immutable": true,
                "metadata": {"name": self.reference.part(index + 1), "ownerReferences": [owner]},
                "binaryData": {KEY: STANDARD.encode(part)},
            });
            conn.post(&format!("/api/v1/namespaces/{namespace}/configmaps"), &map).await?;
        }
        Ok(())
    }
}

/// The files of a directory, but its manifest and what version control keeps, as an archive.
fn pack(directory: &Path, most: u64) -> Result<Vec<u8>> {
    let mut files = Files { base: directory, found: Vec::new(), bytes: 0, most };
    files.collect(&mut PathBuf::new())?;
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&archive::pack("", &files.found)?)?;
    Ok(packed.finish()?)
}

/// Files below a directory.
struct Files<'a> {
    base: &'a Path,
    found: Vec<SourceFile>,
    bytes: u64,
    most: u64,
}

impl Files<'_> {
    fn collect(&mut self, below: &mut PathBuf) -> Result<()> {
        let here = self.base.join(&below);
        let mut entries: Vec<_> = std::fs::read_dir(&here)
            .and_then(Iterator::collect)
            .with_context(|| format!("cannot read {}", here.display()))?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let top = below.as_os_str().is_empty();
            if name == ".git" || top && name == MANIFEST {
                continue;
            }
            below.push(&name);
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                self.collect(below)?;
            } else if kind.is_file() {
                self.add(&path, below)?;
            } else {
                bail!("{} is neither a file nor a directory: jobs take no links", path.display());
            }
            below.pop();
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, below: &Path) -> Result<()> {
        let name = below.to_str().map(FileName::new).and_then(Result::ok);
        let name = name.with_context(|| format!("{} has a name that cannot be sent", path.display()))?;
        let about = path.metadata().with_context(|| format!("cannot read {}", path.display()))?;
        self.bytes += about.len();
        if self.bytes > self.most {
            bail!(
                "with {}, {} has more than the {} bytes that its JobCluster takes (spec.limits.sourceBytes): leave out what \
                 can be made or fetched there",
                path.display(),
                self.base.display(),
                self.most
            );
        }
        let content = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let executable = about.permissions().mode() & 0o111 != 0;
        self.found.push(SourceFile { name, content: content.into(), executable });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_packed_without_their_manifest_and_links_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("src/.git")).unwrap();
        for name in ["job.yaml", "a.cu", "src/job.yaml", "src/.git/x"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let packed = pack(dir.path(), 1 << 20).unwrap();
        let names: Vec<String> =
            archive::unpack(&packed, 1 << 20).unwrap().iter().map(|file| file.name.to_string()).collect();
        assert_eq!(names, ["a.cu", "src/job.yaml"]);
        let large = pack(dir.path(), 15).unwrap_err().to_string();
        assert!(large.contains("src/job.yaml") && large.contains("spec.limits.sourceBytes"), "{large}");
        assert!(pack(dir.path(), 16).is_ok());
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        assert!(pack(dir.path(), 1 << 20).is_err());
    }
}
