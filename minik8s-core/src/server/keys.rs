//! Where objects stand in the store: `/registry/<group, or core>/<plural>/<namespace>/<name>`; claims stand beside
//! them under `/registry/~claims/`.

use super::Claim;
use crate::api::Gvr;
use crate::store::Key;

/// Everything the API server keeps.
pub(crate) const ROOT: &str = "/registry/";

/// Where the CA stands that several API servers share. No object can: a resource has a name below its group.
pub(crate) const AUTHORITY: &str = "/registry/~authority";

/// Where API servers that share a store say that they live: below it, one key each, named by its address.
pub(crate) const SERVERS: &str = "/registry/~servers/";

/// The same of what is served beside them: below it, a Service's name, and one key each, named by its address.
pub(crate) const SIDECARS: &str = "/registry/~sidecars/";

/// Where all objects of a resource stand; ends in `/`.
pub(crate) fn prefix(gvr: &Gvr) -> String {
    let group = if gvr.group.is_empty() { "core" } else { &gvr.group };
    format!("{ROOT}{group}/{}/", gvr.resource)
}

/// Where one object stands; an empty namespace means a cluster-scoped one.
pub(crate) fn object(prefix: &str, namespace: &str, name: &str) -> Key {
    if namespace.is_empty() { format!("{prefix}{name}").into() } else { format!("{prefix}{namespace}/{name}").into() }
}

/// Where a claim stands.
pub(crate) fn claim(claim: &Claim) -> Key {
    format!("{ROOT}~claims/{}/{}", claim.space, claim.value).into()
}

/// The resource's part of a key, such as `/registry/core/pods/`; `None` for keys that are not objects.
pub(crate) fn resource_prefix(key: &str) -> Option<&str> {
    let rest = key.strip_prefix(ROOT)?;
    let group = rest.find('/')?;
    let plural = rest[group + 1..].find('/')?;
    Some(&key[..ROOT.len() + group + 1 + plural + 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_laid_out_by_group_resource_namespace_name() {
        let pods = prefix(&Gvr::new("", "v1", "pods"));
        assert_eq!(pods, "/registry/core/pods/");
        assert_eq!(&*object(&pods, "a", "b"), "/registry/core/pods/a/b");
        let nodes = prefix(&Gvr::new("", "v1", "nodes"));
        assert_eq!(&*object(&nodes, "", "n"), "/registry/core/nodes/n");
        assert_eq!(resource_prefix("/registry/core/pods/a/b"), Some("/registry/core/pods/"));
        assert_eq!(resource_prefix("/registry/core"), None);
        assert_eq!(resource_prefix("/other/core/pods/a"), None);
    }
}
