//! Building is layering: the user's files become one layer on a base image, and that is all. There is no daemon and
//! nothing is run; what only running shows (code that cannot be loaded) is shown by the first instance. Only where the
//! files say what is to be installed does something run, in a pod: what that sends is a layer, too.

mod error;
pub mod layer;

pub use error::BuildError;

use super::api::{FunctionRevision, FunctionSpec};
use super::objects;
use crate::registry::image::{Descriptor, LAYER, MANIFEST, Manifest};
use crate::registry::{HOST, Registry, RegistryError};
use k8s_openapi::api::core::v1::EnvVar;
use layer::{ArchiveError, Layer};
use serde_json::{Value, json};
use std::path::Path;

/// What serves calls of Python functions: a plain file.
pub const PYTHON_SHIM: &str = include_str!("../shim/shim.py");
/// The same for JavaScript.
pub const NODE_SHIM: &str = include_str!("../shim/shim.mjs");
/// What installs requirements, in a pod: a plain file.
const INSTALLER: &str = include_str!("install.py");
/// Label of an image: what was installed for it.
const PACKAGES_KEY: &str = "io.minik8s.packages";
/// Where it is in the image that installs.
const INSTALLER_PLACE: &str = "minik8s/install.py";

/// How a runtime's files are run.
struct Runtime {
    ending: &'static str,
    shim: (&'static str, &'static str),
    command: &'static [&'static str],
    base: &'static str,
    /// The file that says what is to be installed.
    requirements: Option<&'static str>,
}

