//! Building an image from files: one layer, one configuration, as an OCI layout archive. The same input gives the same
//! bytes, so the same image.

use super::content::digest;
use super::manifest::{Descriptor, Manifest, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, machine_architecture};
use minik8s_core::digest::Digesting;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why an image could not be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// A file could not be read or written.
    #[error("{operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Something that images cannot hold.
    #[error("{0} is neither a file, a directory nor a symbolic link")]
    Special(PathBuf),
    /// The image's name cannot be read.
    #[error(transparent)]
    Name(#[from] minik8s_core::runtime::RuntimeError),
}

enum Node {
    Directory { mode: u32 },
    Bytes { bytes: Vec<u8>, mode: u32 },
    Copy { source: PathBuf, mode: u32 },
    Symlink(PathBuf),
}

/// Collects files and settings, then writes the archive.
pub struct ImageBuilder {
    name: String,
    nodes: BTreeMap<PathBuf, Node>,
    env: Vec<String>,
    config: BTreeMap<&'static str, serde_json::Value>,
}

impl ImageBuilder {
    /// An empty image of that name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), nodes: BTreeMap::new(), env: Vec::new(), config: BTreeMap::new() }
    }

    /// Adds what lies below `source` at `target`; owners become root, times are dropped.
    ///
    /// # Errors
    /// Where something cannot be read, or is a device, socket or FIFO.
    pub fn tree(mut self, source: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<Self, BuildError> {
        self.walk(source.as_ref(), target.as_ref())?;
        Ok(self)
    }

    /// Adds a file of the host with its mode.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn copy(self, source: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<Self, BuildError> {
        self.tree(source, target)
    }

    /// Adds a file.
    #[must_use]
    pub fn file(mut self, target: impl AsRef<Path>, bytes: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.nodes.insert(relative(target.as_ref()), Node::Bytes { bytes: bytes.into(), mode });
        self
    }

    /// Adds an empty directory.
    #[must_use]
    pub fn directory(mut self, target: impl AsRef<Path>, mode: u32) -> Self {
        self.nodes.insert(relative(target.as_ref()), Node::Directory { mode });
        self
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(mut self, target: impl AsRef<Path>, to: impl Into<PathBuf>) -> Self {
        self.nodes.insert(relative(target.as_ref()), Node::Symlink(to.into()));
        self
    }

    /// Adds to the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push(format!("{name}={value}"));
        self
    }

    /// Sets the entry point.
    #[must_use]
    pub fn entrypoint<S: AsRef<str>>(self, words: impl IntoIterator<Item = S>) -> Self {
        self.set("Entrypoint", words.into_iter().map(|w| w.as_ref().to_owned()).collect::<Vec<_>>())
    }

    /// Sets the default command or arguments.
    #[must_use]
    pub fn cmd<S: AsRef<str>>(self, words: impl IntoIterator<Item = S>) -> Self {
        self.set("Cmd", words.into_iter().map(|w| w.as_ref().to_owned()).collect::<Vec<_>>())
    }

    /// Sets the user: a name or number, optionally with `:group`.
    #[must_use]
    pub fn user(self, user: &str) -> Self {
        self.set("User", user)
    }

    /// Sets the working directory.
    #[must_use]
    pub fn working_dir(self, dir: &str) -> Self {
        self.set("WorkingDir", dir)
    }

    /// Sets the signal that asks it to stop.
    #[must_use]
    pub fn stop_signal(self, signal: &str) -> Self {
        self.set("StopSignal", signal)
    }

    fn set(mut self, key: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.config.insert(key, value.into());
        self
    }

    fn walk(&mut self, source: &Path, target: &Path) -> Result<(), BuildError> {
        let failed = |e| failed("reading", source)(e);
        let meta = fs::symlink_metadata(source).map_err(failed)?;
        let mode = meta.permissions().mode() & 0o7777;
        let kind = meta.file_type();
        let node = if kind.is_symlink() {
            Node::Symlink(fs::read_link(source).map_err(failed)?)
        } else if kind.is_file() {
            Node::Copy { source: source.to_path_buf(), mode }
        } else if kind.is_dir() {
            for entry in fs::read_dir(source).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                self.walk(&entry.path(), &target.join(entry.file_name()))?;
            }
            Node::Directory { mode }
        } else {
            return Err(BuildError::Special(source.to_path_buf()));
        };
        let target = relative(target);
        if !target.as_os_str().is_empty() {
            self.nodes.insert(target, node);
        }
        Ok(())
    }

    /// Writes the image as an OCI archive.
    ///
    /// # Errors
    /// Where the name is unusable, or a file cannot be read or written.
    pub fn write(&self, archive: impl AsRef<Path>) -> Result<(), BuildError> {
        let archive = archive.as_ref();
        let name = super::normalize(&self.name)?.to_string();
        let layer_path = archive.with_extension("layer.tmp");
        let written =
            self.write_layer(&layer_path).and_then(|layer| self.write_archive(archive, &name, &layer_path, &layer));
        let _ = fs::remove_file(&layer_path);
        written
    }

    fn write_layer(&self, path: &Path) -> Result<Descriptor, BuildError> {
        let file = File::create(path).map_err(failed("creating", path))?;
        let mut tar = tar::Builder::new(Digesting::new(BufWriter::new(file)));
        for (target, node) in self.with_parents() {
            append(&mut tar, &target, node)?;
        }
        let (_, digest, size) = tar.into_inner().and_then(Digesting::finish).map_err(failed("writing", path))?;
        Ok(Descriptor { media_type: OCI_LAYER.to_owned(), digest, size, ..Descriptor::default() })
    }

    /// Every node with the directories above it that nobody added.
    fn with_parents(&self) -> BTreeMap<PathBuf, &Node> {
        const PARENT: &Node = &Node::Directory { mode: 0o755 };
        let mut all: BTreeMap<PathBuf, &Node> = BTreeMap::new();
        for (target, node) in &self.nodes {
            for above in target.ancestors().skip(1).filter(|a| !a.as_os_str().is_empty()) {
                all.entry(above.to_path_buf()).or_insert(PARENT);
            }
            all.insert(target.clone(), node);
        }
        all
    }

    fn write_archive(&self, path: &Path, name: &str, layer_path: &Path, layer: &Descriptor) -> Result<(), BuildError> {
        let blob = |media_type: &str, bytes: &[u8]| Descriptor {
            media_type: media_type.to_owned(),
            digest: digest(bytes),
            size: bytes.len() as u64,
            ..Descriptor::default()
        };
        let config = self.config_bytes(&layer.digest);
        let manifest = Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.to_owned(),
            config: Some(blob(OCI_CONFIG, &config)),
            layers: vec![layer.clone()],
            ..Manifest::default()
        };
        let manifest_bytes = serde_json::to_vec(&manifest).map_err(|e| failed("encoding", path)(e.into()))?;
        let mut target = blob(OCI_MANIFEST, &manifest_bytes);
        target.annotations.insert("io.containerd.image.name".to_owned(), name.to_owned());
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [target]}).to_string();
        let layout = r#"{"imageLayoutVersion":"1.0.0"}"#;

        let wrong = |e| failed("writing", path)(e);
        let mut tar = tar::Builder::new(BufWriter::new(File::create(path).map_err(wrong)?));
        let mut layer_file = File::open(layer_path).map_err(wrong)?;
        layer_file.rewind().map_err(wrong)?;
        put(&mut tar, "oci-layout", layout.len() as u64, layout.as_bytes()).map_err(wrong)?;
        put(&mut tar, "index.json", index.len() as u64, index.as_bytes()).map_err(wrong)?;
        for bytes in [&config, &manifest_bytes] {
            put(&mut tar, &entry_name(&digest(bytes)), bytes.len() as u64, bytes.as_slice()).map_err(wrong)?;
        }
        put(&mut tar, &entry_name(&layer.digest), layer.size, &mut layer_file).map_err(wrong)?;
        tar.into_inner().and_then(|mut file| file.flush()).map_err(wrong)
    }

    fn config_bytes(&self, diff_id: &str) -> Vec<u8> {
        let mut config = json!(self.config);
        if !self.env.is_empty() {
            config["Env"] = json!(self.env);
        }
        json!({
            "architecture": machine_architecture(),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "minik8s image build"}],
        })
        .to_string()
        .into_bytes()
    }
}

