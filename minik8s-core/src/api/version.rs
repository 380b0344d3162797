//! Which Kubernetes this is: the version of the upstream types everything here is built with. Servers and nodes
//! report it; nothing else says a version.

use serde_json::{Value, json};

k8s_openapi::k8s_if_1_33! { const MINOR: u32 = 33; }
k8s_openapi::k8s_if_1_34! { const MINOR: u32 = 34; }
k8s_openapi::k8s_if_1_35! { const MINOR: u32 = 35; }
k8s_openapi::k8s_if_1_36! { const MINOR: u32 = 36; }
k8s_openapi::k8s_if_1_37! { const MINOR: u32 = 37; }

/// `v1.33.0+minik8s-0.1.0`: the Kubernetes API that is spoken, and by whom.
pub fn git_version() -> String {
    format!("v{}.0+minik8s-{}", minor_version(), env!("CARGO_PKG_VERSION"))
}

/// `1.33`: the Kubernetes API alone.
pub(crate) fn minor_version() -> String {
    format!("1.{MINOR}")
}

/// The body of `/version`.
pub(crate) fn version_info() -> Value {
    json!({
        "major": "1",
        "minor": MINOR.to_string(),
        "gitVersion": git_version(),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}