fn runtime(name: &str) -> Runtime {
    match name {
        "node" => Runtime {
            ending: "mjs",
            shim: ("minik8s/shim.mjs", NODE_SHIM),
            command: &["node", "/minik8s/shim.mjs"],
            base: "base/node:latest",
            requirements: None,
        },
        _ => Runtime {
            ending: "py",
            shim: ("minik8s/shim.py", PYTHON_SHIM),
            command: &["python3", "-u", "/minik8s/shim.py"],
            base: "base/python:latest",
            requirements: Some("requirements.txt"),
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

/// What a revision is made of, before anything is installed.
pub struct Laid<'a> {
    registry: &'a Registry,
    revision: &'a FunctionRevision,
    base: Manifest,
    config: Vec<u8>,
    source: Layer,
    /// What was installed would be the same where this is.
    key: String,
}

/// What was installed.
pub enum Packages<'a> {
    /// As an archive that has not been looked at.
    Archive(&'a Path),
    /// As it lies in an image already.
    Layer(Layer),
}

/// Lays the user's files on the base.
///
/// # Errors
/// [`BuildError`].
pub async fn lay<'a>(registry: &'a Registry, revision: &'a FunctionRevision) -> Result<Laid<'a>, BuildError> {
    let spec = &revision.spec.template;
    let digest = spec.source.clone().unwrap_or_default().digest;
    let base_name = base_of(spec);
    let (repository, tag) = base_name.rsplit_once(':').unwrap_or((&base_name, "latest"));
    let no_base = |error: RegistryError| match error {
        RegistryError::Missing(_) => BuildError::NoBase(base_name.clone()),
        other => other.into(),
    };
    let found = registry.resolve(repository, tag).await.map_err(no_base)?;
    let base = Manifest::parse(&registry.load(&found).await?).ok_or_else(|| BuildError::NoBase(base_name.clone()))?;
    let config = registry.load(&base.config.clone().unwrap_or_default().digest).await.map_err(no_base)?;
    registry.find(&digest).await.map_err(|error| match error {
        RegistryError::Missing(_) => BuildError::NoSource(digest.clone()),
        other => other.into(),
    })?;
    let archive = registry.path(&digest)?;
    let (runtime, handler) = (runtime(&spec.runtime), spec.handler.clone());
    let (place, text) = runtime.shim;
    let source = written(registry, move |to| {
        let layer = layer::write(&archive, layer::SOURCE, &[(place, text.as_bytes())], to)?;
        layer::check_handler(&layer, &handler, runtime.ending).map(|()| layer)
    });
    let source = source.await?;
    let settings: Vec<&EnvVar> = of_installing(spec).collect();
    let key = json!([found, digest, settings]).to_string();
    Ok(Laid { registry, revision, base, config, source, key: crate::registry::digest(key.as_bytes()) })
}

/// What of a function's environment holds where its requirements are installed, such as `PIP_INDEX_URL`.
pub(super) fn of_installing(spec: &FunctionSpec) -> impl Iterator<Item = &EnvVar> {
    spec.env.iter().filter(|var| var.name.starts_with("PIP_"))
}

impl Laid<'_> {
    /// Whether the files say that something is to be installed.
    pub fn requires(&self) -> bool {
        let file = runtime(&self.revision.spec.template.runtime).requirements;
        file.is_some_and(|file| self.source.files.contains(file))
    }

    /// The image that instances run, with what was installed; returns its name, with its digest.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn image(&self, packages: Option<Packages<'_>>) -> Result<String, BuildError> {
        let packages = match packages {
            None => return self.put(std::slice::from_ref(&self.source), None).await,
            Some(Packages::Layer(layer)) => layer,
            Some(Packages::Archive(archive)) => {
                let archive = archive.to_owned();
                let layer = written(self.registry, move |to| layer::write(&archive, layer::PACKAGES, &[], to));
                layer.await.map_err(BuildError::of_packages)?
            }
        };
        self.put(&[packages, self.source.clone()], Some(&self.key)).await
    }

    /// What was installed for an image that was made before, if it would be the same for this one.
    pub async fn packages_of(&self, image: &str) -> Option<Layer> {
        let (_, digest) = image.rsplit_once('@')?;
        let manifest = Manifest::parse(&self.registry.load(digest).await.ok()?)?;
        let config: Value = serde_json::from_slice(&self.registry.load(&manifest.config?.digest).await.ok()?).ok()?;
        if config.pointer("/config/Labels")?.get(PACKAGES_KEY)?.as_str()? != self.key {
            return None;
        }
        // Below the user's files.
        let found = manifest.layers.iter().rev().nth(1)?;
        let size = self.registry.find(&found.digest).await.ok()?;
        Some(Layer { digest: found.digest.clone(), size, ..Layer::default() })
    }

    /// The image of the pod that installs what is required.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn installer(&self) -> Result<String, BuildError> {
        let script = layer::plain(&[(INSTALLER_PLACE, INSTALLER.as_bytes())]).map_err(ArchiveError::from)?;
        let size = script.len() as u64;
        let script = Layer { digest: self.registry.put(script).await?, size, ..Layer::default() };
        self.put(&[self.source.clone(), script], None).await
    }

    /// An image of the base and these layers.
    async fn put(&self, layers: &[Layer], key: Option<&str>) -> Result<String, BuildError> {
        let config = configured(&self.config, &self.revision.spec.template, layers, key);
        let config = Descriptor {
            media_type: "application/vnd.oci.image.config.v1+json".to_owned(),
            size: config.len() as u64,
            digest: self.registry.put(config).await?,
            ..Descriptor::default()
        };
        let descriptor = |layer: &Layer| Descriptor {
            media_type: LAYER.to_owned(),
            digest: layer.digest.clone(),
            size: layer.size,
            ..Descriptor::default()
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            config: Some(config),
            layers: self.base.layers.iter().cloned().chain(layers.iter().map(descriptor)).collect(),
            ..Manifest::default()
        };
        let digest = self.registry.put(serde_json::to_vec(&manifest).unwrap_or_default()).await?;
        let namespace = self.revision.metadata.namespace.as_deref().unwrap_or_default();
        Ok(format!("{}@{digest}", objects::repository(namespace, &self.revision.spec.function)))
    }
}

/// The command of the pod that installs what is required.
pub(super) fn install_command() -> [String; 3] {
    ["python3".to_owned(), "-u".to_owned(), format!("/{INSTALLER_PLACE}")]
}

