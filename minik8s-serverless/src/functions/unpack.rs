//! Images of functions are on every node before anybody calls there: fetched and unpacked while nobody waits for it.
//! Which images those are stands in the routes, which nodes read anyway.

use super::objects::images_of;
use async_trait::async_trait;
use minik8s_core::api::PathRoute;
use minik8s_core::client::Backoff;
use minik8s_core::node::{Companion, CompanionContext};
use minik8s_core::random;
use minik8s_core::runtime::{RuntimeResult, SharedRuntime};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// After an image that could not be fetched.
const RETRY: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(600));

/// Has the images of functions on its node.
pub struct Unpacker {
    runtime: SharedRuntime,
}

impl Unpacker {
    /// Has them in this runtime.
    pub fn new(runtime: SharedRuntime) -> Self {
        Self { runtime }
    }

    async fn fetch(&self, image: &str) -> RuntimeResult<()> {
        match self.runtime.image(image).await? {
            Some(_) => Ok(()),
            None => self.runtime.pull(image, None, None).await.map(drop),
        }
    }
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
            routes.synced().await;
            let mut known = Known::default();
            loop {
                let wanted = routes.list().iter().flat_map(|route| images_of(&route.metadata)).collect();
                let wake = match known.next(&wanted, Instant::now()) {
                    // One at a time: those that somebody waits for come first.
                    Ok(image) => {
                        let result = self.fetch(&image).await;
                        known.note(image, result, Instant::now());
                        continue;
                    }
                    Err(wake) => wake,
                };
                let alarm = async {
                    match wake {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
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
