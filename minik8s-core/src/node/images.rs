//! Images of containers: when to fetch them, with which credentials, and what went wrong in the API's words.

use super::context::Context;
use super::pod;
use crate::runtime::{ImageInfo, RegistryAuth, RuntimeError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// One lock per image, so that pods that start together fetch it once.
#[derive(Default)]
pub(crate) struct PullLocks(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl PullLocks {
    /// The lock of an image: whoever fetches it or takes it off the node holds that.
    pub(crate) fn of(&self, image: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.lock();
        locks.retain(|name, lock| name == image || Arc::strong_count(lock) > 1);
        locks.entry(image.to_owned()).or_default().clone()
    }
}

/// A try to start a container that failed: reason and message of the waiting state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StartError {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl StartError {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// What is asked for; else images whose name may mean something new each time are always fetched.
fn policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        Some("Never") => PullPolicy::Never,
        _ => {
            let image = container.image.as_deref().unwrap_or_default();
            let last = image.rsplit('/').next().unwrap_or_default();
            let fixed = image.contains('@') || last.split_once(':').is_some_and(|(_, tag)| tag != "latest");
            if fixed { PullPolicy::IfNotPresent } else { PullPolicy::Always }
        }
    }
}

/// Makes sure the container's image is here.
pub(crate) async fn ensure(
    context: &Context,
    pod: &Pod,
    container: &Container,
    secrets: &[Arc<Secret>],
) -> Result<ImageInfo, StartError> {
    let image = container.image.as_deref().unwrap_or_default();
    let policy = policy(container);
    let lock = context.pulls.of(image);
    let _turn = lock.lock().await;
    if policy != PullPolicy::Always {
        let here = context.runtime.image(image).await.map_err(|e| refused(image, &e))?;
        if let Some(info) = here {
            context.normal(pod, "Pulled", format!("Container image \"{image}\" already present on machine"));
            return Ok(info);
        }
    }
    if policy == PullPolicy::Never {
        let message = format!("Container image \"{image}\" is not present with pull policy of Never");
        context.warning(pod, "ErrImageNeverPull", message.clone());
        return Err(StartError::new("ErrImageNeverPull", message));
    }
    context.normal(pod, "Pulling", format!("Pulling image \"{image}\""));
    let auth = credentials(image, secrets);
    let started = tokio::time::Instant::now();
    match context.runtime.pull(image, auth.as_ref(), None).await {
        Ok(info) => {
            let note = format!("Successfully pulled image \"{image}\" in {:.3?}", started.elapsed());
            context.normal(pod, "Pulled", note);
            Ok(info)
        }
        Err(error) => {
            context.warning(pod, "Failed", format!("Failed to pull image \"{image}\": {error}"));
            tracing::info!(pod = pod::key(pod), image, %error, "cannot pull");
            Err(refused(image, &error))
        }
    }
}

fn refused(image: &str, error: &RuntimeError) -> StartError {
    match error {
        RuntimeError::InvalidImageName { .. } => {
            StartError::new("InvalidImageName", format!("Failed to apply default image tag \"{image}\": {error}"))
        }
        _ => StartError::new("ErrImagePull", error.to_string()),
    }
}

/// The registry of an image, as credentials name it.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

/// The credentials for an image among pull secrets.
pub(crate) fn credentials(image: &str, secrets: &[Arc<Secret>]) -> Option<RegistryAuth> {
    let registry = registry(image);
    let fits = |key: &str| {
        let host = key.trim_start_matches("https://").trim_start_matches("http://").split('/').next().unwrap_or(key);
        host == registry || (registry == "docker.io" && matches!(host, "index.docker.io" | "registry-1.docker.io"))
    };
    secrets.iter().find_map(|secret| {
        let auths = auths(secret)?;
        auths.as_object()?.iter().find(|(key, _)| fits(key)).and_then(|(_, entry)| login(entry))
    })
}

fn auths(secret: &Secret) -> Option<Value> {
    let data = secret.data.as_ref()?;
    if let Some(config) = data.get(".dockerconfigjson") {
        return serde_json::from_slice::<Value>(&config.0).ok()?.get("auths").cloned();
    }
    serde_json::from_slice(&data.get(".dockercfg")?.0).ok()
}

fn login(entry: &Value) -> Option<RegistryAuth> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    if let (Some(username), Some(password)) = (text("username"), text("password")) {
        return Some(RegistryAuth { username, password });
    }
    let decoded = String::from_utf8(STANDARD.decode(text("auth")?).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some(RegistryAuth { username: username.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policies_default_by_the_tag() {
        for (image, asked, want) in [
            ("nginx", None, PullPolicy::Always),
            ("nginx:latest", None, PullPolicy::Always),
            ("nginx:1.25", None, PullPolicy::IfNotPresent),
            ("localhost:5000/nginx", None, PullPolicy::Always),
            ("nginx@sha256:00", None, PullPolicy::IfNotPresent),
            ("nginx", Some("Never"), PullPolicy::Never),
        ] {
            let container = Container {
                image: Some(image.into()),
                image_pull_policy: asked.map(str::to_owned),
                ..Container::default()
            };
            assert_eq!(policy(&container), want, "{image}");
        }
    }

    #[test]
    fn credentials_are_those_of_the_registry() {
        let config = json!({"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"},
            "reg.example:5000": {"username": "a", "password": "b"}}});
        let data = json!({".dockerconfigjson": STANDARD.encode(config.to_string())});
        let secret: Arc<Secret> = Arc::new(serde_json::from_value(json!({"data": data})).unwrap());
        let of = |image: &str| {
            credentials(image, std::slice::from_ref(&secret)).map(|a| format!("{}:{}", a.username, a.password))
        };
        assert_eq!(of("nginx:1").as_deref(), Some("u:p"));
        assert_eq!(of("reg.example:5000/x").as_deref(), Some("a:b"));
        assert_eq!(of("other.example/x"), None);
    }
}
