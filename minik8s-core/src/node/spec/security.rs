//! Who a container's process is: the container's own words win over the pod's.

use super::ConfigError;
use crate::node::pod;
use crate::runtime::{Seccomp, Security};
use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SeccompProfile};
use std::path::{Component, Path};

/// What this node does with system calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeccompRules<'a> {
    /// Where profiles of type `Localhost` lie.
    pub(crate) profiles: &'a Path,
    /// Who names no profile gets the runtime's instead of none.
    pub(crate) by_default: bool,
}

pub(super) fn security(pod: &Pod, container: &Container, rules: SeccompRules<'_>) -> Result<Security, ConfigError> {
    let whole = pod::spec(pod).security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let privileged = own.privileged.unwrap_or(false);
    let capabilities = own.capabilities.unwrap_or_default();
    let profile = own.seccomp_profile.as_ref().or(whole.seccomp_profile.as_ref());
    Ok(Security {
        seccomp: if privileged { Seccomp::Unconfined } else { seccomp(profile, rules)? },
        strict_groups: whole.supplemental_groups_policy.as_deref() == Some("Strict"),
        user: own.run_as_user.or(whole.run_as_user),
        group: own.run_as_group.or(whole.run_as_group),
        supplemental_groups: groups(&whole),
        privileged,
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: own.allow_privilege_escalation == Some(false) && !privileged,
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        run_as_non_root: own.run_as_non_root.or(whole.run_as_non_root).unwrap_or(false),
    })
}

fn seccomp(profile: Option<&SeccompProfile>, rules: SeccompRules<'_>) -> Result<Seccomp, ConfigError> {
    let Some(profile) = profile else {
        return Ok(if rules.by_default { Seccomp::RuntimeDefault } else { Seccomp::Unconfined });
    };
    match profile.type_.as_str() {
        "Unconfined" => Ok(Seccomp::Unconfined),
        "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
        "Localhost" => {
            let name = Path::new(profile.localhost_profile.as_deref().unwrap_or_default());
            let inside = name.components().count() > 0 && name.components().all(|c| matches!(c, Component::Normal(_)));
            if inside {
                return Ok(Seccomp::Profile(rules.profiles.join(name)));
            }
            let place = rules.profiles.display();
            Err(ConfigError::new(format!("seccomp profile {name:?} is not a path below {place}")))
        }
        other => Err(ConfigError::new(format!("seccomp profile of unknown type {other:?}"))),
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
    fn profiles_are_the_containers_then_the_pods_then_the_nodes() {
        let rules = |by_default| SeccompRules { profiles: Path::new("/p"), by_default };
        let of = |whole: serde_json::Value, own: serde_json::Value, by_default| {
            let pod: Pod = serde_json::from_value(json!({"spec": {"securityContext": whole,
                "containers": [{"name": "a", "securityContext": own}]}}))
            .unwrap();
            security(&pod, &pod::spec(&pod).containers[0], rules(by_default))
                .map(|s| s.seccomp)
                .map_err(|e| e.to_string())
        };
        let profile = |kind: &str| json!({"seccompProfile": {"type": kind}});
        let local = |path: &str| json!({"seccompProfile": {"type": "Localhost", "localhostProfile": path}});
        assert_eq!(of(json!({}), json!({}), false), Ok(Seccomp::Unconfined));
        assert_eq!(of(json!({}), json!({}), true), Ok(Seccomp::RuntimeDefault));
        assert_eq!(of(profile("RuntimeDefault"), json!({}), false), Ok(Seccomp::RuntimeDefault));
        assert_eq!(of(profile("RuntimeDefault"), profile("Unconfined"), true), Ok(Seccomp::Unconfined));
        assert_eq!(of(json!({}), json!({"privileged": true}), true), Ok(Seccomp::Unconfined));
        assert_eq!(of(json!({}), local("a/b.json"), false), Ok(Seccomp::Profile("/p/a/b.json".into())));
        for outside in ["../x", "/etc/x", ""] {
            assert!(of(json!({}), local(outside), false).unwrap_err().contains("/p"), "{outside}");
        }
    }

    #[test]
    fn the_container_wins_over_the_pod() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "securityContext": {"runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000, "runAsNonRoot": true,
                "supplementalGroups": [4000]},
            "containers": [{"name": "a"}, {"name": "b", "securityContext": {"runAsUser": 5, "runAsNonRoot": false,
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}}]}}))
        .unwrap();
        let rules = SeccompRules { profiles: Path::new("/p"), by_default: false };
        let of = |i: usize| security(&pod, &pod::spec(&pod).containers[i], rules).unwrap();
        let (a, b) = (of(0), of(1));
        assert_eq!((a.user, a.group, a.run_as_non_root), (Some(1000), Some(2000), true));
        assert_eq!(a.supplemental_groups, [4000, 3000]);
        assert_eq!((b.user, b.group, b.run_as_non_root), (Some(5), Some(2000), false));
        assert!(b.no_new_privileges && b.read_only_root && !b.privileged);
        assert_eq!((b.add_capabilities, b.drop_capabilities), (vec!["NET_ADMIN".to_owned()], vec!["ALL".to_owned()]));
    }
}
