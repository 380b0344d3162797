//! Messages about files in volumes of pods, to types and back.

use super::convert::need;
use super::v1;
use crate::api::{ApiError, ApiResult};
use crate::node::{FilesWish, VolumeFile, VolumeRef};

impl From<&VolumeRef> for v1::VolumeRef {
    fn from(at: &VolumeRef) -> Self {
        Self { pod: Some((&at.pod).into()), volume: at.volume.clone() }
    }
}

impl TryFrom<v1::VolumeRef> for VolumeRef {
    type Error = ApiError;

    fn try_from(at: v1::VolumeRef) -> ApiResult<Self> {
        Ok(Self { pod: need(at.pod, "pod")?.into(), volume: at.volume })
    }
}

impl From<&FilesWish> for v1::FilesWish {
    fn from(wish: &FilesWish) -> Self {
        let FilesWish { patterns, most, digests } = wish.clone();
        Self { patterns, most, digests }
    }
}

impl From<v1::FilesWish> for FilesWish {
    fn from(wish: v1::FilesWish) -> Self {
        let v1::FilesWish { patterns, most, digests } = wish;
        Self { patterns, most, digests }
    }
}

impl From<Vec<VolumeFile>> for v1::FilesReply {
    fn from(files: Vec<VolumeFile>) -> Self {
        let file = |VolumeFile { path, size, sha256 }| v1::VolumeFile { path, size, sha256 };
        Self { files: files.into_iter().map(file).collect() }
    }
}

impl From<v1::FilesReply> for Vec<VolumeFile> {
    fn from(reply: v1::FilesReply) -> Self {
        let file = |v1::VolumeFile { path, size, sha256 }| VolumeFile { path, size, sha256 };
        reply.files.into_iter().map(file).collect()
    }
}
