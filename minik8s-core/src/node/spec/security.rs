//! Who a container's process is: the container's own words win over the pod's.

use crate::node::pod;
use crate::runtime::Security;
use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext};

pub(super) fn security(pod: &Pod, container: &Container) -> Security {
    let whole = pod::spec(pod).security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let privileged = own.privileged.unwrap_or(false);
    let capabilities = own.capabilities.unwrap_or_default();
    Security {
        user: own.run_as_user.or(whole.run_as_user),
        group: own.run_as_group.or(whole.run_as_group),
        supplemental_groups: groups(&whole),
        privileged,
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: own.allow_privilege_escalation == Some(false) && !privileged,
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        run_as_non_root: own.run_as_non_root.or(whole.run_as_non_root).unwrap_or(false),
    }
}

fn groups(whole: &PodSecurityContext) -> Vec<i64> {
    let mut groups = whole.supplemental_groups.clone().unwrap_or_default();
    groups.extend(whole.fs_group.filter(|group| !groups.contains(group)));
    groups
}

/// The group that owns the pod's volumes.
pub(crate) fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod::spec(pod).security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_wins_over_the_pod() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "securityContext": {"runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000, "runAsNonRoot": true,
                "supplementalGroups": [4000]},
            "containers": [{"name": "a"}, {"name": "b", "securityContext": {"runAsUser": 5, "runAsNonRoot": false,
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}}]}}))
        .unwrap();
        let of = |i: usize| security(&pod, &pod::spec(&pod).containers[i]);
        let (a, b) = (of(0), of(1));
        assert_eq!((a.user, a.group, a.run_as_non_root), (Some(1000), Some(2000), true));
        assert_eq!(a.supplemental_groups, [4000, 3000]);
        assert_eq!((b.user, b.group, b.run_as_non_root), (Some(5), Some(2000), false));
        assert!(b.no_new_privileges && b.read_only_root && !b.privileged);
        assert_eq!((b.add_capabilities, b.drop_capabilities), (vec!["NET_ADMIN".to_owned()], vec!["ALL".to_owned()]));
    }
}
