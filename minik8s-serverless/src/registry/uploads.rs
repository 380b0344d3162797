//! Uploads under way: who writes to which, how many there are, and how much is in them.

use super::error::RegistryError;
use minik8s_core::random;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// At most so many at once.
const MOST: usize = 64;
/// At most so much in all of them.
const ROOM: u64 = 8 << 30;

/// All uploads of one process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Uploads(Arc<Mutex<All>>);

#[derive(Debug, Default)]
struct All {
    uploads: HashMap<String, Upload>,
    next: u64,
}

#[derive(Debug)]
struct Upload {
    held: bool,
    length: u64,
    touched: Instant,
}

/// An upload that one request has for itself. Dropping it lets the next one.
#[derive(Debug)]
pub(super) struct Held {
    all: Uploads,
    id: String,
}

impl Uploads {
    /// The name of a new one, which no other process has, also not in another container over the same directory.
    pub(super) fn begin(&self) -> String {
        let mut all = self.0.lock();
        all.next += 1;
        let id = format!("{:08x}{}", all.next, random::word(16));
        all.uploads.insert(id.clone(), Upload { held: false, length: 0, touched: Instant::now() });
        id
    }

    /// Whether there may be one more.
    pub(super) fn room(&self) -> Result<(), RegistryError> {
        let count = self.0.lock().uploads.len();
        if count < MOST { Ok(()) } else { Err(RegistryError::Busy(format!("{count} uploads are under way"))) }
    }

    /// Those that nobody has added to for so long.
    pub(super) fn given_up(&self, after: Duration) -> Vec<String> {
        let all = self.0.lock();
        let old = all.uploads.iter().filter(|(_, upload)| !upload.held && upload.touched.elapsed() >= after);
        old.map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn hold(&self, id: &str) -> Result<Held, RegistryError> {
        let mut all = self.0.lock();
        let upload = all.uploads.get_mut(id).ok_or_else(|| RegistryError::Missing(format!("upload {id}")))?;
        if std::mem::replace(&mut upload.held, true) {
            return Err(RegistryError::Contended(id.to_owned()));
        }
        Ok(Held { all: self.clone(), id: id.to_owned() })
    }
}

impl Held {
    /// More comes: is there room?
    pub(super) fn grow(&mut self, by: u64) -> Result<(), RegistryError> {
        let mut all = self.all.0.lock();
        let total: u64 = all.uploads.values().map(|upload| upload.length).sum();
        if total + by > ROOM {
            return Err(RegistryError::Busy(format!("uploads under way hold {total} bytes")));
        }
        if let Some(upload) = all.uploads.get_mut(&self.id) {
            upload.length += by;
        }
        Ok(())
    }

    /// There is no such upload any more.
    pub(super) fn end(self) {
        self.all.0.lock().uploads.remove(&self.id);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(upload) = self.all.0.lock().uploads.get_mut(&self.id) {
            (upload.held, upload.touched) = (false, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn uploads_are_few_have_bounds_and_one_writer_each() {
        let uploads = Uploads::default();
        let first = uploads.begin();
        let mut held = uploads.hold(&first).unwrap();
        assert!(matches!(uploads.hold(&first), Err(RegistryError::Contended(_))));
        held.grow(ROOM).unwrap();
        assert!(matches!(held.grow(1), Err(RegistryError::Busy(_))));
        drop(held);
        for _ in 1..MOST {
            uploads.room().unwrap();
            uploads.begin();
        }
        assert!(matches!(uploads.room(), Err(RegistryError::Busy(_))));
        tokio::time::advance(Duration::from_secs(10)).await;
        uploads.hold(&first).unwrap().end();
        uploads.room().unwrap();
        assert!(matches!(uploads.hold(&first), Err(RegistryError::Missing(_))));
        assert_eq!(uploads.given_up(Duration::from_secs(10)).len(), MOST - 1);
    }
}
