//! Images of functions are on every node before anybody calls there: fetched and unpacked while nobody waits for it. They
//! are taken off it when nobody names them any more. Which images those are stands in the routes, which nodes read anyway.

use super::objects::{IMAGES, KEPT_IMAGES, images_of};
use super::unneeded::{Next, Unneeded};
use async_trait::async_trait;
use minik8s_core::api::PathRoute;
use minik8s_core::client::{Backoff, Informer};
use minik8s_core::node::{Companion, CompanionContext};
use minik8s_core::random;
use minik8s_core::runtime::{RuntimeResult, SharedRuntime};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// After an image that could not be fetched.
const RETRY: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(600));
/// Images that nobody names stay for so long: a function may be made anew.
const GRACE: Duration = Duration::from_secs(60);

/// Has the images of functions on its node: fetches them before anybody calls, and takes those off it that were built of
/// files of functions and that no function may go back to.
pub struct Unpacker {
    runtime: SharedRuntime,
    grace: Duration,
}

impl Unpacker {
    /// Has them in this runtime.
    pub fn new(runtime: SharedRuntime) -> Self {
        Self { runtime, grace: GRACE }
    }

    /// Takes images off the node when nobody has named them for so long; a minute unless said.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    async fn fetch(&self, image: &str) -> RuntimeResult<()> {
        match self.runtime.image(image).await? {
            Some(_) => Ok(()),
            None => self.runtime.pull(image, None, None).await.map(drop),
        }
    }

    /// The names of images that are here.
    async fn here(&self) -> RuntimeResult<Vec<String>> {
        let all = self.runtime.images().await?;
        Ok(all.into_iter().flat_map(|image| image.names.into_iter().chain(image.repo_digests)).collect())
    }

    /// Sees to what nobody names. Answers when there is more to do, at once where something was done.
    async fn clear(
        &self,
        ctx: &CompanionContext,
        unneeded: &mut Unneeded,
        named: &BTreeSet<String>,
    ) -> Option<Instant> {
        match unneeded.next(named, Instant::now()) {
            Next::Wait(until) => return Some(until),
            Next::Look => {
                let here = self.here().await;
                let here = here.inspect_err(|error| tracing::info!(%error, "cannot tell what images are here")).ok();
                unneeded.look(here, Instant::now());
            }
            Next::Take(image) => {
                let gone = ctx.images.discard(&image).await.unwrap_or_else(|error| {
                    tracing::info!(image, %error, "an image that no function needs cannot be taken away");
                    false
                });
                if gone {
                    tracing::info!(image, "an image that no function needs was taken away");
                }
                unneeded.took(&image, gone, Instant::now(), random::fraction());
            }
        }
        None
    }
}

/// The images that routes name: those that are to be here, and those that may be.
fn named(routes: &Informer<PathRoute>) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut wanted, mut kept) = (BTreeSet::new(), BTreeSet::new());
    for route in routes.list() {
        wanted.extend(images_of(&route.metadata, IMAGES));
        kept.extend(images_of(&route.metadata, KEPT_IMAGES));
    }
    kept.extend(wanted.iter().cloned());
    (wanted, kept)
}

/// What became of images.
#[derive(Default)]
struct Known {
    here: BTreeSet<String>,
    /// How often each has failed in a row, and when it is tried again.
    failed: BTreeMap<String, (u32, Instant)>,
}

impl Known {
    /// The next image to fetch, or when there is one; what is not wanted any more is forgotten.
    fn next(&mut self, wanted: &BTreeSet<String>, now: Instant) -> Result<String, Option<Instant>> {
        self.here.retain(|image| wanted.contains(image));
        self.failed.retain(|image, _| wanted.contains(image));
        let missing = || wanted.iter().filter(|image| !self.here.contains(*image));
        let due = |image: &String| self.failed.get(image).map_or(now, |(_, at)| *at);
        let ready = missing().find(|image| due(image) <= now);
        ready.cloned().ok_or_else(|| missing().map(due).min())
    }

    fn note(&mut self, image: String, result: RuntimeResult<()>, now: Instant) {
        let Err(error) = result else {
            self.failed.remove(&image);
            self.here.insert(image);
            return;
        };
        // Who calls before that has it fetched, and is told what is wrong with it.
        tracing::info!(image, %error, "an image of a function cannot be fetched ahead");
        let (failures, at) = self.failed.entry(image).or_insert((0, now));
        *failures += 1;
        *at = now + RETRY.jittered(*failures, random::fraction());
    }
}

#[async_trait]
impl Companion for Unpacker {
    fn name(&self) -> &str {
        "image-unpacker"
    }

    async fn run(self: Arc<Self>, ctx: CompanionContext) {
        let routes = ctx.informers.of::<PathRoute>();
        let mut news = routes.subscribe();
        let work = async {
            // Without the routes nobody knows what is not named.
            if !routes.synced().await {
                return;
            }
            let (mut known, mut unneeded) = (Known::default(), Unneeded::new(self.grace, Instant::now()));
            loop {
                let (wanted, kept) = named(&routes);
                let retry = match known.next(&wanted, Instant::now()) {
                    // One at a time: those that somebody waits for come first.
                    Ok(image) => {
                        let result = self.fetch(&image).await;
                        known.note(image, result, Instant::now());
                        continue;
                    }
                    Err(retry) => retry,
                };
                let Some(more) = self.clear(&ctx, &mut unneeded, &kept).await else { continue };
                let alarm = tokio::time::sleep_until(retry.map_or(more, |retry| retry.min(more)));
                tokio::select! {
                    biased;
                    change = news.next() => if change.is_none() { return },
                    () = alarm => {}
                }
                while news.try_next().is_some() {}
            }
        };
        tokio::select! {
            biased;
            () = ctx.stop.cancelled() => {}
            () = work => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik8s_core::runtime::RuntimeError;

    #[test]
    fn what_fails_is_tried_later_and_keeps_nothing_else_waiting() {
        let (mut known, now) = (Known::default(), Instant::now());
        let wanted: BTreeSet<String> = ["a", "b"].map(str::to_owned).into();
        assert_eq!(known.next(&wanted, now), Ok("a".to_owned()));
        known.note("a".to_owned(), Err(RuntimeError::Invalid("no".into())), now);
        assert_eq!(known.next(&wanted, now), Ok("b".to_owned()));
        known.note("b".to_owned(), Ok(()), now);
        let at = known.next(&wanted, now).unwrap_err().expect("a time");
        assert!(at > now && at <= now + RETRY.base);
        assert_eq!(known.next(&wanted, at), Ok("a".to_owned()));
        known.note("a".to_owned(), Ok(()), at);
        assert_eq!(known.next(&wanted, at), Err(None));
        assert_eq!(known.next(&BTreeSet::new(), at), Err(None));
        assert_eq!(known.next(&wanted, at), Ok("a".to_owned()), "what was forgotten is looked at again");
    }
}
