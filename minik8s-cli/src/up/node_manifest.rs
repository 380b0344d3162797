//! What a user says of this machine's node: labels and taints by flag, or all of it by a manifest of kind Node.

use super::parts::host_name;
use crate::args::NodeOptions;
use crate::manifest;
use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::core::v1::{Node, Taint};
use minik8s_core::node::NodeConfig;

/// The node's name: by flag, by manifest, or the machine's.
pub(super) fn name(options: &NodeOptions) -> Result<String> {
    let written = read(options)?.and_then(|node| node.metadata.name);
    match (&options.node_name, written) {
        (Some(flag), Some(written)) if *flag != written => {
            bail!("--node-name {flag} contradicts --node-manifest, which says {written}; leave one of them out")
        }
        (flag, written) => Ok(flag.clone().or(written).unwrap_or_else(host_name)),
    }
}

fn read(options: &NodeOptions) -> Result<Option<Node>> {
    let Some(path) = &options.node_manifest else { return Ok(None) };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let all = manifest::parse(&path.display().to_string(), &text)?;
    manifest::tell(&all);
    let [one] = all.as_slice() else {
        bail!("{} must hold one manifest of kind Node, not {}", path.display(), all.len())
    };
    if one.kind() != "Node" {
        bail!("{} holds a {}, not a Node", path.display(), one.kind());
    }
    let node = serde_json::from_value(one.object.clone());
    node.map(Some).with_context(|| format!("{} is not a valid Node", path.display()))
}

/// Brings labels and taints into the configuration; flags come after the manifest.
pub(super) fn apply(options: &NodeOptions, config: &mut NodeConfig) -> Result<()> {
    if let Some(node) = read(options)? {
        config.labels.extend(node.metadata.labels.unwrap_or_default());
        config.annotations.extend(node.metadata.annotations.unwrap_or_default());
        config.taints.extend(node.spec.and_then(|spec| spec.taints).unwrap_or_default());
    }
    for label in &options.node_label {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        if key.is_empty() {
            bail!("--node-label {label:?} has no key: write KEY=VALUE");
        }
        config.labels.insert(key.to_owned(), value.to_owned());
    }
    for text in &options.node_taint {
        config.taints.push(taint(text)?);
    }
    Ok(())
}

fn taint(text: &str) -> Result<Taint> {
    let wrong =
        || anyhow!("--node-taint {text:?} is no taint: write KEY[=VALUE]:EFFECT, as in dedicated=gpu:NoSchedule");
    let (rest, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
    let (key, value) = rest.split_once('=').map_or((rest, None), |(key, value)| (key, Some(value.to_owned())));
    if key.is_empty() || !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err(wrong());
    }
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_read_as_kubectl_writes_them() {
        let read = taint("dedicated=gpu:NoSchedule").unwrap();
        assert_eq!(
            (read.key.as_str(), read.value.as_deref(), read.effect.as_str()),
            ("dedicated", Some("gpu"), "NoSchedule")
        );
        assert_eq!(taint("a:NoExecute").unwrap().value, None);
        for wrong in ["a", "a=b", ":NoSchedule", "a:Never"] {
            assert!(taint(wrong).is_err(), "{wrong}");
        }
    }
}