fn entry_name(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn relative(path: &Path) -> PathBuf {
    path.components().filter(|c| matches!(c, std::path::Component::Normal(_))).collect()
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn put(tar: &mut tar::Builder<impl Write>, name: &str, size: u64, bytes: impl Read) -> io::Result<()> {
    tar.append_data(&mut header(tar::EntryType::Regular, 0o644, size), name, bytes)
}

fn append(tar: &mut tar::Builder<impl Write>, target: &Path, node: &Node) -> Result<(), BuildError> {
    let wrong = |e| failed("adding", target)(e);
    match node {
        Node::Directory { mode } => {
            let name = target.join("");
            tar.append_data(&mut header(tar::EntryType::Directory, *mode, 0), name, io::empty()).map_err(wrong)
        }
        Node::Symlink(to) => tar.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), target, to).map_err(wrong),
        Node::Bytes { bytes, mode } => {
            let mut header = header(tar::EntryType::Regular, *mode, bytes.len() as u64);
            tar.append_data(&mut header, target, bytes.as_slice()).map_err(wrong)
        }
        Node::Copy { source, mode } => {
            let file = File::open(source).map_err(failed("reading", source))?;
            let size = file.metadata().map_err(failed("reading", source))?.len();
            // A file that changes meanwhile must not break the archive's framing.
            let exact = file.take(size).chain(io::empty());
            tar.append_data(&mut header(tar::EntryType::Regular, *mode, size), target, exact).map_err(wrong)
        }
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BuildError + use<> {
    let path = path.to_path_buf();
    move |source| BuildError::Io { operation, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::archive::Archive;

    #[test]
    fn the_same_files_give_the_same_archive_and_archives_read_back() {
        let dir = tempfile::tempdir().expect("dir");
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("etc")).expect("mkdir");
        fs::write(tree.join("etc/motd"), "hello").expect("write");
        std::os::unix::fs::symlink("motd", tree.join("etc/link")).expect("link");
        let build = |name: &str| {
            let path = dir.path().join(name);
            let builder = ImageBuilder::new("app").tree(&tree, "/").expect("tree").cmd(["/x"]).env("A", "b");
            builder.file("/opt/deep/x", "x", 0o755).write(&path).expect("build");
            path
        };
        let (one, two) = (build("one.tar"), build("two.tar"));
        assert_eq!(fs::read(&one).expect("one"), fs::read(&two).expect("two"));
        let images = Archive::open(&one, dir.path()).and_then(|a| a.images()).expect("archive");
        assert_eq!(images[0].names, ["docker.io/library/app:latest"]);
        assert_eq!(images[0].blobs.len(), 2);
    }

    #[test]
    fn special_files_are_refused() {
        let error = ImageBuilder::new("app").copy("/dev/null", "/null").err().expect("refused");
        assert!(error.to_string().contains("/dev/null"));
    }
}
