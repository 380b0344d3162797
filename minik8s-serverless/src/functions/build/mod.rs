//! Building is layering: the user's files become one layer on a base image, and that is all. There is no daemon and
//! nothing is run; what only running shows (code that cannot be loaded) is shown by the first instance.

pub mod layer;

use super::api::{FunctionRevision, FunctionSpec};
use crate::registry::image::{Descriptor, LAYER, MANIFEST, Manifest};
use crate::registry::{HOST, Registry, RegistryError};
use layer::{ArchiveError, Layer};
use serde_json::{Value, json};

/// What serves calls of Python functions: a plain file.
pub const PYTHON_SHIM: &str = include_str!("../shim/shim.py");
/// The same for JavaScript.
pub const NODE_SHIM: &str = include_str!("../shim/shim.mjs");

/// Why a revision cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The source was never uploaded, or is not here.
    #[error("the files {0} are not in the registry: upload them with `minik8s function update NAME -f DIR`")]
    NoSource(String),
    /// What it is laid on is not here.
    #[error("the base image {0} is not in the registry: add it with `minik8s function base {0} -f ARCHIVE`")]
    NoBase(String),
    /// The files.
    #[error("the archive is no good: {0}")]
    Archive(#[from] ArchiveError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl BuildError {
    /// Trying again would not help.
    pub fn is_hopeless(&self) -> bool {
        matches!(self, BuildError::Archive(error) if !matches!(error, ArchiveError::Unreadable(_)))
            || matches!(self, BuildError::Archive(ArchiveError::Unreadable(error)) if error.kind() != std::io::ErrorKind::NotFound)
    }
}

/// How a runtime's files are run.
struct Runtime {
    ending: &'static str,
    shim: (&'static str, &'static str),
    command: &'static [&'static str],
    base: &'static str,
}

fn runtime(name: &str) -> Runtime {
    match name {
        "node" => Runtime {
            ending: "mjs",
            shim: ("minik8s/shim.mjs", NODE_SHIM),
            command: &["node", "/minik8s/shim.mjs"],
            base: "base/node:latest",
        },
        _ => Runtime {
            ending: "py",
            shim: ("minik8s/shim.py", PYTHON_SHIM),
            command: &["python3", "-u", "/minik8s/shim.py"],
            base: "base/python:latest",
        },
    }
}

/// The base image of a function, as `REPOSITORY:TAG` of the registry.
fn base_of(spec: &FunctionSpec) -> String {
    let named = spec.image.strip_prefix(HOST).map_or(spec.image.as_str(), |rest| rest.trim_start_matches('/'));
    let named = if named.is_empty() { runtime(&spec.runtime).base } else { named };
    if named.rsplit('/').next().is_some_and(|last| last.contains(':')) {
        named.to_owned()
    } else {
        format!("{named}:latest")
    }
}

/// Makes a revision's image; returns its name, with its digest.
///
/// # Errors
/// [`BuildError`].
pub async fn build(registry: &Registry, revision: &FunctionRevision) -> Result<String, BuildError> {
    let spec = &revision.spec.template;
    let source = spec.source.clone().unwrap_or_default();
    let base_name = base_of(spec);
    let (repository, tag) = base_name.rsplit_once(':').unwrap_or((&base_name, "latest"));
    let no_base = |_| BuildError::NoBase(base_name.clone());
    let base = registry.resolve(repository, tag).await.map_err(no_base)?;
    let base = Manifest::parse(&registry.read(&base).await?).ok_or_else(|| BuildError::NoBase(base_name.clone()))?;
    let config = registry.read(&base.config.clone().unwrap_or_default().digest).await.map_err(no_base)?;
    registry.size(&source.digest).await.map_err(|_| BuildError::NoSource(source.digest.clone()))?;
    let layer = lay(registry, &source.digest, spec).await?;
    let config = configured(&config, spec, &layer);
    let config = Descriptor {
        media_type: "application/vnd.oci.image.config.v1+json".to_owned(),
        size: config.len() as u64,
        digest: registry.put(config).await?,
        ..Descriptor::default()
    };
    let mut layers = base.layers;
    let (digest, size) = (layer.digest, layer.size);
    layers.push(Descriptor { media_type: LAYER.to_owned(), digest, size, ..Descriptor::default() });
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST.to_owned(),
        config: Some(config),
        layers,
        ..Manifest::default()
    };
    let digest = registry.put(serde_json::to_vec(&manifest).unwrap_or_default()).await?;
    let namespace = revision.metadata.namespace.as_deref().unwrap_or_default();
    Ok(format!("{HOST}/functions/{namespace}/{}@{digest}", revision.spec.function))
}

async fn lay(registry: &Registry, source: &str, spec: &FunctionSpec) -> Result<Layer, BuildError> {
    let archive = registry.path(source)?;
    let (id, runtime) = (registry.begin().await?, runtime(&spec.runtime));
    let (to, handler) = (registry.upload_path(&id)?, spec.handler.clone());
    let made = tokio::task::spawn_blocking(move || {
        let (place, text) = runtime.shim;
        let layer = layer::write(&archive, &[(place, text.as_bytes())], &to)?;
        layer::check_handler(&layer, &handler, runtime.ending).map(|()| layer)
    });
    let made = made.await.unwrap_or_else(|error| Err(std::io::Error::other(error).into()));
    match made {
        Ok(layer) => {
            registry.finish(&id, &layer.digest).await?;
            Ok(layer)
        }
        Err(error) => {
            registry.cancel(&id).await;
            Err(error.into())
        }
    }
}

/// The base's configuration, with one more layer and the shim as its entry point.
fn configured(base: &[u8], spec: &FunctionSpec, layer: &Layer) -> Vec<u8> {
    let mut config: Value = serde_json::from_slice(base).unwrap_or_else(|_| json!({}));
    config["config"]["Entrypoint"] = json!(runtime(&spec.runtime).command);
    config["config"]["Cmd"] = Value::Null;
    config["config"]["WorkingDir"] = json!(format!("/{}", layer::PLACE));
    if let Some(layers) = config.pointer_mut("/rootfs/diff_ids").and_then(Value::as_array_mut) {
        layers.push(layer.digest.clone().into());
    }
    if let Some(config) = config.as_object_mut() {
        config.remove("history");
    }
    serde_json::to_vec(&config).unwrap_or_default()
}
