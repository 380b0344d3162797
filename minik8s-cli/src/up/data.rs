//! The data directory: which directories are ours, which may become ours, and what of them is ours to delete.

use anyhow::{Context, Result, bail};
use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// Marks a directory as ours.
const MARKER: &str = ".minik8s";
/// Everything that this program makes there. The marker goes last: what is half deleted is still known.
const OURS: [&str; 13] = [
    "instance.json",
    "instance.json.new",
    "admin.kubeconfig",
    "pki",
    "store",
    "node",
    "network",
    "runtime",
    "containerd",
    "registry",
    super::parts::REGISTRY_CERTS,
    "lock",
    MARKER,
];
/// What a person may have put there before the first start, and what a fresh file system holds.
const PREPARED: [&str; 3] = ["certs.d", "seccomp", "lost+found"];
const SHARED: u32 = 0o1000;

/// What a directory is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Marked, or filled before there were marks.
    Us,
    /// There is nothing in it that could be somebody else's.
    Nobody,
    Others,
}

/// Decides by the names in a directory.
fn owner(names: &[String]) -> Owner {
    let has = |name: &str| names.iter().any(|n| n == name);
    let known = |name: &String| OURS.contains(&&**name) || PREPARED.contains(&&**name);
    // Without a mark a name like "pki" alone says nothing: it may be another program's.
    let older = has("instance.json") || has("lock") && (has("pki") || has("store"));
    match names {
        _ if has(MARKER) || older => Owner::Us,
        _ if names.iter().all(|n| PREPARED.contains(&&**n)) => Owner::Nobody,
        _ if names.iter().all(known) => Owner::Us,
        _ => Owner::Others,
    }
}

fn names(path: &Path) -> Result<Vec<String>> {
    let hint = || format!("cannot look into {}; as root (`sudo minik8s …`), perhaps", path.display());
    let entries = fs::read_dir(path).and_then(|all| all.collect::<std::io::Result<Vec<_>>>()).with_context(hint)?;
    Ok(entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// What the directory is to us; an error where it holds things of others.
pub(super) fn check(path: &Path) -> Result<Owner> {
    let names = names(path)?;
    let owner = owner(&names);
    if owner == Owner::Others {
        let some: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
        bail!(
            "{0} is not a data directory of minik8s: it holds other things ({1}{2}). Choose a new or an empty directory \
             with --data-dir, such as {0}/minik8s; if it is one all the same, say so with `touch {0}/{MARKER}`",
            path.display(),
            some.join(", "),
            if names.len() > some.len() { ", …" } else { "" }
        );
    }
    Ok(owner)
}

/// Makes a directory that only its owner may look into: it will hold keys. One that holds other things is refused.
pub(super) fn private_directory(path: &Path) -> Result<()> {
    let existed = path.is_dir();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot make the data directory {}; choose another with --data-dir", path.display()))?;
    let mode = fs::metadata(path)?.permissions().mode();
    if existed && check(path)? == Owner::Nobody && mode & SHARED != 0 {
        bail!("{0} is for everybody; choose a directory below it, such as --data-dir {0}/minik8s", path.display());
    }
    if mode & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700))
            .with_context(|| format!("cannot close {} to others", path.display()))?;
    }
    let text = "A cluster of minik8s has its data here; `minik8s down --purge` deletes what it made.\n";
    fs::write(path.join(MARKER), text).with_context(|| format!("cannot write into {}", path.display()))
}

/// Deletes what this program made, and the directory where nothing else is in it. Returns what is left.
pub(super) fn purge(path: &Path) -> Result<Vec<String>> {
    let left: Vec<String> = names(path)?.into_iter().filter(|name| !OURS.contains(&&**name)).collect();
    // Where something stays, the mark stays too: the directory may be used again.
    for name in OURS.iter().filter(|name| left.is_empty() || **name != MARKER) {
        let child = path.join(name);
        let removed = match fs::symlink_metadata(&child) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&child),
            Ok(_) => fs::remove_file(&child),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot delete {}", child.display()));
            }
            _ => {}
        }
    }
    if left.is_empty() {
        fs::remove_dir(path).with_context(|| format!("cannot delete {}", path.display()))?;
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is(names: &[&str], expected: Owner) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        assert_eq!(owner(&names), expected, "{names:?}");
    }

    #[test]
    fn whose_a_directory_is() {
        is(&[], Owner::Nobody);
        is(&["certs.d", "lost+found"], Owner::Nobody);
        is(&[MARKER, "notes"], Owner::Us);
        // Of versions without marks.
        is(&["instance.json", "notes"], Owner::Us);
        is(&["lock", "pki", "notes"], Owner::Us);
        is(&["containerd"], Owner::Us);
        is(&["Documents", ".profile"], Owner::Others);
        is(&["pki", "manifests", "kubelet.conf"], Owner::Others);
    }

    #[test]
    fn a_directory_of_others_is_neither_used_nor_changed() {
        let dir = tempfile::tempdir().unwrap();
        let mode = || fs::metadata(dir.path()).unwrap().permissions().mode() & 0o7777;
        fs::write(dir.path().join("thesis.txt"), "x").unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let told = private_directory(dir.path()).unwrap_err().to_string();
        assert!(told.contains("thesis.txt") && told.contains("--data-dir") && told.contains("touch"), "{told}");
        fs::remove_file(dir.path().join("thesis.txt")).unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).unwrap();
        assert!(private_directory(dir.path()).unwrap_err().to_string().contains("for everybody"));
        assert_eq!((mode(), names(dir.path()).unwrap().len()), (0o1777, 0));
    }

    #[test]
    fn only_what_was_made_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        private_directory(&data).unwrap();
        fs::create_dir_all(data.join("store/segments")).unwrap();
        fs::create_dir(dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), data.join("node")).unwrap();
        fs::write(data.join("notes"), "x").unwrap();
        assert_eq!(purge(&data).unwrap(), ["notes"]);
        let mut left = names(&data).unwrap();
        left.sort();
        assert_eq!(left, [MARKER, "notes"]);
        fs::remove_file(data.join("notes")).unwrap();
        assert!(purge(&data).unwrap().is_empty() && !data.exists());
        assert!(dir.path().join("elsewhere").is_dir(), "a link is deleted, not what it leads to");
    }
}
