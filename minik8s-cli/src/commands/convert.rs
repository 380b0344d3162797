//! `convert`: manifests of the first minik8s in today's form. Asks no cluster.

use crate::args::Convert;
use crate::manifest;
use crate::output::say;
use anyhow::{Result, bail};

pub(crate) fn run(options: &Convert) -> Result<()> {
    let manifests = manifest::read_all(&options.files.files, options.files.recursive)?;
    match options.output.as_str() {
        "yaml" => {
            for (index, manifest) in manifests.iter().enumerate() {
                if index > 0 {
                    say("---");
                }
                say(serde_saphyr::to_string(&manifest.object)?.trim_end());
            }
        }
        "json" => {
            let items: Vec<_> = manifests.into_iter().map(|manifest| manifest.object).collect();
            let shown = match <[_; 1]>::try_from(items) {
                Ok([one]) => one,
                Err(items) => serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items}),
            };
            say(&serde_json::to_string_pretty(&shown)?);
        }
        other => bail!("unknown output format {other:?}; known are yaml and json"),
    }
    Ok(())
}
