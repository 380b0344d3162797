//! `watch`: the start is fixed before this returns; events come from the cache.

use super::resolve::method_not_allowed;
use super::store_error;
use super::view;
use crate::api::{ApiError, ApiResult, Revision, Target, WatchEvent};
use crate::client::{WatchOptions, WatchStream};
use crate::server::cache::{Filter, WatchPlan, WatchStartAt, Watcher};
use crate::server::metrics::WatchGuard;
use crate::server::{ApiServer, Kind};
use futures::StreamExt;
use std::sync::Arc;

struct Running {
    watcher: Watcher,
    /// Set where objects are shown as another kind than they are stored as.
    view: Option<Arc<dyn Kind>>,
    guard: WatchGuard,
}

impl ApiServer {
    pub(crate) async fn watch_objects(&self, target: &Target, options: &WatchOptions) -> ApiResult<WatchStream> {
        if target.subresource.is_some() {
            return Err(method_not_allowed());
        }
        let served = self.resolve(target)?;
        let filter = Filter::new(served.kind.as_ref(), target, &options.label_selector, &options.field_selector)?;
        let start = self.start_of(options).await?;
        let plan = WatchPlan { start, bookmarks: options.bookmarks, timeout: options.timeout, stop: self.stop.clone() };
        let view = served.is_view().then(|| served.kind.clone());
        let watcher = Watcher::open(self.caches.clone(), served.cache, filter, plan);
        let running = Running { watcher, view, guard: self.metrics().watch(target) };
        Ok(futures::stream::unfold(running, next).boxed())
    }

    async fn start_of(&self, options: &WatchOptions) -> ApiResult<WatchStartAt> {
        let asked = options.resource_version;
        match asked {
            None => drop(self.fresh().await?),
            Some(revision) if options.send_initial_events => self.reach_asked(revision).await?,
            Some(revision) => self.refuse_future(revision).await?,
        }
        Ok(match asked {
            Some(revision) if revision > 0 && !options.send_initial_events => WatchStartAt::After(revision),
            _ => WatchStartAt::Initial { mark: options.send_initial_events },
        })
    }

    /// A revision that the store never had is of another store, or of this one before it was restored: a watch from
    /// there would be silent until the store comes so far.
    async fn refuse_future(&self, revision: Revision) -> ApiResult<()> {
        if revision <= self.caches.reached() {
            return Ok(());
        }
        let newest = self.store.revision().await.map_err(|e| store_error("asking for the revision", &e))?;
        if revision > newest {
            return Err(ApiError::expired(format!(
                "too old resource version: {revision} is not of this store's history ({newest})"
            )));
        }
        Ok(())
    }
}

async fn next(mut running: Running) -> Option<(ApiResult<WatchEvent>, Running)> {
    let event = running.watcher.next().await?;
    let event = match (&running.view, event) {
        (Some(kind), Ok(event)) => view::show_event(kind.as_ref(), event),
        (_, event) => event,
    };
    if let Err(error) = &event {
        running.guard.failed(error);
    }
    Some((event, running))
}
