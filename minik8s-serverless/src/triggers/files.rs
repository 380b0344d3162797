//! Files that come, change and go, on the machine where the controllers run.

use super::cloud_event::event;
use super::objects::FileSource;
use super::sources::{Broken, Source};
use futures::{FutureExt, StreamExt};
use inotify::{EventMask, Inotify, WatchMask};
use jiff::Timestamp;
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(super) async fn run(source: &Source, spec: &FileSource) -> Result<(), Broken> {
    let path = PathBuf::from(&spec.path);
    let allowed = source.config.files.clone();
    let found = tokio::task::spawn_blocking(move || place(&path, &allowed)).await;
    let ended = |_| Broken { reason: "CannotWatch", message: format!("{} cannot be looked at", spec.path) };
    let (directory, only) = found.map_err(ended)??;
    let broken = |e: std::io::Error| Broken { reason: "CannotWatch", message: format!("{}: {e}", directory.display()) };
    let inotify = Inotify::init().map_err(broken)?;
    inotify.watches().add(&directory, mask()).map_err(broken)?;
    let queue = inotify.as_fd().try_clone_to_owned().map_err(broken)?;
    let mut events = inotify.into_event_stream([0_u8; 4096]).map_err(broken)?;
    let since = source.status().await?.seen_at.and_then(|at| at.parse().ok());
    let mut watcher = Watcher { source, spec, directory: directory.clone(), only, since, is_behind: false };
    source.say("True", "Watching", String::new()).await;
    watcher.look().await;
    loop {
        let before = source.ctx.clock.now();
        let is_drained = rustix::io::ioctl_fionread(&queue).is_ok_and(|bytes| bytes == 0);
        let told = match events.next().now_or_never() {
            Some(told) => told,
            // Whatever happened before then has been told: neither the kernel nor the stream holds more of it.
            None => {
                if is_drained && watcher.is_behind {
                    watcher.checkpoint(before).await;
                }
                events.next().await
            }
        };
        let Some(told) = told else { break };
        let told = told.map_err(broken)?;
        if told.mask.intersects(EventMask::DELETE_SELF | EventMask::IGNORED) {
            return Err(Broken { reason: "Gone", message: format!("{} is gone", directory.display()) });
        }
        if told.mask.contains(EventMask::Q_OVERFLOW) {
            watcher.look().await;
        }
        if let (Some(name), Some(kind)) = (told.name, kind(told.mask)) {
            watcher.tell(kind, &name).await;
        }
    }
    Err(Broken { reason: "Gone", message: "the kernel tells no more".to_owned() })
}

fn mask() -> WatchMask {
    WatchMask::CREATE
        | WatchMask::CLOSE_WRITE
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::DELETE
        | WatchMask::ONLYDIR
        | WatchMask::DELETE_SELF
}

struct Watcher<'a> {
    source: &'a Source,
    spec: &'a FileSource,
    directory: PathBuf,
    only: Option<OsString>,
    /// When somebody looked last, if anybody ever did.
    since: Option<Timestamp>,
    /// Something was told after that.
    is_behind: bool,
}

impl Watcher<'_> {
    /// Tells what came or changed since somebody looked last. What went left no trace.
    async fn look(&mut self) {
        let began = self.source.ctx.clock.now();
        let Some(since) = self.since else { return self.checkpoint(began).await };
        let directory = self.directory.clone();
        let found = tokio::task::spawn_blocking(move || changed(&directory, since)).await;
        for (name, new) in found.unwrap_or_default() {
            if new {
                self.tell("Created", &name).await;
            }
            self.tell("Modified", &name).await;
        }
        // What came meanwhile may not be among them.
        self.checkpoint(began).await;
    }

    async fn tell(&mut self, kind: &str, name: &OsStr) {
        let wanted = self.spec.events.is_empty() || self.spec.events.iter().any(|e| e == kind);
        if !wanted || self.only.as_ref().is_some_and(|only| only != name) {
            return;
        }
        let file = self.directory.join(name);
        let now = self.source.ctx.clock.now();
        let about = tokio::fs::metadata(&file).await.ok();
        let size = about.as_ref().map(|about| about.len());
        let data = json!({"event": kind, "path": file.to_string_lossy(), "name": name.to_string_lossy(), "size": size});
        // One state of a file has one name, so that what a look finds again is told once.
        let state = match about {
            Some(about) if kind != "Removed" => {
                i128::from(about.ctime()) * 1_000_000_000 + i128::from(about.ctime_nsec())
            }
            _ => now.as_nanosecond(),
        };
        let (id, kind) = (format!("{kind}-{state}"), format!("io.minik8s.file.{}", kind.to_lowercase()));
        let told = event(&kind, &format!("file://{}", file.to_string_lossy()), &id, &now.to_string(), data);
        self.source.emit(told).await;
        self.is_behind = true;
    }

    /// Writes that everything until then has been told.
    async fn checkpoint(&mut self, then: Timestamp) {
        (self.since, self.is_behind) = (Some(then), false);
        if let Err(error) = self.source.patch(json!({"seenAt": then.to_string()})).await {
            tracing::debug!(%error, "how far a trigger is cannot be written");
        }
    }
}

/// The files that came or changed since then, and whether they are new.
fn changed(directory: &Path, since: Timestamp) -> Vec<(OsString, bool)> {
    // The kernel's time of a file is that of its last tick.
    let since = since.as_second() - 1;
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let about = entry.metadata().ok().filter(|about| about.is_file() && about.ctime() >= since)?;
            let made = about.created().ok().and_then(|made| Timestamp::try_from(made).ok());
            Some((
                (about.ctime(), about.ctime_nsec()),
                entry.file_name(),
                made.is_some_and(|made| made.as_second() >= since),
            ))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, name, new)| (name, new)).collect()
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
fn place(path: &Path, allowed: &[PathBuf]) -> Result<(PathBuf, Option<OsString>), Broken> {
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
    fn a_look_finds_what_changed_since_the_last_one() {
        let root = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        std::fs::write(root.path().join("a"), "1").unwrap();
        std::fs::create_dir(root.path().join("directory")).unwrap();
        let names = |found: Vec<(OsString, bool)>| found.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(changed(root.path(), now)), ["a"]);
        assert!(changed(root.path(), now + jiff::SignedDuration::from_hours(1)).is_empty());
        assert!(changed(&root.path().join("none"), now).is_empty());
    }

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
