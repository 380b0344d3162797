//! Where the store's keys stand in etcd's flat space of keys: behind a root of their own, so that several clusters may
//! share one etcd.

use crate::store::{Key, RangeRequest, StoreError};

/// The root, without a slash at its end.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    root: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { root: prefix.trim_end_matches('/').to_owned() }
    }

    /// A key in etcd. Only keys that begin with a slash, so that `/a` of one cluster is never `a` of a root `/`.
    pub(super) fn there(&self, key: &str) -> Result<Vec<u8>, StoreError> {
        if !key.starts_with('/') {
            return Err(StoreError::Invalid(format!("key {key:?} must begin with a slash")));
        }
        Ok(format!("{}{key}", self.root).into_bytes())
    }

    /// The store's name of a key in etcd; `None` for those of others.
    pub(super) fn here(&self, key: &[u8]) -> Option<Key> {
        let key = std::str::from_utf8(key).ok()?.strip_prefix(self.root.as_str())?;
        key.starts_with('/').then(|| key.into())
    }

    /// First key and end of what a request asks for.
    pub(super) fn range(&self, request: &RangeRequest) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let prefix = if request.prefix.is_empty() { "/" } else { request.prefix.as_str() };
        let start = self.there(prefix)?;
        let mut end = start.clone();
        // The prefix ends in a slash; nothing with this prefix sorts behind the character after the slash.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let after = request.after.as_ref().map(|after| format!("{}{after}\0", self.root).into_bytes());
        Ok((after.unwrap_or_default().max(start), end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(prefix: &str, after: Option<&str>) -> (String, String) {
        let after = after.map(str::to_owned);
        let request = RangeRequest { prefix: prefix.to_owned(), after, ..RangeRequest::default() };
        let (start, end) = Keys::new("/clusters/a/").range(&request).unwrap();
        (String::from_utf8(start).unwrap(), String::from_utf8(end).unwrap())
    }

    #[test]
    fn keys_travel_there_and_back_and_those_of_others_are_not_seen() {
        let keys = Keys::new("/a/");
        assert_eq!(keys.there("/registry/x").unwrap(), b"/a/registry/x");
        assert_eq!(keys.here(b"/a/registry/x").as_deref(), Some("/registry/x"));
        assert!(keys.there("registry").is_err());
        assert!([&b"/ab/x"[..], b"/a", b"/b/x", b"\xff"].iter().all(|other| keys.here(other).is_none()));
        assert_eq!(Keys::new("").there("/x").unwrap(), b"/x");
    }

    #[test]
    fn ranges_cover_a_prefix_and_begin_after_a_key() {
        let both = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(range("/p/", None), both("/clusters/a/p/", "/clusters/a/p0"));
        assert_eq!(range("", None), both("/clusters/a/", "/clusters/a0"));
        assert_eq!(range("/p/", Some("/p/x")), both("/clusters/a/p/x\0", "/clusters/a/p0"));
        assert_eq!(range("/p/", Some("/a")), both("/clusters/a/p/", "/clusters/a/p0"));
    }
}
