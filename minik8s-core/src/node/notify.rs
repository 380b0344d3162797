//! The kernel's word that something in a directory changed.

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use tokio::io::unix::AsyncFd;

/// Watches the files of one directory.
pub(crate) struct Notify(AsyncFd<OwnedFd>);

impl Notify {
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let moved = WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM;
        let what = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::DELETE | moved;
        inotify::add_watch(&fd, dir, what)?;
        // Sound: the descriptor is owned here, and its number never changes.
        #[allow(deprecated, reason = "the replacement is unsafe, and an OwnedFd keeps its promise")]
        let fd = AsyncFd::new(fd)?;
        Ok(Self(fd))
    }

    /// Returns once something changed since the last call.
    pub(crate) async fn changed(&self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let mut guard = self.0.readable().await?;
            match guard.try_io(|fd| Ok(rustix::io::read(fd, &mut buffer)?)) {
                Ok(result) => return result.map(drop),
                // Another wake-up took it.
                Err(_) => continue,
            }
        }
    }
}
