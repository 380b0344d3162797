//! The parts of an image's configuration that running it needs.

use serde::Deserialize;

/// <https://github.com/opencontainers/image-spec/blob/main/config.md>; docker's own format agrees in these fields.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct ImageConfig {
    #[serde(default)]
    pub(crate) config: Execution,
    #[serde(default)]
    pub(crate) rootfs: RootFs,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Execution {
    pub(crate) user: String,
    pub(crate) working_dir: String,
    pub(crate) stop_signal: String,
    /// Docker writes `null` for "none" here and in the next two.
    pub(crate) env: Option<Vec<String>>,
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) cmd: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default)]
    pub(crate) diff_ids: Vec<String>,
}

impl ImageConfig {
    /// Names of the snapshots of the layers, each with those below it:
    /// <https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid>.
    pub(crate) fn chain_ids(&self) -> Vec<String> {
        let mut chain: Vec<String> = Vec::with_capacity(self.rootfs.diff_ids.len());
        for diff in &self.rootfs.diff_ids {
            let id = match chain.last() {
                None => diff.clone(),
                Some(below) => super::content::digest(format!("{below} {diff}").as_bytes()),
            };
            chain.push(id);
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_nulls_are_read_as_nothing() {
        let config: ImageConfig = serde_json::from_str(
            r#"{"architecture":"amd64","config":{"Env":null,"Cmd":["sh"],"Entrypoint":null},"rootfs":{"diff_ids":["sha256:a"]}}"#,
        )
        .expect("config");
        assert_eq!(config.config.cmd.as_deref(), Some(["sh".to_owned()].as_slice()));
        assert_eq!(config.chain_ids(), ["sha256:a"]);
    }

    #[test]
    fn chains_hash_the_chain_below_with_the_layer() {
        let rootfs = RootFs { diff_ids: vec!["sha256:a".into(), "sha256:b".into()] };
        let chain = ImageConfig { rootfs, ..ImageConfig::default() }.chain_ids();
        assert_eq!(chain[1], super::super::content::digest(b"sha256:a sha256:b"));
    }
}
