//! `version`: of this program and of the cluster.

use crate::api::Conn;
use crate::args::{Args, Version};
use crate::output::say;
use anyhow::Result;

pub(crate) async fn run(args: &Args, options: &Version) -> Result<()> {
    say(&format!("minik8s  {}", env!("CARGO_PKG_VERSION")));
    if !options.client {
        let version = Conn::open(args).await?.get("/version").await?;
        say(&format!("cluster  {}", version["gitVersion"].as_str().unwrap_or("unknown")));
    }
    Ok(())
}
