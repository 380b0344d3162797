//! Other paths: for backends, and for clients that are sent elsewhere.

use super::answers::Refusal;
use super::{Came, own};
use crate::gateway::body::Answer;
use crate::gateway::spelling::normal_path;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use minik8s_core::routing::{NewPath, PathRule, Redirect};
use std::borrow::Cow;

/// The path after a change.
fn changed<'a>(change: &'a NewPath, rule: &PathRule, path: &'a str) -> Cow<'a, str> {
    match (change, rule) {
        (NewPath::Full(full), _) => full.as_str().into(),
        (NewPath::Prefix(new), PathRule::Prefix(prefix)) => {
            let rest = path.strip_prefix(prefix.trim_end_matches('/')).unwrap_or(path).trim_start_matches('/');
            let new = new.trim_end_matches('/');
            match (new.is_empty(), rest.is_empty()) {
                (true, true) => "/".into(),
                (false, true) => new.into(),
                (_, false) => format!("{new}/{rest}").into(),
            }
        }
        // Refused when it was written: there is no prefix.
        (NewPath::Prefix(_), _) => path.into(),
    }
}

/// Puts another path into a request.
pub(super) fn path<B>(change: &NewPath, rule: &PathRule, request: &mut Request<B>) -> Result<(), Refusal> {
    let uri = request.uri();
    // The prefix that was matched stands in it as a rule spells it.
    let normal = normal_path(uri.path());
    let path = changed(change, rule, &normal);
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    };
    let made = PathAndQuery::try_from(text);
    let bad = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the route's new path is no path".into());
    *request.uri_mut() = Uri::from(made.map_err(bad)?);
    Ok(())
}

/// Sends the client elsewhere.
pub(super) fn redirect(redirect: &Redirect, rule: &PathRule, host: &str, came: &Came, uri: &Uri) -> Response<Answer> {
    let scheme = redirect.scheme.as_deref().unwrap_or(came.scheme());
    let host = redirect.host.as_deref().unwrap_or(host);
    // The port stays unless the scheme says another, as the Gateway API has it.
    let usual = |scheme: &str| if scheme == "https" { 443 } else { 80 };
    let port = match (redirect.port, &redirect.scheme) {
        (Some(port), _) => port,
        (None, Some(scheme)) => usual(scheme),
        (None, None) => came.port,
    };
    let port = if port == usual(scheme) { String::new() } else { format!(":{port}") };
    let normal = normal_path(uri.path());
    let path = redirect.path.as_ref().map_or(uri.path().into(), |change| changed(change, rule, &normal));
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let status = StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::FOUND);
    let mut response = own(status, String::new());
    if let Ok(value) = HeaderValue::from_str(&format!("{scheme}://{host}{port}{path}{query}")) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_replaced_as_the_gateway_api_has_it() {
        // The table of HTTPPathModifier.
        let table = [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/a", "/", "/x", "/x/a"),
        ];
        for (path, prefix, new, want) in table {
            let change = NewPath::Prefix(new.into());
            assert_eq!(changed(&change, &PathRule::prefix(prefix), path), want, "{path} {prefix} {new}");
        }
    }

    #[test]
    fn redirects_say_where_exactly() {
        let at = |port: u16, tls: bool, redirect: Redirect| {
            let came = Came::new(port, tls, "192.0.2.1:1".parse().unwrap());
            let uri = Uri::from_static("/a/b?c=d");
            let response = super::redirect(&redirect, &PathRule::prefix("/a"), "x.org", &came, &uri);
            response.headers()["location"].to_str().unwrap().to_owned()
        };
        let base = Redirect { status: 301, ..Redirect::default() };
        let https = Redirect { scheme: Some("https".into()), ..base.clone() };
        assert_eq!(at(80, false, https.clone()), "https://x.org/a/b?c=d");
        assert_eq!(at(8080, false, https), "https://x.org/a/b?c=d");
        assert_eq!(at(8080, false, base.clone()), "http://x.org:8080/a/b?c=d");
        let all =
            Redirect { host: Some("y.org".into()), port: Some(8443), path: Some(NewPath::Prefix("/z".into())), ..base };
        assert_eq!(at(443, true, all), "https://y.org:8443/z/b?c=d");
    }
}
