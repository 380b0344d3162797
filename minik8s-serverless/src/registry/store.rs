//! A registry's directory: blobs by digest, names that stand for manifests, and uploads under way. What has its final
//! name is whole and verified. Several processes may use one directory: their uploads have different names.
//!
//! What is said to be here is in this directory; [`find`](Registry::find) looks at other API servers, too.

use super::elsewhere::Around;
use super::error::RegistryError;
use super::invited::{INVITED, SENT};
use super::uploads::{Held, Uploads};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::fs::{self, File, OpenOptions};
use tokio::io::AsyncWriteExt;

/// Largest blob.
pub(crate) const LARGEST: u64 = 2 << 30;
/// Largest manifest.
pub(crate) const LARGEST_MANIFEST: usize = 4 << 20;
/// An upload that nobody has added to for so long was given up.
const GIVEN_UP: Duration = Duration::from_secs(3600);

/// A registry's directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    pub(super) root: Arc<PathBuf>,
    uploads: Uploads,
    pub(super) around: Around,
}

impl Registry {
    /// The registry in a directory, which is made where it is missing. Uploads that were given up are dropped.
    ///
    /// # Errors
    /// Where the directory cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, RegistryError> {
        let root = root.into();
        for place in ["uploads", "blobs/sha256", "names", INVITED, SENT] {
            let path = root.join(place);
            std::fs::create_dir_all(&path).map_err(|source| RegistryError::Io { operation: "make", path, source })?;
        }
        ["uploads", INVITED, SENT].iter().for_each(|place| drop_given_up(&root.join(place)));
        Ok(Self { root: Arc::new(root), uploads: Uploads::default(), around: Around::default() })
    }

    /// Where a blob is, or would be.
    ///
    /// # Errors
    /// For what is no digest.
    pub fn path(&self, digest: &str) -> Result<PathBuf, RegistryError> {
        let hex = digest.strip_prefix("sha256:").filter(|hex| is_hex(hex));
        let hex = hex.ok_or_else(|| RegistryError::Malformed(digest.to_owned(), "digest"))?;
        Ok(self.root.join("blobs/sha256").join(hex))
    }

    /// The size of a blob that is here.
    ///
    /// # Errors
    /// `Missing` where it is not here.
    pub async fn size(&self, digest: &str) -> Result<u64, RegistryError> {
        let found = fs::metadata(self.path(digest)?).await;
        found.map(|meta| meta.len()).map_err(|_| RegistryError::Missing(digest.to_owned()))
    }

    /// A small blob that is here, as a whole: manifests and configurations.
    ///
    /// # Errors
    /// `Missing` where it is not here.
    pub async fn read(&self, digest: &str) -> Result<Vec<u8>, RegistryError> {
        fs::read(self.path(digest)?).await.map_err(|_| RegistryError::Missing(digest.to_owned()))
    }

    /// A new upload, of the control plane's own.
    ///
    /// # Errors
    /// The disk's.
    pub async fn begin(&self) -> Result<String, RegistryError> {
        let id = self.uploads.begin();
        let path = self.upload(&id)?;
        if let Err(source) = File::create_new(&path).await {
            self.hold(&id)?.end();
            return Err(RegistryError::Io { operation: "make", path, source });
        }
        Ok(id)
    }

    /// A new upload of somebody else's.
    ///
    /// # Errors
    /// `Busy` where there are too many; the disk's.
    pub async fn admit(&self) -> Result<String, RegistryError> {
        for id in self.uploads.given_up(GIVEN_UP) {
            self.cancel(&id).await;
        }
        self.uploads.room()?;
        self.begin().await
    }

    /// Where an upload is, for who writes it without sending it.
    ///
    /// # Errors
    /// For what is no upload's id.
    pub fn upload_path(&self, id: &str) -> Result<PathBuf, RegistryError> {
        self.upload(id)
    }

    pub(super) fn upload(&self, id: &str) -> Result<PathBuf, RegistryError> {
        let fine = !id.is_empty() && id.len() < 32 && id.bytes().all(|b| b.is_ascii_alphanumeric());
        let path = fine.then(|| self.root.join("uploads").join(id));
        path.ok_or_else(|| RegistryError::Malformed(id.to_owned(), "upload"))
    }

    /// Adds to an upload; returns how much there is now.
    ///
    /// # Errors
    /// `Missing` for no upload; `TooLarge`; where the sender breaks off or the disk fails.
    pub async fn append<E: std::fmt::Display>(
        &self,
        id: &str,
        parts: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<u64, RegistryError> {
        self.add(id, &mut self.hold(id)?, parts).await
    }

    async fn add<E: std::fmt::Display>(
        &self,
        id: &str,
        held: &mut Held,
        mut parts: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<u64, RegistryError> {
        let path = self.upload(id)?;
        let failed = |source| RegistryError::Io { operation: "write to", path: path.clone(), source };
        let file = OpenOptions::new().append(true).open(&path).await;
        let mut file = file.map_err(|_| RegistryError::Missing(format!("upload {id}")))?;
        let mut length = file.metadata().await.map_err(failed)?.len();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| RegistryError::BrokenOff(error.to_string()))?;
            length += part.len() as u64;
            if length > LARGEST {
                return Err(RegistryError::TooLarge(LARGEST));
            }
            held.grow(part.len() as u64)?;
            file.write_all(&part).await.map_err(failed)?;
        }
        file.sync_all().await.map_err(failed)?;
        Ok(length)
    }

    /// Ends an upload: it becomes the blob it was announced as.
    ///
    /// # Errors
    /// `Digest` where it is another.
    pub async fn finish(&self, id: &str, digest: &str) -> Result<(), RegistryError> {
        self.end(id, self.hold(id)?, digest).await
    }

    /// Adds the rest to an upload and ends it, with nobody else's in between; where that fails, the upload is dropped.
    ///
    /// # Errors
    /// `Contended` where another request writes to it, which goes on; else as `append` and `finish`.
    pub async fn complete<E: std::fmt::Display>(
        &self,
        id: &str,
        parts: impl Stream<Item = Result<Bytes, E>> + Unpin,
        digest: &str,
    ) -> Result<(), RegistryError> {
        let mut held = self.hold(id)?;
        let added = match self.path(digest) {
            Ok(_) => self.add(id, &mut held, parts).await,
            Err(error) => Err(error),
        };
        if let Err(error) = added {
            self.drop_held(id, held).await;
            return Err(error);
        }
        self.end(id, held, digest).await
    }

    async fn end(&self, id: &str, held: Held, digest: &str) -> Result<(), RegistryError> {
        let (from, to) = (self.upload(id)?, self.path(digest)?);
        let read = from.clone();
        let actual = tokio::task::spawn_blocking(move || digest_of(&read)).await.map_err(io::Error::other).flatten();
        held.end();
        let actual = actual.map_err(|_| RegistryError::Missing(format!("upload {id}")))?;
        if actual != digest {
            let _ = fs::remove_file(&from).await;
            return Err(RegistryError::Digest { expected: digest.to_owned(), actual });
        }
        fs::rename(&from, &to).await.map_err(|source| RegistryError::Io { operation: "rename", path: from, source })
    }

    /// Takes an upload for one request; others are refused meanwhile.
    pub(super) fn hold(&self, id: &str) -> Result<Held, RegistryError> {
        self.uploads.hold(id)
    }

    /// Drops an upload, unless a request is writing to it.
    pub async fn cancel(&self, id: &str) {
        if let Ok(held) = self.hold(id) {
            self.drop_held(id, held).await;
        }
    }

    async fn drop_held(&self, id: &str, held: Held) {
        held.end();
        if let Ok(path) = self.upload(id) {
            let _ = fs::remove_file(path).await;
        }
    }

    /// Stores bytes; returns their digest.
    ///
    /// # Errors
    /// The disk's.
    pub async fn put(&self, bytes: Vec<u8>) -> Result<String, RegistryError> {
        let digest = digest(&bytes);
        let id = self.begin().await?;
        let whole = futures::stream::iter([Ok::<_, io::Error>(Bytes::from(bytes))]);
        self.complete(&id, whole, &digest).await?;
        Ok(digest)
    }
}

