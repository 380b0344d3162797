//! `scale`: the number of replicas.

use crate::api::{Conn, MERGE, Resources, parse_what};
use crate::args::Scale;
use crate::output::say;
use anyhow::{Result, bail};
use serde_json::json;

pub(crate) async fn run(conn: &Conn, options: &Scale) -> Result<()> {
    let known = Resources::load(conn).await?;
    for selected in parse_what(&known, &options.what)? {
        if selected.names.is_empty() {
            bail!("say which {}: {}/NAME", selected.resource.singular, selected.resource.singular);
        }
        for name in &selected.names {
            let path = selected.resource.path(&conn.namespace, Some(name)) + "/scale";
            conn.patch(&path, MERGE, &json!({"spec": {"replicas": options.replicas}})).await?;
            say(&format!("{}/{name} scaled", selected.resource.label()));
        }
    }
    Ok(())
}
