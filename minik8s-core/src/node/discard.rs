//! Taking images off a node: for companions, who know what was only wanted for a while. That nothing on the node needs an
//! image is seen here.

use super::context::Context;
use crate::runtime::{ContainerInfo, ImageInfo, RuntimeResult};
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

/// The images of a node, for its companions. Cheap to clone.
#[derive(Clone)]
pub struct NodeImages(Arc<Context>);

impl NodeImages {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self(context)
    }

    /// Takes a name off an image (its content goes with its last one), unless a pod of this node names it, spelled as here,
    /// or a container was made of it. True where there is no image of that name any more. A pod that comes meanwhile waits,
    /// and fetches the image again.
    ///
    /// # Errors
    /// Those of the runtime; the image may be there or not.
    pub async fn discard(&self, name: &str) -> RuntimeResult<bool> {
        let lock = self.0.pulls.of(name);
        let _turn = lock.lock().await;
        let Some(image) = self.0.runtime.image(name).await? else { return Ok(true) };
        let containers = self.0.runtime.containers(None).await?;
        // After the containers: what is being made of it has a pod.
        let pods = self.0.pods.all();
        if is_made_of(name, &image, &containers) || pods.iter().any(|handle| names(&handle.pod(), name)) {
            return Ok(false);
        }
        self.0.runtime.remove_image(name).await?;
        Ok(true)
    }
}

/// True where a container needs the name: it was made under it, or under one that the image does not have any more.
fn is_made_of(name: &str, image: &ImageInfo, containers: &[ContainerInfo]) -> bool {
    let others: Vec<&String> = image.names.iter().chain(&image.repo_digests).filter(|other| *other != name).collect();
    let needs = |c: &ContainerInfo| c.image == name || (c.image_id == image.id && !others.contains(&&c.image));
    containers.iter().any(needs)
}

/// True where a container of the pod is to be made of the image.
fn names(pod: &Pod, image: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let usual = spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|c| &c.image);
    let later = spec.ephemeral_containers.iter().flatten().map(|c| &c.image);
    usual.chain(later).any(|named| named.as_deref() == Some(image))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn containers_need_the_name_they_were_made_under_or_the_last_one() {
        let image = |names: &[&str]| ImageInfo {
            id: "sha256:1".into(),
            repo_digests: names.iter().map(ToString::to_string).collect(),
            ..ImageInfo::default()
        };
        let (one, two) = (image(&["r/f@sha256:a"]), image(&["r/f@sha256:a", "r/g@sha256:a"]));
        let table = [
            (&one, "r/f@sha256:a", "sha256:1", true),
            (&one, "other", "sha256:2", false),
            // Under a name that was taken off, or an id.
            (&one, "r/g@sha256:a", "sha256:1", true),
            (&one, "sha256:1", "sha256:1", true),
            // Made under the other name, which is there.
            (&two, "r/g@sha256:a", "sha256:1", false),
            (&two, "r/f@sha256:a", "sha256:1", true),
        ];
        for (image, made_of, id, want) in table {
            let container = ContainerInfo { image: made_of.into(), image_id: id.into(), ..ContainerInfo::default() };
            assert_eq!(is_made_of("r/f@sha256:a", image, &[container]), want, "{made_of} {id} {image:?}");
        }
        assert!(!is_made_of("r/f@sha256:a", &one, &[]));
    }

    #[test]
    fn pods_name_images_in_containers_of_every_kind() {
        let of = |field: &str| -> Pod {
            serde_json::from_value(json!({"spec": {"containers": [], field: [{"name": "c", "image": "r/f:1"}]}}))
                .unwrap()
        };
        for field in ["containers", "initContainers", "ephemeralContainers"] {
            assert!(names(&of(field), "r/f:1") && !names(&of(field), "r/f:2"), "{field}");
        }
        assert!(!names(&Pod::default(), "r/f:1"));
    }
}
