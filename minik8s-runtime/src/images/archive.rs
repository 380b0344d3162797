//! Image archives on disk: OCI layouts and `docker save` files, plain or gzipped. Blocking code, run off the async
//! threads. Nothing is extracted: entries are read in place.

use super::content::digest;
use super::manifest::{Descriptor, Manifest, OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_MANIFEST};
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const MAX_JSON: u64 = 8 << 20;

/// An archive whose entries are known.
pub(super) struct Archive {
    path: PathBuf,
    /// True where `path` is a decompressed copy of ours.
    spooled: bool,
    entries: HashMap<String, Entry>,
}

#[derive(Clone)]
enum Entry {
    File { offset: u64, size: u64 },
    Link(String),
}

/// One image of an archive: a manifest and where its blobs lie.
pub(super) struct ArchivedImage {
    pub(super) names: Vec<String>,
    pub(super) target: Descriptor,
    /// Bytes of manifests, the target last; blobs that they name come from the archive.
    pub(super) manifests: Vec<(Descriptor, Vec<u8>)>,
    /// Entry of each blob.
    pub(super) blobs: Vec<(Descriptor, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

impl Archive {
    /// Opens an archive; a gzipped one is decompressed into `spool` first.
    pub(super) fn open(path: &Path, spool: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut magic = [0u8; 2];
        let gzipped = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
        file.rewind()?;
        let (path, spooled) = if gzipped { (decompress(file, spool)?, true) } else { (path.to_path_buf(), false) };
        let mut archive = Self { path, spooled, entries: HashMap::new() };
        archive.entries = archive.scan()?;
        Ok(archive)
    }

    fn scan(&self) -> io::Result<HashMap<String, Entry>> {
        let mut entries = HashMap::new();
        let mut tar = tar::Archive::new(File::open(&self.path)?);
        for entry in tar.entries_with_seek().map_err(|_| invalid("not a tar archive"))? {
            let entry = entry.map_err(|e| invalid(format!("not a readable tar archive: {e}")))?;
            let name = clean(&entry.path()?.to_string_lossy());
            let kind = entry.header().entry_type();
            if kind.is_file() {
                entries.insert(name, Entry::File { offset: entry.raw_file_position(), size: entry.size() });
            } else if let Some(target) = entry.link_name()?.filter(|_| kind.is_symlink() || kind.is_hard_link()) {
                let base =
                    if kind.is_symlink() { Path::new(&name).parent().unwrap_or(Path::new("")) } else { Path::new("") };
                entries.insert(name.clone(), Entry::Link(resolve(base, &target)));
            }
        }
        Ok(entries)
    }

    fn locate(&self, name: &str) -> io::Result<(u64, u64)> {
        let mut name = clean(name);
        for _ in 0..8 {
            match self.entries.get(&name) {
                Some(Entry::File { offset, size }) => return Ok((*offset, *size)),
                Some(Entry::Link(target)) => name.clone_from(target),
                None => break,
            }
        }
        Err(invalid(format!("the archive lacks {name}")))
    }

    /// Reads an entry from its start.
    pub(super) fn reader(&self, name: &str) -> io::Result<impl Read + use<>> {
        let (offset, size) = self.locate(name)?;
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file.take(size))
    }

    fn small(&self, name: &str) -> io::Result<Vec<u8>> {
        if self.locate(name)?.1 > MAX_JSON {
            return Err(invalid(format!("{name} is too large")));
        }
        let mut bytes = Vec::new();
        self.reader(name)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The images in it.
    pub(super) fn images(&self) -> io::Result<Vec<ArchivedImage>> {
        let images = if self.entries.contains_key("index.json") {
            self.oci_images()?
        } else if self.entries.contains_key("manifest.json") {
            self.docker_images()?
        } else {
            return Err(invalid("neither an OCI layout (index.json) nor a docker archive (manifest.json)"));
        };
        if images.is_empty() { Err(invalid("the archive holds no image for this machine")) } else { Ok(images) }
    }

    fn oci_images(&self) -> io::Result<Vec<ArchivedImage>> {
        let index: Manifest = parse(&self.small("index.json")?, "index.json")?;
        let mut images: Vec<ArchivedImage> = Vec::new();
        for target in index.manifests {
            let names = oci_name(&target).into_iter().collect::<Vec<_>>();
            if let Some(same) = images.iter_mut().find(|i| i.target.digest == target.digest) {
                same.names.extend(names);
                continue;
            }
            let mut image = ArchivedImage { names, target: target.clone(), manifests: Vec::new(), blobs: Vec::new() };
            if self.collect(&target, &mut image, 0)? {
                images.push(image);
            }
        }
        Ok(images)
    }

    /// Collects a manifest, or of an index the part for this machine. False where there is none.
    fn collect(&self, target: &Descriptor, image: &mut ArchivedImage, depth: u8) -> io::Result<bool> {
        let bytes = self.small(&blob_path(&target.digest)?)?;
        if digest(&bytes) != target.digest {
            return Err(invalid(format!("the manifest does not match its digest {}", target.digest)));
        }
        let manifest: Manifest = parse(&bytes, &target.digest)?;
        if let Some(config) = &manifest.config {
            for blob in manifest.layers.iter().chain([config]) {
                image.blobs.push((blob.clone(), blob_path(&blob.digest)?));
            }
        } else {
            let Some(entry) = manifest.for_this_machine().filter(|_| depth < 3) else { return Ok(false) };
            if !self.collect(entry, image, depth + 1)? {
                return Ok(false);
            }
        }
        image.manifests.push((Descriptor { size: bytes.len() as u64, ..target.clone() }, bytes));
        Ok(true)
    }

    fn docker_images(&self) -> io::Result<Vec<ArchivedImage>> {
        let images: Vec<DockerImage> = parse(&self.small("manifest.json")?, "manifest.json")?;
        images.into_iter().map(|i| self.docker_image(i)).collect()
    }

    /// Docker archives have no manifest of the kind registries use; this makes the one it would have.
    fn docker_image(&self, image: DockerImage) -> io::Result<ArchivedImage> {
        let config = self.small(&image.config)?;
        let mut blobs = Vec::new();
        for name in &image.layers {
            blobs.push((self.layer_descriptor(name)?, name.clone()));
        }
        let config = Descriptor {
            media_type: OCI_CONFIG.to_owned(),
            digest: digest(&config),
            size: config.len() as u64,
            ..Descriptor::default()
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.to_owned(),
            config: Some(config.clone()),
            layers: blobs.iter().map(|(d, _)| d.clone()).collect(),
            ..Manifest::default()
        };
        let bytes = serde_json::to_vec(&manifest)?;
        let target = Descriptor {
            media_type: OCI_MANIFEST.to_owned(),
            digest: digest(&bytes),
            size: bytes.len() as u64,
            ..Descriptor::default()
        };
        blobs.push((config, image.config));
        let names = image.repo_tags.unwrap_or_default();
        Ok(ArchivedImage { names, target: target.clone(), manifests: vec![(target, bytes)], blobs })
    }

    fn layer_descriptor(&self, name: &str) -> io::Result<Descriptor> {
        let (_, size) = self.locate(name)?;
        let mut reader = self.reader(name)?;
        let mut hash = Sha256::new();
        let mut chunk = vec![0u8; 1 << 16];
        let mut first = None;
        loop {
            let n = reader.read(&mut chunk)?;
            let part = chunk.get(..n).unwrap_or_default();
            first.get_or_insert_with(|| part.starts_with(&[0x1f, 0x8b]));
            if n == 0 {
                break;
            }
            hash.update(part);
        }
        let media_type = if first == Some(true) { OCI_LAYER_GZIP } else { OCI_LAYER };
        let digest = format!("sha256:{}", crate::config::hex(&hash.finalize()));
        Ok(Descriptor { media_type: media_type.to_owned(), digest, size, ..Descriptor::default() })
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        if self.spooled {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn decompress(file: File, spool: &Path) -> io::Result<PathBuf> {
    std::fs::create_dir_all(spool)?;
    let path = spool.join(format!("{}.tar", uuid::Uuid::new_v4().simple()));
    let copied = File::create(&path).and_then(|mut to| io::copy(&mut MultiGzDecoder::new(file), &mut to));
    match copied {
        Ok(_) => Ok(path),
        Err(e) => {
            let _ = std::fs::remove_file(&path);
            Err(e)
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], name: &str) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(|e| invalid(format!("{name}: {e}")))
}

fn blob_path(digest: &str) -> io::Result<String> {
    let hex = digest.strip_prefix("sha256:").filter(|_| super::reference::is_digest(digest));
    hex.map(|h| format!("blobs/sha256/{h}")).ok_or_else(|| invalid(format!("unusable digest {digest:?}")))
}

/// Some tools put the whole name into `ref.name`, others only the tag, which names nothing.
fn oci_name(target: &Descriptor) -> Option<String> {
    let whole = target.annotations.get("io.containerd.image.name");
    let reference = target.annotations.get("org.opencontainers.image.ref.name").filter(|n| n.contains(['/', ':']));
    whole.or(reference).cloned()
}

fn clean(name: &str) -> String {
    name.trim_start_matches("./").trim_start_matches('/').to_owned()
}

fn resolve(base: &Path, target: &Path) -> String {
    let mut parts: Vec<String> = base.iter().map(|p| p.to_string_lossy().into_owned()).collect();
    for part in target {
        match part.to_str() {
            Some("..") => drop(parts.pop()),
            Some("." | "/") => {}
            _ => parts.push(part.to_string_lossy().into_owned()),
        }
    }
    parts.join("/")
}
