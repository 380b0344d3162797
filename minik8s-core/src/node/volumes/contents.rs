//! What containers have written into a volume, for who asks through the API.

use super::Roots;
use crate::api::{ApiError, ApiResult};
use crate::beneath::{Beneath, digest};
use crate::node::access::{FilesWish, VolumeFile, VolumeRef};
use crate::node::config::NodeConfig;
use bytes::Bytes;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes of one answer, at most.
const PIECE: u64 = 4 << 20;

/// Bytes of which digests are made for one question: a file can be larger than any disk, and cost nobody anything.
const DIGESTED: u64 = 8 << 30;
/// Files of one answer, at most.
const MOST: usize = 4096;

/// Where a volume lies.
pub(crate) fn inside(config: &NodeConfig, at: &VolumeRef) -> ApiResult<PathBuf> {
    let (uid, volume) = (&at.pod.uid, &at.volume);
    if [uid, volume].into_iter().any(|name| name.is_empty() || name.starts_with('.') || name.contains('/')) {
        return Err(ApiError::bad_request(format!("{volume:?} of the pod {uid:?} is no volume")));
    }
    Ok(Roots { pod: config.pods_dir().join(uid) }.volumes().join(volume))
}

/// The volume, which is told apart from an empty one where it is not there.
fn open(root: &Path) -> io::Result<Beneath> {
    Beneath::open(root)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Plain files in it. Blocks. `NotFound` where there is no such volume.
pub(crate) fn files(root: &Path, wish: &FilesWish) -> io::Result<Vec<VolumeFile>> {
    let beneath = open(root)?;
    let mut room = if wish.digests { DIGESTED } else { 0 };
    beneath.visit(&wish.patterns, usize::try_from(wish.most).unwrap_or(MOST).min(MOST), |found| {
        let mut sha256 = String::new();
        if wish.digests && found.size <= room {
            room -= found.size;
            // What grows meanwhile is read as far as its size was told.
            sha256 = digest(found.file.take(found.size))?;
        }
        Ok(VolumeFile { path: found.path, size: found.size, sha256 })
    })
}

/// A piece of a file in it, empty where it has no such file. Blocks. `NotFound` where there is no such volume.
pub(crate) fn read(root: &Path, path: &str, from: u64, most: u64) -> io::Result<Bytes> {
    let Some(mut file) = open(root)?.file(path)? else { return Ok(Bytes::new()) };
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(most.min(PIECE)).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::access::PodRef;

    #[test]
    fn only_volumes_of_pods_are_looked_into() {
        let config = NodeConfig::new("n", "/data");
        let at = |uid: &str, volume: &str| {
            let pod = PodRef { namespace: "default".into(), pod: "p".into(), uid: uid.into() };
            inside(&config, &VolumeRef { pod, volume: volume.into() })
        };
        assert!(at("u-1", "work").unwrap().ends_with("u-1/volumes/work"));
        for (uid, volume) in [("", "work"), ("u", ""), ("..", "x"), ("u", ".."), ("u", "a/b"), ("u/../v", "x")] {
            assert!(at(uid, volume).is_err(), "{uid} {volume}");
        }
    }

    #[test]
    fn files_are_listed_with_digests_and_read_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("stdout"), "0123456789").unwrap();
        let wish = FilesWish { patterns: vec!["std*".into()], most: 5, digests: true };
        let listed = files(dir.path(), &wish).unwrap();
        assert_eq!((listed.len(), listed[0].size), (1, 10));
        assert_eq!(listed[0].sha256, crate::job::digest(b"0123456789"));
        assert_eq!(read(dir.path(), "stdout", 4, 3).unwrap(), "456");
        assert!(
            read(dir.path(), "stdout", 99, 3).unwrap().is_empty() && read(dir.path(), "no", 0, 3).unwrap().is_empty()
        );
        let none = dir.path().join("none");
        for kind in [files(&none, &wish).unwrap_err().kind(), read(&none, "stdout", 0, 3).unwrap_err().kind()] {
            assert_eq!(kind, io::ErrorKind::NotFound, "not empty");
        }
        let huge = std::fs::File::create(dir.path().join("std-huge")).unwrap();
        huge.set_len(DIGESTED * 100).unwrap();
        let listed = files(dir.path(), &wish).unwrap();
        let found = listed.iter().find(|file| file.path == "std-huge").unwrap();
        assert_eq!((found.size, found.sha256.as_str(), listed.len()), (DIGESTED * 100, "", 2));
    }
}
