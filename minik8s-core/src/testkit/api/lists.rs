//! Lists: selectors, pages, revisions.

use super::World;
use crate::api::{Reason, Target};
use crate::client::{ListOptions, VersionMatch};
use serde_json::json;

pub(super) async fn label_selectors_are_a_conjunction(w: &World) {
    w.map("a", &json!({"app": "web", "tier": "front"})).await;
    w.map("b", &json!({"app": "web", "tier": "back"})).await;
    w.map("c", &json!({"app": "web2", "tier": "front"})).await;
    w.map("d", &json!({})).await;
    for (selector, want) in [
        ("app=web,tier=front", vec!["a"]),
        ("app=web", vec!["a", "b"]),
        ("app in (web,web2),tier!=back", vec!["a", "c"]),
        ("app notin (web2)", vec!["a", "b", "d"]),
        ("!app", vec!["d"]),
        ("app,tier", vec!["a", "b", "c"]),
    ] {
        assert_eq!(w.picked("configmaps", selector, "").await.unwrap(), want, "{selector}");
    }
}

pub(super) async fn field_selectors_pick_and_unknown_ones_are_refused(w: &World) {
    for name in ["p1", "p2", "p12"] {
        w.pod(name).await;
    }
    w.merge("pods", "p1", &json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    assert_eq!(w.picked("pods", "", "metadata.name=p1").await.unwrap(), ["p1"]);
    assert_eq!(w.picked("pods", "", "spec.nodeName=").await.unwrap(), ["p1", "p12", "p2"]);
    assert_eq!(w.picked("pods", "a=b", "status.phase!=Running").await.unwrap(), ["p1"]);
    assert!(w.picked("pods", "", "spec.nodeName=n1").await.unwrap().is_empty());
    let error = w.picked("pods", "", "spec.foo=bar").await.unwrap_err();
    assert_eq!((error.reason, error.message.as_str()), (Reason::BadRequest, "field label not supported: spec.foo"));
}

pub(super) async fn pages_show_the_revision_of_the_first(w: &World) {
    for name in ["a", "b", "c", "d", "e"] {
        w.map(name, &json!({"app": "web"})).await;
    }
    let first = ListOptions { limit: 2, ..ListOptions::default() };
    let page = w.transport.list(&w.all("configmaps"), &first).await.unwrap();
    let names = |page: &crate::api::ObjectList| page.items.iter().map(|o| o.meta.name.clone()).collect::<Vec<_>>();
    assert_eq!((names(&page), page.remaining), (vec!["a".to_owned(), "b".into()], Some(3)));
    w.delete("configmaps", "c").await.unwrap();
    w.map("bb", &json!({})).await;
    w.merge("configmaps", "d", &json!({"data": {"k": "new"}})).await.unwrap();
    let next = ListOptions { continue_token: page.continue_token.clone(), ..first.clone() };
    let second = w.transport.list(&w.all("configmaps"), &next).await.unwrap();
    assert_eq!(names(&second), ["c", "d"], "the state of the first page");
    assert_eq!((second.revision, second.remaining), (page.revision, Some(1)));
    assert_eq!(second.items[1].value().unwrap()["data"]["k"], "v");
    let next = ListOptions { continue_token: second.continue_token.clone(), limit: 0, ..first.clone() };
    let last = w.transport.list(&w.all("configmaps"), &next).await.unwrap();
    assert_eq!((names(&last), last.continue_token.as_str(), last.remaining), (vec!["e".to_owned()], "", None));
    let labelled = ListOptions { label_selector: "app=web".into(), ..first };
    let page = w.transport.list(&w.all("configmaps"), &labelled).await.unwrap();
    assert!(page.remaining.is_none() && !page.continue_token.is_empty(), "selectors hide how many follow");
}

pub(super) async fn revisions_of_lists_mean_what_they_say(w: &World) {
    w.map("a", &json!({})).await;
    let before = w.revision("configmaps").await;
    w.map("b", &json!({})).await;
    let at =
        |resource_version, version_match| ListOptions { resource_version, version_match, ..ListOptions::default() };
    let exact = at(Some(before), VersionMatch::Exact);
    assert_eq!(w.names("configmaps", &exact).await.unwrap(), (vec!["a".to_owned()], before));
    for fresh in
        [at(None, VersionMatch::Unset), at(Some(0), VersionMatch::Unset), at(Some(before), VersionMatch::NotOlderThan)]
    {
        let (names, revision) = w.names("configmaps", &fresh).await.unwrap();
        assert!(names == ["a", "b"] && revision > before, "{fresh:?}");
    }
    let error = w.names("configmaps", &at(Some(99_999_999), VersionMatch::Unset)).await.unwrap_err();
    assert_eq!((error.reason, error.details.causes[0].reason.as_str()), (Reason::Timeout, "ResourceVersionTooLarge"));
    assert_eq!(error.details.retry_after_seconds, 1);
    assert!(error.message.starts_with("Timeout: Too large resource version: 99999999, current: "), "{error}");
    let error = w.names("configmaps", &at(None, VersionMatch::Exact)).await.unwrap_err();
    assert_eq!(error.reason, Reason::Invalid);
}

pub(super) async fn bad_tokens_and_selectors_are_refused(w: &World) {
    let garbage = ListOptions { continue_token: "garbage".into(), limit: 1, ..ListOptions::default() };
    let error = w.names("configmaps", &garbage).await.unwrap_err();
    assert!(error.reason == Reason::BadRequest && error.message.starts_with("invalid continue token"), "{error}");
    let error = w.picked("configmaps", "a===b", "").await.unwrap_err();
    assert_eq!(error.message, "unable to parse requirement: found '=', expected: identifier");
    for name in ["a", "b"] {
        w.map(name, &json!({})).await;
    }
    let first = ListOptions { limit: 1, ..ListOptions::default() };
    let page = w.transport.list(&w.all("configmaps"), &first).await.unwrap();
    let both = ListOptions { continue_token: page.continue_token, resource_version: Some(5), ..first };
    let error = w.names("configmaps", &both).await.unwrap_err();
    assert_eq!(error.message, "specifying resource version is not allowed when using continue");
    let everywhere = Target { namespace: None, ..w.all("configmaps") };
    let list = w.transport.list(&everywhere, &ListOptions::default()).await.unwrap();
    assert!(list.items.iter().filter(|o| o.meta.namespace == w.namespace).count() == 2);
}
