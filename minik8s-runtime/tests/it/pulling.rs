//! Pulling, from a registry in this process.

use crate::harness::{Harness, able, busybox};
use minik8s_core::runtime::{Images, RegistryAuth, RuntimeError};
use minik8s_core::server::tls::{Pki, ServerNames};
use minik8s_runtime::testing::Registry;
use serde_json::json;
use tokio::sync::mpsc;

struct Case {
    h: Harness,
    registry: Registry,
    name: String,
    digest: String,
}

async fn case() -> Case {
    let h = Harness::start().await;
    let registry = Registry::start().await.expect("registry");
    let digest = registry.load(&busybox(), "team/app", "v1").expect("load");
    let name = format!("{}/team/app:v1", registry.address());
    Case { h, registry, name, digest }
}

fn cause(error: &RuntimeError) -> String {
    match error {
        RuntimeError::Pull { cause, .. } => cause.clone(),
        other => panic!("not a pull error: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_brings_a_runnable_image_and_tells_how_far_it_is() {
    if !able() {
        return;
    }
    let Case { h, registry, name, digest } = case().await;
    let (sender, mut progress) = mpsc::channel(1024);
    let image = h.runtime.pull(&name, None, Some(sender)).await.expect("pull");
    assert_eq!(image.names, std::slice::from_ref(&name));
    assert_eq!(image.repo_digests, [format!("{}/team/app@{digest}", registry.address())]);
    let mut steps = Vec::new();
    while let Some(step) = progress.recv().await {
        steps.push(step);
    }
    let phases: Vec<&str> = steps.iter().map(|s| s.phase).collect();
    assert_eq!((phases.first(), phases.last()), (Some(&"resolving"), Some(&"done")), "{phases:?}");
    assert!(steps.windows(2).all(|w| w[0].bytes <= w[1].bytes), "{steps:?}");
    assert!(steps.last().is_some_and(|s| s.bytes == s.total && s.bytes == image.size), "{steps:?}");
    h.sandbox("pod").await;
    let mut spec = h.script("c", "true");
    spec.image = name;
    h.run("pod", &spec).await;

    let pinned = format!("{}/team/app@{digest}", registry.address());
    assert_eq!(h.runtime.pull(&pinned, None, None).await.expect("by digest").id, image.id);
    assert_eq!(h.runtime.image(&pinned).await.expect("image").map(|i| i.id), Some(image.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_refused_and_leave_no_image() {
    if !able() {
        return;
    }
    // One runtime per blob: what an earlier attempt fetched rightly would not be fetched again.
    for n in 0..3 {
        let Case { h, registry, name, .. } = case().await;
        let mut blobs = registry.blobs();
        blobs.sort();
        let blob = blobs.get(n).expect("configuration, layer and manifest");
        registry.corrupt(blob);
        let error = h.runtime.pull(&name, None, None).await.expect_err("corrupt");
        let cause = cause(&error);
        assert!(cause.contains("igest") || cause.contains("manifest"), "{blob}: {cause}");
        assert_eq!(h.runtime.images().await.expect("images"), []);
        registry.heal();
        h.runtime.pull(&name, None, None).await.expect("healed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_the_registry_are_told_apart() {
    if !able() {
        return;
    }
    let Case { h, registry, name, .. } = case().await;
    let absent = format!("{}/team/app:v2", registry.address());
    assert!(cause(&h.runtime.pull(&absent, None, None).await.expect_err("no tag")).contains("not found"));
    registry.require("me", "secret");
    let auth = |password: &str| RegistryAuth { username: "me".into(), password: password.into() };
    for wrong in [None, Some(auth("guess"))] {
        let error = h.runtime.pull(&name, wrong.as_ref(), None).await.expect_err("no access");
        assert!(cause(&error).contains("access denied"), "{error}");
        assert!(!error.to_string().contains("guess"), "{error}");
    }
    h.runtime.pull(&name, Some(&auth("secret")), None).await.expect("with credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_at_once_fetch_once() {
    if !able() {
        return;
    }
    let Case { h, registry, name, .. } = case().await;
    let pulls = (0..8).map(|_| h.runtime.pull(&name, None, None));
    let images = futures::future::try_join_all(pulls).await.expect("pulls");
    assert!(images.windows(2).all(|w| w[0] == w[1]));
    let requests = registry.requests();
    let mut layers: Vec<_> = requests.iter().filter(|r| r.starts_with("GET") && r.contains("/blobs/")).collect();
    let all = layers.len();
    layers.sort();
    layers.dedup();
    assert_eq!(layers.len(), all, "no blob was fetched twice: {requests:?}");
    let before = registry.requests().len();
    h.runtime.pull(&name, None, None).await.expect("again");
    assert!(!registry.requests()[before..].iter().any(|r| r.contains("/blobs/")), "what is here is not fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_read_for_this_machine() {
    if !able() {
        return;
    }
    let Case { h, registry, digest, .. } = case().await;
    let here = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let size = registry.put_manifest("team/other", "x", manifest, "{}").len();
    let entry = |arch: &str, digest: &str| json!({"mediaType": manifest, "digest": digest, "size": size, "platform": {"os": "linux", "architecture": arch}});
    let none = format!("sha256:{}", "0".repeat(64));
    let index = |entries: Vec<serde_json::Value>| json!({"schemaVersion": 2, "manifests": entries}).to_string();
    let kind = "application/vnd.oci.image.index.v1+json";
    let top =
        registry.put_manifest("team/app", "multi", kind, index(vec![entry("s390x", &none), entry(here, &digest)]));
    let image = h.runtime.pull(&format!("{}/team/app:multi", registry.address()), None, None).await.expect("pull");
    assert_eq!(image.repo_digests, [format!("{}/team/app@{top}", registry.address())]);
    registry.put_manifest("team/app", "foreign", kind, index(vec![entry("s390x", &none)]));
    let foreign = format!("{}/team/app:foreign", registry.address());
    let error = h.runtime.pull(&foreign, None, None).await.expect_err("not for this machine");
    assert!(cause(&error).contains(here), "{error}");
}

/// Certificates for 127.0.0.1 of a CA that nobody knows.
fn pki() -> Pki {
    let names = ServerNames::default().with(["127.0.0.1"]);
    Pki::in_memory(&names, jiff::Timestamp::now()).expect("certificates")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_over_tls_is_trusted_by_the_certificate_kept_for_it() {
    if !able() {
        return;
    }
    let (ours, other) = (pki(), pki());
    let mut h = Harness::start().await;
    let registry = Registry::start_tls(&ours).await.expect("registry");
    registry.load(&busybox(), "team/app", "v1").expect("load");
    let name = format!("{}/team/app:v1", registry.address());
    let certs = h.dir.path().join("certs.d");
    let file = certs.join(registry.address()).join("ca.crt");
    std::fs::create_dir_all(file.parent().expect("directory")).expect("directory");
    h.config.registry_certs = vec![certs];
    let runtime = h.again().await;
    std::fs::write(&file, other.ca_certificate()).expect("certificate");
    let stranger = cause(&runtime.pull(&name, None, None).await.expect_err("signed by somebody else"));
    assert!(stranger.contains("certificate") && stranger.contains("certs.d"), "{stranger}");
    assert_eq!(runtime.images().await.expect("images"), []);
    std::fs::write(&file, ours.ca_certificate()).expect("certificate");
    runtime.pull(&name, None, None).await.expect("pull over TLS");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_tokens_gets_one_for_the_image() {
    if !able() {
        return;
    }
    let Case { h, registry, name, .. } = case().await;
    registry.require_token("me", "secret");
    let auth = |password: &str| RegistryAuth { username: "me".into(), password: password.into() };
    for wrong in [None, Some(auth("guess"))] {
        let error = h.runtime.pull(&name, wrong.as_ref(), None).await.expect_err("no access");
        assert!(cause(&error).contains("access denied"), "{error}");
    }
    h.runtime.pull(&name, Some(&auth("secret")), None).await.expect("with a token");
    let asked: Vec<String> = registry.requests().into_iter().filter(|r| r.contains("/token?")).collect();
    let last = asked.last().expect("a token was asked for");
    assert!(last.contains("service=test") && last.contains("scope=repository%3Ateam%2Fapp%3Apull"), "{asked:?}");
}
