//! Names of what the agent makes: container ids and the labels it finds again after a restart.

use crate::runtime::{ContainerInfo, Labels};
use sha2::{Digest, Sha256};

/// Label: namespace of the pod.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label: name of the pod.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label: uid of the pod.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label: name of the container in the pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Label: how often the container was started before.
pub const ATTEMPT: &str = "io.kubernetes.container.restartCount";
/// Label: how many short lives in a row precede this one; the back-off's memory.
pub const BACKOFF_STEP: &str = "minik8s.io/backoff-step";
/// Label: image as the pod spells it, to notice a change.
pub const IMAGE: &str = "minik8s.io/image";

/// The longest id container runtimes take.
const MAX_ID: usize = 76;

/// The id of one life of a container: `<uid>-<container>-<attempt>`. The attempt stands last, after the last dash, so
/// no two containers share an id; a name too long for runtimes is cut and told apart by a digest.
pub(crate) fn container_id(uid: &str, container: &str, attempt: u32) -> String {
    let plain = format!("{uid}-{container}-{attempt}");
    if plain.len() <= MAX_ID {
        return plain;
    }
    let digest = Sha256::digest(container);
    let digest: String = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    let room = MAX_ID.saturating_sub(uid.len() + digest.len() + 3 + attempt.to_string().len());
    let start = container.get(..room.min(container.len())).unwrap_or_default().trim_end_matches(['-', '.']);
    let separator = if start.is_empty() { "" } else { "-" };
    format!("{uid}-{start}{separator}{digest}-{attempt}")
}

/// The name of a container in its pod.
pub(crate) fn name(info: &ContainerInfo) -> &str {
    info.labels.get(CONTAINER_NAME).map_or("", String::as_str)
}

pub(crate) fn attempt(info: &ContainerInfo) -> u32 {
    number(&info.labels, ATTEMPT)
}

pub(crate) fn backoff_step(info: &ContainerInfo) -> u32 {
    number(&info.labels, BACKOFF_STEP)
}

fn number(labels: &Labels, key: &str) -> u32 {
    labels.get(key).and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0b8fbd7b-7a6b-4c3a-9a30-1a3f0e6b2d11";

    #[test]
    fn ids_are_readable_and_distinct() {
        assert_eq!(container_id(UID, "web", 2), format!("{UID}-web-2"));
        assert_ne!(container_id(UID, "a", 10), container_id(UID, "a-1", 0));
        let long = |end: char| format!("{}{end}", "x".repeat(62));
        let (a, b) = (container_id(UID, &long('a'), 0), container_id(UID, &long('b'), 0));
        assert_ne!(a, b);
        assert!(a.len() <= MAX_ID && b.len() <= MAX_ID, "{a}");
        let dashes = container_id(UID, &format!("{}-{}", "y".repeat(22), "-".repeat(40)), 7);
        assert!(!dashes.contains("--") && dashes.ends_with("-7"), "{dashes}");
    }
}
