//! Work inside of a network namespace, from a process that is in another one.

#![allow(clippy::expect_used, reason = "a test that cannot go on must say so")]

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::future::Future;
use std::os::fd::AsFd;
use std::path::Path;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A network namespace; it lives at least as long as this.
#[derive(Debug)]
pub struct NetNamespace(File);

impl From<File> for NetNamespace {
    fn from(file: File) -> Self {
        Self(file)
    }
}

impl NetNamespace {
    /// That of the calling thread.
    ///
    /// # Panics
    /// Where `/proc` is not there.
    pub fn current() -> Self {
        Self::open("/proc/thread-self/ns/net")
    }

    /// The one that a file of `/proc` or a bind mount stands for.
    ///
    /// # Panics
    /// Where it does not.
    pub fn open(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        Self(File::open(path).unwrap_or_else(|error| panic!("namespace {}: {error}", path.display())))
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.0
    }

    /// Another handle.
    ///
    /// # Panics
    /// Where no file can be opened any more.
    pub fn again(&self) -> Self {
        Self(self.0.try_clone().expect("an open file more"))
    }

    /// Moves the calling thread, which should end soon or be made for this.
    ///
    /// # Panics
    /// Without the right to.
    pub fn enter(&self) {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("root may change namespaces");
    }

    /// Runs something on a thread inside; sockets made there belong to the namespace.
    ///
    /// # Panics
    /// Where the work does.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = self.again();
        on_thread(move || {
            namespace.enter();
            work()
        })
        .await
    }

    /// A runtime whose only thread lives inside: everything spawned on it, and every thread that this starts, does too.
    ///
    /// # Panics
    /// Where no thread can be started.
    pub fn runtime(&self) -> Inside {
        let namespace = self.again();
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            namespace.enter();
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            let _ = tell.send(runtime.handle().clone());
            let _ = runtime.block_on(stopped);
        });
        Inside { handle: told.recv().expect("the thread runs"), stop: Some(stop), thread: Some(thread) }
    }
}

/// Runs something on a thread of its own, within the calling runtime.
///
/// # Panics
/// Where the work does.
pub async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let runtime = Handle::current();
    let (done, result) = oneshot::channel();
    std::thread::spawn(move || {
        let _entered = runtime.enter();
        let _ = done.send(work());
    });
    result.await.expect("the work must not panic")
}

/// A runtime inside of a namespace. What still runs there is dropped with it.
#[derive(Debug)]
pub struct Inside {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Inside {
    /// Runs a future inside and waits for it.
    ///
    /// # Panics
    /// Where it does.
    pub async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        match self.handle.spawn(work).await {
            Ok(value) => value,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// To spawn on.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
