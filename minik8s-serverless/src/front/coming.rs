//! Calls that are being taken: nobody else knows of them yet, and there may be room for few.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// What was written down is shown to those who watch by then, unless it is gone again.
const SHOWN: Duration = Duration::from_secs(5);

/// Ids by function, and since when they are written down.
#[derive(Default)]
pub(super) struct Coming(Mutex<HashMap<String, HashMap<String, Option<Instant>>>>);

/// One of them. Dropped, it is none any more, unless it was taken.
pub(super) struct Taking<'a> {
    all: &'a Coming,
    key: &'a str,
    id: &'a str,
}

impl Coming {
    /// Begins with one more, where `fits` agrees to how many there are that were not yet `shown`.
    pub(super) fn begin<'a, E>(
        &'a self,
        key: &'a str,
        id: &'a str,
        shown: impl Fn(&str) -> bool,
        fits: impl FnOnce(usize) -> Result<(), E>,
    ) -> Result<Taking<'a>, E> {
        let mut all = self.0.lock();
        let here = all.entry(key.to_owned()).or_default();
        here.retain(|id, written| written.is_none_or(|at| at.elapsed() < SHOWN && !shown(id)));
        let fits = fits(here.len());
        if fits.is_ok() {
            here.insert(id.to_owned(), None);
        } else if here.is_empty() {
            all.remove(key);
        }
        fits.map(|()| Taking { all: self, key, id })
    }
}

impl Taking<'_> {
    /// It is written down: it counts until it is shown.
    pub(super) fn taken(self) {
        if let Some(written) = self.all.0.lock().get_mut(self.key).and_then(|here| here.get_mut(self.id)) {
            *written = Some(Instant::now());
        }
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        let Some(here) = all.get_mut(self.key) else { return };
        if here.get(self.id).is_some_and(Option::is_none) {
            here.remove(self.id);
        }
        // Those that were written down go when somebody comes next, or with the last that comes to nothing.
        here.retain(|_, written| written.is_none_or(|at| at.elapsed() < SHOWN));
        if here.is_empty() {
            all.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_counts_until_it_is_shown_or_comes_to_nothing() {
        let coming = Coming::default();
        let begin = |id: &'static str, shown: bool, most: usize| {
            coming.begin("f", id, move |_| shown, |here| if here < most { Ok(()) } else { Err(here) })
        };
        let first = begin("a", false, 1).unwrap_or_else(|_| panic!("there is room"));
        assert_eq!(begin("b", false, 1).err(), Some(1), "it is being taken");
        drop(first);
        begin("b", false, 1).unwrap_or_else(|_| panic!("the first came to nothing")).taken();
        assert_eq!(begin("c", false, 1).err(), Some(1), "it is written, and shown to nobody");
        begin("c", true, 1).unwrap_or_else(|_| panic!("it is shown, and counted by who sees it")).taken();
        tokio::time::advance(SHOWN).await;
        drop(begin("d", false, 1).unwrap_or_else(|_| panic!("it was gone before anybody saw it")));
        assert!(coming.0.lock().is_empty());
    }
}
