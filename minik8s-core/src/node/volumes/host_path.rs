//! `hostPath`: a path of the machine, checked against the type the volume claims.

use super::{VolumeError, VolumeResult};
use k8s_openapi::api::core::v1::HostPathVolumeSource;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

pub(super) fn ensure(volume: &str, source: &HostPathVolumeSource) -> VolumeResult<()> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let make = |operation, result: std::io::Result<()>| {
        result.map_err(|source| VolumeError::Io { volume: volume.to_owned(), operation, path: path.into(), source })
    };
    match kind {
        "DirectoryOrCreate" if !path.exists() => {
            make("make", fs::create_dir_all(path))?;
            make("make", fs::set_permissions(path, fs::Permissions::from_mode(0o755)))?;
        }
        "FileOrCreate" if !path.exists() => {
            make("make", fs::OpenOptions::new().create(true).append(true).open(path).map(drop))?;
            make("make", fs::set_permissions(path, fs::Permissions::from_mode(0o644)))?;
        }
        _ => {}
    }
    let is = fs::metadata(path).map(|meta| meta.file_type());
    let fits = |test: fn(&fs::FileType) -> bool| is.as_ref().is_ok_and(test);
    let (good, wanted) = match kind {
        // Unchecked, but what does not exist cannot be mounted: it is made, as runtimes do.
        "" => {
            if is.is_err() {
                make("make", fs::create_dir_all(path))?;
            }
            return Ok(());
        }
        "Directory" | "DirectoryOrCreate" => (fits(fs::FileType::is_dir), "a directory"),
        "File" | "FileOrCreate" => (fits(fs::FileType::is_file), "a file"),
        "Socket" => (fits(FileTypeExt::is_socket), "a socket"),
        "CharDevice" => (fits(FileTypeExt::is_char_device), "a character device"),
        "BlockDevice" => (fits(FileTypeExt::is_block_device), "a block device"),
        _ => (false, "of a known hostPath type"),
    };
    if good {
        Ok(())
    } else {
        Err(VolumeError::HostPath { volume: volume.to_owned(), path: source.path.clone(), wanted })
    }
}