/// A layer that is written to a file of the registry.
async fn written(
    registry: &Registry,
    write: impl FnOnce(&Path) -> Result<Layer, ArchiveError> + Send + 'static,
) -> Result<Layer, BuildError> {
    let id = registry.begin().await?;
    let to = registry.upload_path(&id)?;
    let made = tokio::task::spawn_blocking(move || write(&to)).await;
    match made.unwrap_or_else(|error| Err(std::io::Error::other(error).into())) {
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

/// The base's configuration, with more layers and the shim as its entry point.
fn configured(base: &[u8], spec: &FunctionSpec, layers: &[Layer], key: Option<&str>) -> Vec<u8> {
    let mut config: Value = serde_json::from_slice(base).unwrap_or_else(|_| json!({}));
    if let Some(key) = key {
        config["config"]["Labels"][PACKAGES_KEY] = json!(key);
    }
    config["config"]["Entrypoint"] = json!(runtime(&spec.runtime).command);
    config["config"]["Cmd"] = Value::Null;
    config["config"]["WorkingDir"] = json!(format!("/{}", layer::PLACE));
    if let Some(known) = config.pointer_mut("/rootfs/diff_ids").and_then(Value::as_array_mut) {
        known.extend(layers.iter().map(|layer| Value::from(layer.digest.clone())));
    }
    if let Some(config) = config.as_object_mut() {
        config.remove("history");
    }
    serde_json::to_vec(&config).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A registry with a base, and what was uploaded: a file of Python, and requirements.
    async fn registry(directory: &Path) -> (Registry, String) {
        let registry = Registry::open(directory).unwrap();
        let config = json!({"config": {"Env": ["A=b"]}, "rootfs": {"type": "layers", "diff_ids": []}});
        let config = registry.put(config.to_string().into_bytes()).await.unwrap();
        let config = Some(Descriptor { digest: config, ..Descriptor::default() });
        let base = Manifest { schema_version: 2, config, ..Manifest::default() };
        let base = registry.put(serde_json::to_vec(&base).unwrap()).await.unwrap();
        registry.tag("base/python", "latest", &base).await.unwrap();
        let files: [(&str, &[u8]); 2] = [("main.py", b"x"), ("requirements.txt", b"y")];
        let source = registry.put(layer::plain(&files).unwrap()).await.unwrap();
        (registry, source)
    }

    fn revision(source: &str, env: Value) -> FunctionRevision {
        let template = json!({"runtime": "python", "handler": "main.main", "source": {"digest": source}, "env": env});
        serde_json::from_value(json!({"metadata": {"name": "f-1", "namespace": "n"},
            "spec": {"function": "f", "template": template}}))
        .unwrap()
    }

    async fn layers(registry: &Registry, image: &str) -> Vec<String> {
        let manifest = registry.read(image.rsplit_once('@').unwrap().1).await.unwrap();
        let manifest = Manifest::parse(&manifest).unwrap();
        let config: Value =
            serde_json::from_slice(&registry.read(&manifest.config.unwrap().digest).await.unwrap()).unwrap();
        let ids = config["rootfs"]["diff_ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned());
        let layers: Vec<String> = manifest.layers.into_iter().map(|layer| layer.digest).collect();
        assert_eq!(ids.collect::<Vec<_>>(), layers, "layers are not compressed");
        layers
    }

    #[tokio::test]
    async fn what_was_installed_lies_below_the_code_and_serves_again_where_it_would_be_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let (registry, source) = registry(directory.path()).await;
        let plain = revision(&source, json!([]));
        let laid = lay(&registry, &plain).await.unwrap();
        assert!(laid.requires());
        let files: [(&str, &[u8]); 1] = [("usr/local/lib/greet.py", b"z")];
        let archive = directory.path().join("sent.tar");
        std::fs::write(&archive, layer::plain(&files).unwrap()).unwrap();
        let image = laid.image(Some(Packages::Archive(&archive))).await.unwrap();
        let made = layers(&registry, &image).await;
        assert_eq!((made.len(), &made[1]), (2, &laid.source.digest));
        let found = laid.packages_of(&image).await.expect("the very same requirements");
        assert_eq!(laid.image(Some(Packages::Layer(found))).await.unwrap(), image);
        // What instances see makes no difference, what pip sees does.
        for (name, same) in [("A", true), ("PIP_INDEX_URL", false)] {
            let other = revision(&source, json!([{"name": name, "value": "x"}]));
            let other = lay(&registry, &other).await.unwrap().packages_of(&image).await;
            assert_eq!(other.is_some(), same, "{name}");
        }
        let without = laid.image(None).await.unwrap();
        assert_eq!(layers(&registry, &without).await, made[1..]);
        assert!(laid.packages_of(&without).await.is_none());
        let installer = laid.installer().await.unwrap();
        assert_eq!(layers(&registry, &installer).await[0], made[1]);
    }
}
