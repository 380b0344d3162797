//! Volumes whose content comes from the API: which files, with which content and permissions.

use super::atomic::Files;
use super::{VolumeError, VolumeResult};
use crate::node::pod;
use crate::node::spec::{Facts, Sources, field, resource_field};
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, Volume, VolumeProjection};
use std::collections::BTreeMap;

const DEFAULT_MODE: u32 = 0o644;

/// Content by key.
type Content = BTreeMap<String, Vec<u8>>;

pub(super) fn files(pod: &Pod, volume: &Volume, sources: &Sources, facts: &Facts) -> VolumeResult<Files> {
    let maker = Maker { pod, volume: &volume.name, sources, facts };
    if let Some(source) = &volume.config_map {
        let content = maker.config_map(&source.name, source.optional)?;
        return maker.select(
            "ConfigMap",
            &source.name,
            content,
            source.items.as_ref(),
            mode(source.default_mode),
            source.optional,
        );
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let content = maker.secret(name, source.optional)?;
        return maker.select(
            "Secret",
            name,
            content,
            source.items.as_ref(),
            mode(source.default_mode),
            source.optional,
        );
    }
    if let Some(source) = &volume.downward_api {
        return maker.downward(source.items.as_deref().unwrap_or_default(), mode(source.default_mode));
    }
    if let Some(source) = &volume.projected {
        let mut files = Files::new();
        for part in source.sources.iter().flatten() {
            files.extend(maker.projection(part, mode(source.default_mode))?);
        }
        return Ok(files);
    }
    Err(VolumeError::Unsupported { volume: volume.name.clone(), kind: kind(volume) })
}

/// The kind of a volume, by the one field that is set.
fn kind(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let keys = value.as_object().into_iter().flat_map(|object| object.keys());
    keys.filter(|key| *key != "name").cloned().collect::<Vec<_>>().join(", ")
}

fn mode(mode: Option<i32>) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok()).map_or(DEFAULT_MODE, |mode| mode & 0o777)
}

struct Maker<'a> {
    pod: &'a Pod,
    volume: &'a str,
    sources: &'a Sources,
    facts: &'a Facts,
}

impl Maker<'_> {
    fn missing(&self, what: impl Into<String>) -> VolumeError {
        VolumeError::Missing { volume: self.volume.to_owned(), what: what.into() }
    }

    fn config_map(&self, name: &str, optional: Option<bool>) -> VolumeResult<Content> {
        match self.sources.config_maps.get(name) {
            Some(map) => {
                let text = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
                Ok(text.chain(map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()))).collect())
            }
            None if optional == Some(true) => Ok(Content::new()),
            None => Err(self.missing(format!("configmap \"{name}\" not found"))),
        }
    }

    fn secret(&self, name: &str, optional: Option<bool>) -> VolumeResult<Content> {
        match self.sources.secrets.get(name) {
            Some(secret) => Ok(secret.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect()),
            None if optional == Some(true) => Ok(Content::new()),
            None => Err(self.missing(format!("secret \"{name}\" not found"))),
        }
    }

    /// All keys, or the chosen ones under their paths.
    fn select(
        &self,
        kind: &str,
        name: &str,
        mut content: Content,
        items: Option<&Vec<KeyToPath>>,
        mode_default: u32,
        optional: Option<bool>,
    ) -> VolumeResult<Files> {
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            return Ok(content.into_iter().map(|(key, bytes)| (key, (bytes, mode_default))).collect());
        };
        let mut files = Files::new();
        for item in items {
            let mode = item.mode.map_or(mode_default, |m| mode(Some(m)));
            match content.remove(&item.key) {
                Some(bytes) => drop(files.insert(self.path(&item.path)?, (bytes, mode))),
                None if optional == Some(true) => {}
                None => return Err(self.missing(format!("{kind} \"{name}\" has no key \"{}\"", item.key))),
            }
        }
        Ok(files)
    }

    fn downward(&self, items: &[DownwardAPIVolumeFile], mode_default: u32) -> VolumeResult<Files> {
        let mut files = Files::new();
        for item in items {
            let value = if let Some(reference) = &item.field_ref {
                field(self.pod, self.facts, &reference.field_path)
            } else if let Some(selector) = &item.resource_field_ref {
                let name = selector.container_name.as_deref().unwrap_or_default();
                let (_, container) = pod::find(self.pod, name)
                    .ok_or_else(|| self.missing(format!("the pod has no container \"{name}\"")))?;
                resource_field(container, selector, &self.facts.node)
            } else {
                return Err(self.missing(format!("item \"{}\" names no field", item.path)));
            };
            let value = value.map_err(|e| self.missing(e.to_string()))?;
            let mode = item.mode.map_or(mode_default, |m| mode(Some(m)));
            files.insert(self.path(&item.path)?, (value.into_bytes(), mode));
        }
        Ok(files)
    }

    fn projection(&self, part: &VolumeProjection, mode: u32) -> VolumeResult<Files> {
        if let Some(source) = &part.config_map {
            let content = self.config_map(&source.name, source.optional)?;
            return self.select("ConfigMap", &source.name, content, source.items.as_ref(), mode, source.optional);
        }
        if let Some(source) = &part.secret {
            let content = self.secret(&source.name, source.optional)?;
            return self.select("Secret", &source.name, content, source.items.as_ref(), mode, source.optional);
        }
        if let Some(source) = &part.downward_api {
            return self.downward(source.items.as_deref().unwrap_or_default(), mode);
        }
        let kind = if part.service_account_token.is_some() {
            "projected serviceAccountToken (this cluster issues no service account tokens)"
        } else {
            "projected from an unknown source"
        };
        Err(VolumeError::Unsupported { volume: self.volume.to_owned(), kind: kind.to_owned() })
    }

    /// A path that stays below the volume and does not look like ours.
    fn path(&self, path: &str) -> VolumeResult<String> {
        let bad =
            path.is_empty() || path.starts_with('/') || path.starts_with("..") || path.split('/').any(|p| p == "..");
        if bad {
            Err(self.missing(format!("item path {path:?} must be relative and must not contain \"..\"")))
        } else {
            Ok(path.to_owned())
        }
    }
}
