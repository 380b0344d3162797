//! A function's files as one archive: the same files make the same bytes.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Most bytes of an archive.
const LARGEST: u64 = 256 << 20;
/// What is never part of a function.
const LEFT_OUT: [&str; 4] = [".git", "__pycache__", ".venv", ".DS_Store"];

/// An archive to upload, deleted with the value where it was made here.
pub(super) enum Archive {
    Given(PathBuf),
    Made(NamedTempFile),
}

impl Archive {
    pub(super) fn path(&self) -> &Path {
        match self {
            Archive::Given(path) => path,
            Archive::Made(file) => file.path(),
        }
    }
}

/// The archive of a directory, or the one that was given.
pub(super) fn of(files: &Path) -> Result<Archive> {
    let about = std::fs::metadata(files).with_context(|| format!("cannot read {}", files.display()))?;
    let archive = match about.is_dir() {
        true => Archive::Made(pack(files)?),
        false => Archive::Given(files.to_owned()),
    };
    let size = std::fs::metadata(archive.path())?.len();
    if size > LARGEST {
        bail!("the files of {} are {} MiB; a function may have {}", files.display(), size >> 20, LARGEST >> 20);
    }
    Ok(archive)
}

fn pack(directory: &Path) -> Result<NamedTempFile> {
    let file = NamedTempFile::new()?;
    let mut out = tar::Builder::new(file.as_file());
    out.mode(tar::HeaderMode::Deterministic);
    out.follow_symlinks(false);
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        let place = directory.join(&below);
        let entries = std::fs::read_dir(&place).with_context(|| format!("cannot read {}", place.display()))?;
        let mut names: Vec<_> = entries.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
        names.retain(|name| !LEFT_OUT.iter().any(|left| name == left));
        names.sort();
        for name in names {
            let (path, shown) = (place.join(&name), below.join(&name));
            let failed = || format!("cannot pack {}", path.display());
            let kind = std::fs::symlink_metadata(&path).with_context(failed)?.file_type();
            if kind.is_dir() {
                open.push(shown);
            } else if kind.is_symlink() {
                out.append_path_with_name(&path, &shown).with_context(failed)?;
            } else {
                out.append_file(&shown, &mut File::open(&path).with_context(failed)?).with_context(failed)?;
            }
        }
    }
    out.finish()?;
    drop(out);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_make_the_same_archive_without_what_is_no_part_of_them() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [("main.py", "x"), ("lib/a.py", "y"), (".git/HEAD", "z"), ("lib/__pycache__/a.pyc", "z")] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let bytes = || std::fs::read(of(dir.path()).unwrap().path()).unwrap();
        let first = bytes();
        File::open(dir.path().join("main.py")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(first, bytes());
        let mut archive = tar::Archive::new(&first[..]);
        let names: Vec<String> =
            archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, ["main.py", "lib/a.py"]);
    }
}
