//! `get` and `list`: from memory, after the cache has reached the revision that the read needs.

use super::resolve::{Served, method_not_allowed};
use super::token::Token;
use super::{scale, store_error, view};
use crate::api::{ApiError, ApiResult, Cause, Details, Object, ObjectList, Reason, Revision, Target};
use crate::client::{ListOptions, VersionMatch};
use crate::server::ApiServer;
use crate::server::cache::{Filter, Page, PageRequest};
use crate::store::{RangeRequest, StoreError};
use std::sync::Arc;

/// What revision a list is to be read at.
enum Freshness {
    /// The newest.
    Consistent,
    /// Whatever is there.
    Any,
    /// At least this.
    NotOlderThan(Revision),
    /// This very one.
    Exact(Revision),
}

impl ApiServer {
    pub(crate) async fn get_object(&self, target: &Target) -> ApiResult<Arc<Object>> {
        if let Some(kind) = self.computed(target)? {
            return self.compute_one(kind.as_ref(), target).await;
        }
        let served = self.resolve(target)?;
        match target.subresource.as_deref() {
            None => {}
            Some("status") if served.kind.has_status() => {}
            Some("scale") if served.kind.scale().is_some() => {
                let (_, object) = self.current(&served, target).await?;
                return scale::read(served.kind.as_ref(), &object);
            }
            Some(_) => {
                self.current(&served, target).await?;
                return Err(super::resolve::unknown_resource());
            }
        }
        let (_, object) = self.current(&served, target).await?;
        view::show(&served, object)
    }

    pub(crate) async fn list_objects(&self, target: &Target, options: &ListOptions) -> ApiResult<ObjectList> {
        if let Some(kind) = self.computed(target)? {
            return self.compute_all(kind.as_ref(), target, options).await;
        }
        if target.subresource.is_some() {
            return Err(method_not_allowed());
        }
        let served = self.resolve(target)?;
        let filter = Filter::new(served.kind.as_ref(), target, &options.label_selector, &options.field_selector)?;
        let list = if options.continue_token.is_empty() {
            self.first_page(&served, &filter, options).await?
        } else {
            self.next_page(&served, &filter, options).await?
        };
        view::show_list(&served, list)
    }

    async fn first_page(&self, served: &Served, filter: &Filter, options: &ListOptions) -> ApiResult<ObjectList> {
        let at = match freshness(options)? {
            Freshness::Any => None,
            Freshness::Consistent => self.fresh().await.map(|_| None)?,
            Freshness::NotOlderThan(revision) => self.reach_asked(revision).await.map(|()| None)?,
            Freshness::Exact(revision) => self.reach_asked(revision).await.map(|()| Some(revision))?,
        };
        let request = PageRequest {
            filter,
            prefix: served.cache.prefix_of(filter),
            after: None,
            passed: Some(0),
            limit: usize::try_from(options.limit).unwrap_or(usize::MAX),
            at,
        };
        self.page(served, &request).await
    }

