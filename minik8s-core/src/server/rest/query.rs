//! Query strings: parsed leniently (`?&a=b` occurs), and turned into the options of the verbs.

use crate::api::{ApiError, ApiResult, Cause, Details, Reason, Revision};
use crate::client::{
    DeleteOptions, FieldValidation, ListOptions, Propagation, VersionMatch, WatchOptions, WriteOptions,
};
use std::time::Duration;

/// The parameters of a request, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string.
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect(),
        )
    }

    /// The first value of a parameter; empty values count as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// Every value of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// All parameters, in order.
    pub(crate) fn into_pairs(self) -> Vec<(String, String)> {
        self.0
    }

    /// A flag: present means true, unless it says `false` or `0`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.all(name).next().is_some_and(|v| v != "0" && !v.eq_ignore_ascii_case("false"))
    }

    /// A number.
    ///
    /// # Errors
    /// `BadRequest` where it is none.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> ApiResult<Option<T>> {
        let read = |v: &str| v.parse().map_err(|_| ApiError::bad_request(format!("invalid value for {name}: {v:?}")));
        self.get(name).map(read).transpose()
    }

    fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    fn version(&self) -> ApiResult<(Option<Revision>, VersionMatch)> {
        let revision: Option<Revision> = self.number("resourceVersion")?;
        let rule = match self.get("resourceVersionMatch") {
            None => VersionMatch::Unset,
            Some("NotOlderThan") => VersionMatch::NotOlderThan,
            Some("Exact") => VersionMatch::Exact,
            Some(other) => {
                let supported = ["Exact", "NotOlderThan"];
                return Err(unsupported("ListOptions", "resourceVersionMatch", other, &supported));
            }
        };
        Ok((revision, rule))
    }

    /// Options of a list.
    ///
    /// # Errors
    /// `BadRequest` and `Invalid` for values that cannot be.
    pub(crate) fn list(&self) -> ApiResult<ListOptions> {
        let (resource_version, version_match) = self.version()?;
        if version_match != VersionMatch::Unset && resource_version.is_none() {
            let why = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
            return Err(invalid("ListOptions", "FieldValueForbidden", "resourceVersionMatch", why));
        }
        Ok(ListOptions {
            label_selector: self.text("labelSelector"),
            field_selector: self.text("fieldSelector"),
            limit: self.number("limit")?.unwrap_or_default(),
            continue_token: self.text("continue"),
            resource_version,
            version_match,
        })
    }

    /// Options of a watch.
    ///
    /// # Errors
    /// `BadRequest` and `Invalid` for values that cannot be.
    pub(crate) fn watch(&self) -> ApiResult<WatchOptions> {
        let (resource_version, rule) = self.version()?;
        let send_initial_events = self.flag("sendInitialEvents");
        if send_initial_events && rule != VersionMatch::NotOlderThan {
            let why = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            return Err(invalid("ListOptions", "FieldValueForbidden", "resourceVersionMatch", why));
        }
        let seconds: Option<u64> = self.number("timeoutSeconds")?;
        Ok(WatchOptions {
            label_selector: self.text("labelSelector"),
            field_selector: self.text("fieldSelector"),
            resource_version,
            bookmarks: self.flag("allowWatchBookmarks"),
            send_initial_events,
            timeout: seconds.filter(|s| *s > 0).map(Duration::from_secs),
        })
    }

    /// Options of a write; `agent` is the `User-Agent` that names the manager where the query does not.
    ///
    /// # Errors
    /// `Invalid` for values that cannot be.
    pub(crate) fn write(&self, agent: Option<&str>) -> ApiResult<WriteOptions> {
        let field_validation = match self.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Strict") => FieldValidation::Strict,
            Some("Ignore") => FieldValidation::Ignore,
            Some(other) => {
                let supported = ["Ignore", "Strict", "Warn"];
                return Err(unsupported("CreateOptions", "fieldValidation", other, &supported));
            }
        };
        let agent = agent.and_then(|a| a.split('/').next()).unwrap_or_default();
        let field_manager = self.get("fieldManager").unwrap_or(agent).to_owned();
        Ok(WriteOptions { dry_run: self.dry_run("CreateOptions")?, field_manager, field_validation, user: None })
    }

    fn dry_run(&self, options: &str) -> ApiResult<bool> {
        dry_run(options, self.all("dryRun"))
    }

    /// Options of a deletion, where they are given in the query.
    ///
    /// # Errors
    /// `BadRequest` and `Invalid` for values that cannot be.
    pub(crate) fn delete(&self) -> ApiResult<DeleteOptions> {
        let orphan = self.get("orphanDependents").map(|_| self.flag("orphanDependents"));
        Ok(DeleteOptions {
            dry_run: self.dry_run("DeleteOptions")?,
            grace_period_seconds: self.number("gracePeriodSeconds")?,
            propagation: propagation(self.get("propagationPolicy"), orphan)?,
            ..DeleteOptions::default()
        })
    }
}

