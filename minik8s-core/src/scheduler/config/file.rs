//! The shape of a configuration file, as upstream has it: `KubeSchedulerConfiguration`. What is not here is refused.

use serde::Deserialize;
use serde_json::Value;

pub(super) const API_VERSIONS: [&str; 1] = ["kubescheduler.config.k8s.io/v1"];
pub(super) const KIND: &str = "KubeSchedulerConfiguration";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    pub(super) api_version: String,
    pub(super) kind: String,
    #[serde(default)]
    pub(super) percentage_of_nodes_to_score: Option<u8>,
    #[serde(default)]
    pub(super) profiles: Vec<FileProfile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileProfile {
    #[serde(default)]
    pub(super) scheduler_name: Option<String>,
    #[serde(default)]
    pub(super) percentage_of_nodes_to_score: Option<u8>,
    #[serde(default)]
    pub(super) plugins: Points,
    #[serde(default)]
    pub(super) plugin_config: Vec<PluginConfig>,
}

/// The points at which plug-ins take part.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Points {
    #[serde(default)]
    pub(super) multi_point: Set,
    #[serde(default)]
    pub(super) filter: Set,
    #[serde(default)]
    pub(super) score: Set,
    #[serde(default)]
    pub(super) post_filter: Set,
}

/// What is added to the defaults, and what of them is left out.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Set {
    #[serde(default)]
    pub(super) enabled: Vec<Named>,
    #[serde(default)]
    pub(super) disabled: Vec<Named>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Named {
    pub(super) name: String,
    #[serde(default)]
    pub(super) weight: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PluginConfig {
    pub(super) name: String,
    #[serde(default)]
    pub(super) args: Value,
}

/// The arguments of `NodeResourcesFit`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FitArgs {
    #[serde(default, rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(default, rename = "kind")]
    _kind: Option<String>,
    #[serde(default)]
    pub(super) scoring_strategy: Option<Strategy>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Strategy {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) resources: Vec<Named>,
}