    async fn next_page(&self, served: &Served, filter: &Filter, options: &ListOptions) -> ApiResult<ObjectList> {
        if options.resource_version.is_some_and(|rv| rv != 0) {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
        let token = Token::decode(&options.continue_token)?;
        self.reach_asked(token.rv).await?;
        let after = format!("{}{}", served.cache.resource.prefix, token.start);
        let request = PageRequest {
            filter,
            prefix: served.cache.prefix_of(filter),
            after: Some(&after),
            passed: token.passed,
            limit: usize::try_from(options.limit).unwrap_or(usize::MAX),
            at: Some(token.rv),
        };
        self.page(served, &request).await
    }

    async fn page(&self, served: &Served, request: &PageRequest<'_>) -> ApiResult<ObjectList> {
        let page = match served.cache.page(request, || self.caches.reached()) {
            Some(page) => page,
            None => self.page_of_the_past(served, request).await?,
        };
        let prefix = &served.cache.resource.prefix;
        let token =
            |key: &str| Token::new(page.revision, key.strip_prefix(prefix).unwrap_or(key), page.passed).encode();
        let continue_token = page.next.as_deref().map(token).transpose()?.unwrap_or_default();
        let remaining = page.remaining.filter(|_| request.filter.is_whole() && !continue_token.is_empty());
        Ok(ObjectList { items: page.items, revision: page.revision, continue_token, remaining })
    }

    /// A page from before the cache's history: from the store's, if it keeps one.
    async fn page_of_the_past(&self, served: &Served, request: &PageRequest<'_>) -> ApiResult<Page> {
        let range = RangeRequest {
            prefix: request.prefix.clone(),
            after: request.after.map(str::to_owned),
            limit: 0,
            at: request.at,
        };
        let found = self.store.range(range).await.map_err(|e| match e {
            StoreError::Compacted { .. } | StoreError::Unsupported(_) => ApiError::expired(
                "The provided continue parameter or resource version is too old to display a consistent list result. \
                 Start a new list without it.",
            ),
            other => store_error("listing the past", &other),
        })?;
        let mut page = Page { revision: request.at.unwrap_or(found.revision), ..Page::default() };
        let mut matching = Vec::new();
        for entry in &found.entries {
            let object = Arc::new(served.cache.resource.decode_stored(entry)?);
            if request.filter.matches(&object) {
                matching.push((entry.key.clone(), object));
            }
        }
        let limit = if request.limit == 0 { matching.len() } else { request.limit.min(matching.len()) };
        let remaining = (matching.len() - limit) as u64;
        page.remaining = Some(remaining);
        page.passed = request.passed.map(|passed| passed.saturating_add(limit as u64));
        page.next = matching.get(limit.wrapping_sub(1)).filter(|_| remaining > 0).map(|(k, _)| k.clone());
        page.items = matching.into_iter().take(limit).map(|(_, object)| object).collect();
        Ok(page)
    }

    /// Waits for a revision that a client asked for; one that has not happened is refused at once.
    pub(crate) async fn reach_asked(&self, revision: Revision) -> ApiResult<()> {
        if self.caches.reached() >= revision {
            return Ok(());
        }
        let newest = self.store.revision().await.map_err(|e| store_error("asking for the revision", &e))?;
        if revision > newest {
            return Err(too_large(revision, newest));
        }
        self.reach(revision).await
    }
}

fn freshness(options: &ListOptions) -> ApiResult<Freshness> {
    let forbid = |why: &str| Err(list_options_invalid("resourceVersionMatch", why));
    match (options.resource_version, options.version_match) {
        (None, VersionMatch::Unset) => Ok(Freshness::Consistent),
        (None, _) => forbid("resourceVersionMatch is forbidden unless resourceVersion is provided"),
        (Some(0), VersionMatch::Exact) => {
            forbid("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
        }
        (Some(0), _) => Ok(Freshness::Any),
        (Some(revision), VersionMatch::Exact) => Ok(Freshness::Exact(revision)),
        (Some(revision), _) => Ok(Freshness::NotOlderThan(revision)),
    }
}

fn list_options_invalid(field: &str, why: &str) -> ApiError {
    let cause =
        Cause { reason: "FieldValueForbidden".into(), message: format!("Forbidden: {why}"), field: field.to_owned() };
    let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {field}: {}", cause.message);
    let details =
        Details { group: "meta.k8s.io".into(), kind: "ListOptions".into(), causes: vec![cause], ..Details::default() };
    ApiError { reason: Reason::Invalid, message, details: Box::new(details) }
}

fn too_large(requested: Revision, newest: Revision) -> ApiError {
    let cause = Cause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        field: String::new(),
    };
    let details = Details { causes: vec![cause], retry_after_seconds: 1, ..Details::default() };
    let message = format!("Timeout: Too large resource version: {requested}, current: {newest}");
    ApiError { reason: Reason::Timeout, message, details: Box::new(details) }
}