/// `dryRun` has one value that means anything.
pub(crate) fn dry_run<'a>(options: &str, values: impl Iterator<Item = &'a str>) -> ApiResult<bool> {
    let mut dry = false;
    for value in values.filter(|v| !v.is_empty()) {
        if value != "All" {
            return Err(unsupported(options, "dryRun", value, &["All"]));
        }
        dry = true;
    }
    Ok(dry)
}

/// What happens to dependents, in its new and its old spelling.
pub(crate) fn propagation(policy: Option<&str>, orphan: Option<bool>) -> ApiResult<Option<Propagation>> {
    match policy {
        None => Ok(orphan.map(|orphan| if orphan { Propagation::Orphan } else { Propagation::Background })),
        Some("Orphan") => Ok(Some(Propagation::Orphan)),
        Some("Background") => Ok(Some(Propagation::Background)),
        Some("Foreground") => Ok(Some(Propagation::Foreground)),
        Some(other) => {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            Err(unsupported("DeleteOptions", "propagationPolicy", other, &supported))
        }
    }
}

fn unsupported(options: &str, field: &str, value: &str, supported: &[&str]) -> ApiError {
    let list = supported.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
    let why = format!("Unsupported value: {value:?}: supported values: {list}");
    invalid(options, "FieldValueNotSupported", field, &why)
}

fn invalid(options: &str, reason: &str, field: &str, why: &str) -> ApiError {
    let message = format!("{options}.meta.k8s.io \"\" is invalid: {field}: {why}");
    let cause = Cause { reason: reason.into(), message: why.into(), field: field.into() };
    let details =
        Details { group: "meta.k8s.io".into(), kind: options.into(), causes: vec![cause], ..Details::default() };
    ApiError { reason: Reason::Invalid, message, details: Box::new(details) }
}

/// Undoes percent encoding and `+`; what is no encoding stays as it is.
fn decode(text: &str) -> String {
    percent_decode(&text.replace('+', " "))
}

/// Undoes percent encoding; what is no encoding stays as it is.
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = (byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        if let Some(value) = hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            out.push(value);
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_leniently() {
        let query = Query::parse("&labelSelector=app%3Dweb%2Ctier+in+(a,b)&&limit=500&watch&pretty=");
        assert_eq!(query.get("labelSelector"), Some("app=web,tier in (a,b)"));
        assert_eq!(query.list().unwrap().limit, 500);
        assert!(query.flag("watch") && !query.flag("follow"));
        assert!(!Query::parse("watch=false").flag("watch") && !Query::parse("watch=0").flag("watch"));
        assert_eq!(Query::parse("command=a&command=b%20c").all("command").collect::<Vec<_>>(), ["a", "b c"]);
        assert_eq!(percent_decode("100%"), "100%");
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        let refused = |q: &str| {
            let query = Query::parse(q);
            let first = query.list().err().or_else(|| query.watch().err()).or_else(|| query.write(None).err());
            first.or_else(|| query.delete().err()).map(|e| (e.reason, e.message))
        };
        assert_eq!(refused("limit=5"), None);
        assert_eq!(refused("limit=x").unwrap().0, Reason::BadRequest);
        assert_eq!(
            refused("resourceVersionMatch=Exact").unwrap().1,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        );
        assert_eq!(
            refused("sendInitialEvents=true").unwrap().1,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        );
        for query in ["dryRun=true", "fieldValidation=Maybe", "propagationPolicy=Soon"] {
            assert_eq!(refused(query).unwrap().0, Reason::Invalid, "{query}");
        }
    }

    #[test]
    fn the_agent_names_the_manager_where_the_query_does_not() {
        let agent = Some("kubectl/v1.33.0 (linux/amd64)");
        assert_eq!(Query::parse("").write(agent).unwrap().field_manager, "kubectl");
        assert_eq!(Query::parse("fieldManager=me").write(agent).unwrap().field_manager, "me");
    }

    #[test]
    fn orphan_dependents_is_the_old_spelling() {
        let propagation = |q: &str| Query::parse(q).delete().unwrap().propagation;
        assert_eq!(propagation("orphanDependents=true"), Some(Propagation::Orphan));
        assert_eq!(propagation("orphanDependents=false"), Some(Propagation::Background));
        assert_eq!(propagation(""), None);
    }
}
