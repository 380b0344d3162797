//! Refusals, word for word where clients match on the words.

use super::{CONFIG_MAPS, Http};
use http::Method;
use minik8s_core::server::rest::{RestConfig, RestService};
use serde_json::{Value, json};
use tower::ServiceExt;

#[tokio::test]
async fn refusals_are_those_of_kubernetes() {
    let http = Http::new().await;
    let one = format!("{CONFIG_MAPS}/one");
    let everywhere = "the server does not allow this method on the requested resource";
    let nowhere = "the server could not find the requested resource";
    let cases = [
        (Method::GET, one.as_str(), 404, "NotFound", "configmaps \"one\" not found"),
        (Method::GET, "/api/v1/nope", 404, "NotFound", nowhere),
        (Method::GET, "/api/v1/namespaces/default/namespaces/x", 404, "NotFound", nowhere),
        (Method::GET, "/api/v1/configmaps/one", 404, "NotFound", nowhere),
        (Method::GET, "/api/v1/namespaces/default/configmaps/one/nope", 404, "NotFound", nowhere),
        (Method::POST, one.as_str(), 405, "MethodNotAllowed", everywhere),
        (Method::PUT, CONFIG_MAPS, 405, "MethodNotAllowed", everywhere),
        (Method::POST, "/api/v1/configmaps", 405, "MethodNotAllowed", everywhere),
        (Method::POST, "/nope", 404, "", ""),
        (Method::DELETE, "/api", 405, "MethodNotAllowed", everywhere),
    ];
    for (method, path, code, reason, message) in cases {
        let answer = http.call(method.clone(), path, &[], "{}").await;
        assert_eq!(answer.code, code, "{method} {path}");
        if !reason.is_empty() {
            let status = answer.json();
            assert_eq!((&status["reason"], &status["message"]), (&json!(reason), &json!(message)), "{method} {path}");
            assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(code)));
        }
    }
}

#[tokio::test]
async fn unknown_groups_and_paths_are_plain_text() {
    let http = Http::new().await;
    for path in ["/apis/foo.io/v1/bars", "/apis/foo.io", "/apis/foo.io/v1", "/openapi/v2", "/nope", "/api/v9"] {
        let answer = http.get(path).await;
        assert_eq!((answer.code, answer.text().as_str()), (404, "404 page not found\n"), "{path}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    }
}

#[tokio::test]
async fn media_types_that_are_not_understood() {
    let http = Http::new().await;
    let xml = http.get_as(CONFIG_MAPS, "application/xml").await;
    assert_eq!((xml.code, &xml.json()["reason"]), (406, &json!("NotAcceptable")));
    let sent = http.call(Method::POST, CONFIG_MAPS, &[("content-type", "application/xml")], "<a/>").await;
    assert_eq!((sent.code, &sent.json()["reason"]), (415, &json!("UnsupportedMediaType")));
    assert!(sent.json()["message"].as_str().unwrap().starts_with("the body of the request was in an unknown format"));
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let http = Http::new().await;
    let answer = http.post(CONFIG_MAPS, &" ".repeat(3 * 1024 * 1024 + 1)).await;
    assert_eq!((answer.code, &answer.json()["reason"]), (413, &json!("RequestEntityTooLarge")));
}

#[tokio::test]
async fn without_credentials_only_health_and_version_answer() {
    let http = Http::new().await;
    let strangers = RestService::new(RestConfig::of(&http.server));
    let http = Http { rest: strangers, server: http.server };
    for path in ["/healthz", "/livez", "/readyz?verbose", "/version", "/version/"] {
        assert_eq!(http.get(path).await.code, 200, "{path}");
    }
    for path in ["/api", "/apis", CONFIG_MAPS, "/metrics", "/", "/nope"] {
        let answer = http.get(path).await;
        let status: Value = answer.json();
        assert_eq!((answer.code, &status["message"]), (401, &json!("Unauthorized")), "{path}");
    }
}

#[tokio::test]
async fn a_panic_answers_and_the_front_lives_on() {
    struct Broken;
    #[async_trait::async_trait]
    impl minik8s_core::server::auth::Authorizer for Broken {
        async fn authorize(
            &self,
            attributes: &minik8s_core::server::auth::Attributes<'_>,
        ) -> minik8s_core::api::ApiResult<()> {
            assert!(attributes.path != "/metrics", "broken on purpose");
            Ok(())
        }
    }
    let http = Http::new().await;
    let config = RestConfig { authorizer: std::sync::Arc::new(Broken), ..RestConfig::of(&http.server) };
    let rest = RestService::new(config).acting_as(minik8s_core::server::auth::User::system());
    let http = Http { rest, server: http.server };
    let answer = http.get("/metrics").await;
    assert_eq!((answer.code, &answer.json()["reason"]), (500, &json!("InternalError")));
    assert_eq!(http.get("/api").await.code, 200);
    let request = http::Request::new(http_body_util::Empty::<bytes::Bytes>::new());
    assert_eq!(http.rest.oneshot(request).await.unwrap().status(), 200);
}
