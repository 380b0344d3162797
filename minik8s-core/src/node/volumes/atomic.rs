//! Files that change all at once: they lie in a fresh directory, `..data` points to it, and what users see are links
//! through `..data`. A reader finds the old set or the new one, never a mixture.

use super::chown_group;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Content and permissions, by path below the volume's root.
pub(super) type Files = BTreeMap<String, (Vec<u8>, u32)>;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// Makes `root` show exactly `files`. Does nothing where it does already. Of two at once, each would remove what the other made.
pub(super) fn write(root: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    let old = fs::read_link(root.join(DATA)).ok();
    if let Some(old) = &old
        && same(&root.join(old), files)
    {
        return links(root, files);
    }
    let fresh = fresh_dir(root)?;
    fill(&root.join(&fresh), files, group)?;
    let next = root.join(NEXT);
    remove_file(&next)?;
    symlink(&fresh, &next)?;
    fs::rename(&next, root.join(DATA))?;
    links(root, files)?;
    tidy(root, &fresh)
}

/// A directory of a name not used before.
fn fresh_dir(root: &Path) -> io::Result<PathBuf> {
    for number in 0_u64.. {
        let name = PathBuf::from(format!("..v{number}"));
        match fs::create_dir(root.join(&name)) {
            Ok(()) => {
                fs::set_permissions(root.join(&name), fs::Permissions::from_mode(0o755))?;
                return Ok(name);
            }
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

fn fill(dir: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    for (path, (content, mode)) in files {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mode = if group.is_some() { mode | 0o440 } else { *mode };
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(content)?;
        if let Some(group) = group {
            chown_group(&path, group)?;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn same(dir: &Path, files: &Files) -> bool {
    let equal = |(path, (content, mode)): (&String, &(Vec<u8>, u32))| {
        let path = dir.join(path);
        let bits = fs::metadata(&path).map(|m| m.permissions().mode() & 0o777);
        // A group adds read permission; that is no change.
        bits.is_ok_and(|bits| bits == *mode || bits == mode | 0o440) && fs::read(&path).is_ok_and(|c| c == *content)
    };
    files.iter().all(equal) && count(dir).is_ok_and(|there| there == files.len())
}

fn count(dir: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(files)
}

/// One link per first part of a path; links to what is gone are removed.
fn links(root: &Path, files: &Files) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        match symlink(Path::new(DATA).join(name), root.join(name)) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
    }
    for entry in fs::read_dir(root)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(&*name) {
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes the sets nobody points to, also those of an agent that died while writing.
fn tidy(root: &Path, current: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)?.flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("..v") && name != current.as_os_str() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