/// Drops what processes before this one have left; another may be writing beside this one.
fn drop_given_up(uploads: &Path) {
    for entry in std::fs::read_dir(uploads).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::now());
        if modified.elapsed().unwrap_or_default() >= GIVEN_UP {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

pub(super) async fn list(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    if let Ok(mut entries) = fs::read_dir(directory).await {
        while let Ok(Some(entry)) = entries.next_entry().await {
            found.extend(entry.file_name().into_string());
        }
    }
    found
}

fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// `sha256:…`
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// The digest of a file. Blocking.
pub(crate) fn digest_of(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut file = std::fs::File::open(path)?;
    let (mut sum, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(format!("sha256:{}", hex(&sum.finalize()))),
            n => sum.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn open() -> (tempfile::TempDir, Registry) {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path()).unwrap();
        (dir, registry)
    }

    #[tokio::test]
    async fn nothing_is_added_to_an_upload_that_is_being_ended_or_added_to() {
        let (_dir, registry) = open();
        let id = registry.admit().await.unwrap();
        let (sender, parts) = futures::channel::mpsc::unbounded::<Result<Bytes, io::Error>>();
        let first = tokio::spawn({
            let (registry, id) = (registry.clone(), id.clone());
            async move { registry.append(&id, parts).await }
        });
        while registry.hold(&id).is_ok() {
            tokio::task::yield_now().await;
        }
        let more = || stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"more"))]);
        assert!(matches!(registry.append(&id, more()).await, Err(RegistryError::Contended(_))));
        assert!(matches!(registry.finish(&id, &digest(b"all")).await, Err(RegistryError::Contended(_))));
        let whole = registry.complete(&id, more(), &digest(b"more")).await;
        assert!(matches!(whole, Err(RegistryError::Contended(_))), "and the other goes on: {whole:?}");
        sender.unbounded_send(Ok(Bytes::from_static(b"all"))).unwrap();
        drop(sender);
        assert_eq!(first.await.unwrap().unwrap(), 3);
        registry.finish(&id, &digest(b"all")).await.unwrap();
        assert!(matches!(registry.append(&id, more()).await, Err(RegistryError::Missing(_))));
        assert_eq!(registry.read(&digest(b"all")).await.unwrap(), b"all");
    }

    #[tokio::test]
    async fn the_rest_of_an_upload_and_its_end_are_one() {
        let (dir, registry) = open();
        for (announced, stays) in [(digest(b"all"), true), (digest(b"other"), false), ("nonsense".to_owned(), false)] {
            let id = registry.admit().await.unwrap();
            let (sender, parts) = futures::channel::mpsc::unbounded::<Result<Bytes, io::Error>>();
            let whole = registry.complete(&id, parts, &announced);
            let other = async {
                // It is held from the first part to the end.
                let refused = registry.append(&id, stream::iter([Ok::<_, io::Error>(Bytes::new())])).await;
                sender.unbounded_send(Ok(Bytes::from_static(b"all"))).ok();
                drop(sender);
                refused
            };
            let (whole, refused) = tokio::join!(whole, other);
            assert_eq!((whole.is_ok(), refused.is_err()), (stays, true), "{announced}");
            assert!(std::fs::read_dir(dir.path().join("uploads")).unwrap().next().is_none());
            assert!(matches!(registry.hold(&id), Err(RegistryError::Missing(_))));
        }
        assert_eq!(registry.read(&digest(b"all")).await.unwrap(), b"all");
    }

    #[tokio::test]
    async fn two_registries_in_one_directory_have_uploads_of_their_own() {
        let (dir, one) = open();
        let other = Registry::open(dir.path()).unwrap();
        assert_ne!(one.begin().await.unwrap(), other.begin().await.unwrap());
        assert_eq!(std::fs::read_dir(dir.path().join("uploads")).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn what_a_large_manifest_leads_to_is_kept() {
        let (_dir, registry) = open();
        let layer = registry.put(b"layer".to_vec()).await.unwrap();
        let more = serde_json::json!({"annotations": {"x": "y".repeat(2 << 20)}}).as_object().unwrap().clone();
        let layers = vec![super::super::image::Descriptor { digest: layer.clone(), more, ..Default::default() }];
        let manifest = super::super::image::Manifest { schema_version: 2, layers, ..Default::default() };
        let manifest = registry.put(serde_json::to_vec(&manifest).unwrap()).await.unwrap();
        assert!(registry.size(&manifest).await.unwrap() > 1 << 20);
        registry.put(b"nobody's".to_vec()).await.unwrap();
        assert_eq!(registry.collect([manifest], Duration::ZERO).await, 1);
        assert_eq!(registry.read(&layer).await.unwrap(), b"layer");
    }

    /// A mebibyte of zeros that is counted while it is in memory.
    struct Counted(Arc<AtomicUsize>);

    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
            &ZEROS
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn what_is_large_passes_through_and_never_stands_in_memory() {
        let (_dir, registry) = open();
        let (alive, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let pieces = stream::iter(0..256).map(|_| {
            most.fetch_max(alive.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            Ok::<_, io::Error>(Bytes::from_owner(Counted(alive.clone())))
        });
        // `head -c 268435456 /dev/zero | sha256sum`
        let digest = "sha256:a6d72ac7690f53be6ae46ba88506bd97302a093f7108472bd9efc3cefda06484";
        let id = registry.begin().await.unwrap();
        registry.complete(&id, pieces, digest).await.unwrap();
        assert_eq!(registry.size(digest).await.unwrap(), 256 << 20);
        let most = most.load(Ordering::Relaxed);
        assert!(most <= 4, "{most} of 256 pieces were in memory at once");
    }

    #[test]
    fn a_registry_leaves_the_uploads_of_another_process_alone() {
        let (dir, _registry) = open();
        let other = dir.path().join("uploads/77");
        std::fs::write(&other, "under way").unwrap();
        Registry::open(dir.path()).unwrap();
        assert!(other.exists());
        let long_ago = SystemTime::now() - 2 * GIVEN_UP;
        std::fs::File::options().write(true).open(&other).unwrap().set_modified(long_ago).unwrap();
        Registry::open(dir.path()).unwrap();
        assert!(!other.exists());
    }
}
