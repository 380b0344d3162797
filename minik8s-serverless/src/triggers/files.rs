//! Files that come, change and go, on the machine where the controllers run.

use super::cloud_event::event;
use super::objects::FileSource;
use super::sources::{Broken, Source};
use futures::StreamExt;
use inotify::{EventMask, Inotify, WatchMask};
use serde_json::json;
use std::path::{Path, PathBuf};

pub(super) async fn run(source: &Source, spec: &FileSource) -> Result<(), Broken> {
    let path = PathBuf::from(&spec.path);
    let allowed = source.config.files.clone();
    let found = tokio::task::spawn_blocking(move || place(&path, &allowed)).await;
    let ended = |_| Broken { reason: "CannotWatch", message: format!("{} cannot be looked at", spec.path) };
    let (directory, only) = found.map_err(ended)??;
    let broken = |e: std::io::Error| Broken { reason: "CannotWatch", message: format!("{}: {e}", directory.display()) };
    let inotify = Inotify::init().map_err(broken)?;
    let mask = WatchMask::CREATE
        | WatchMask::CLOSE_WRITE
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::DELETE
        | WatchMask::ONLYDIR
        | WatchMask::DELETE_SELF;
    inotify.watches().add(&directory, mask).map_err(broken)?;
    let mut events = inotify.into_event_stream([0_u8; 4096]).map_err(broken)?;
    source.say("True", "Watching", String::new()).await;
    while let Some(told) = events.next().await {
        let told = told.map_err(broken)?;
        if told.mask.intersects(EventMask::DELETE_SELF | EventMask::IGNORED) {
            return Err(Broken { reason: "Gone", message: format!("{} is gone", directory.display()) });
        }
        let Some(name) = told.name.filter(|name| only.as_ref().is_none_or(|only| only == name)) else { continue };
        let Some(kind) = kind(told.mask).filter(|kind| spec.events.is_empty() || spec.events.iter().any(|e| e == kind))
        else {
            continue;
        };
        let file = directory.join(&name);
        let now = source.ctx.clock.now();
        let size = tokio::fs::metadata(&file).await.map(|m| m.len()).ok();
        let data = json!({"event": kind, "path": file.to_string_lossy(), "name": name.to_string_lossy(), "size": size});
        // Two changes at one moment are one to whoever reads the file then.
        let id = format!("{kind}-{}", now.as_nanosecond());
        let kind = format!("io.minik8s.file.{}", kind.to_lowercase());
        source.emit(event(&kind, &format!("file://{}", file.to_string_lossy()), &id, &now.to_string(), data)).await;
    }
    Err(Broken { reason: "Gone", message: "the kernel tells no more".to_owned() })
}

fn kind(mask: EventMask) -> Option<&'static str> {
    if mask.contains(EventMask::ISDIR) {
        return None;
    }
    match mask {
        m if m.intersects(EventMask::CREATE | EventMask::MOVED_TO) => Some("Created"),
        m if m.contains(EventMask::CLOSE_WRITE) => Some("Modified"),
        m if m.intersects(EventMask::DELETE | EventMask::MOVED_FROM) => Some("Removed"),
        _ => None,
    }
}

/// The directory to watch, and the file in it that is meant, if it is one. What is meant must be allowed in its real place,
/// links followed.
fn place(path: &Path, allowed: &[PathBuf]) -> Result<(PathBuf, Option<std::ffi::OsString>), Broken> {
    let missing = |e: std::io::Error| Broken { reason: "CannotWatch", message: format!("{}: {e}", path.display()) };
    let (directory, only) = if path.is_dir() {
        (path, None)
    } else {
        (path.parent().unwrap_or(path), path.file_name().map(ToOwned::to_owned))
    };
    let directory = directory.canonicalize();
    let real = directory.as_ref().map(|d| only.as_ref().map_or_else(|| d.clone(), |name| d.join(name)));
    let fits = |real: &PathBuf| {
        allowed.iter().filter_map(|a| a.canonicalize().ok().or_else(|| Some(a.clone()))).any(|a| real.starts_with(a))
    };
    // Whether there is something where nobody may look is not told.
    if !real.as_ref().is_ok_and(fits) {
        let message =
            format!("{} may not be watched: it is not among the paths that the control plane allows", path.display());
        if real.is_err() && allowed.iter().any(|a| path.starts_with(a)) {
            return Err(directory.map_err(missing).err().unwrap_or(Broken { reason: "NotAllowed", message }));
        }
        return Err(Broken { reason: "NotAllowed", message });
    }
    Ok((directory.map_err(missing)?, only))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_allowed_in_its_real_place_is_watched() {
        let root = tempfile::tempdir().unwrap();
        let (inside, outside) = (root.path().join("in"), root.path().join("out"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        let allowed = [inside.clone()];
        let reason = |path: PathBuf| place(&path, &allowed).err().map(|b| b.reason);
        assert_eq!(reason(inside.clone()), None);
        assert_eq!(reason(inside.join("file.txt")), None);
        assert_eq!(reason(outside.clone()), Some("NotAllowed"));
        assert_eq!(reason(inside.join("link")), Some("NotAllowed"));
        assert_eq!(reason(inside.join("link/file")), Some("NotAllowed"));
        assert_eq!(reason("/etc/passwd".into()), Some("NotAllowed"));
        assert_eq!(reason(inside.join("none/file")), Some("CannotWatch"));
        assert_eq!(
            place(&inside, &[]).err().map(|b| b.reason),
            Some("NotAllowed"),
            "nothing is allowed unless somebody says so"
        );
    }
}
