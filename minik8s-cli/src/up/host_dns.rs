//! Lets this machine itself find the names of its cluster: the cluster's name server becomes the machine's first one. No
//! name is written anywhere; what the cluster does not know is passed on to the servers that were there before.

use super::record::Record;
use crate::args::{Dns, HostSetup};
use crate::output::say;
use anyhow::{Context, Result, bail};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

/// Stands before our line.
const MARK: &str = "# minik8s dns host-setup";
/// Where systemd-resolved keeps its socket and files.
const RESOLVED: &str = "/run/systemd/resolve";

/// Runs one of the commands about names.
pub(crate) async fn dns(command: &Dns) -> Result<()> {
    match command {
        Dns::Resolve { data, name } => resolve(&data.data_dir, name).await,
        Dns::HostSetup(options) => setup(options),
    }
}

/// The cluster's name server on this machine.
fn server(data: &Path) -> Result<Ipv4Addr> {
    let record = Record::read(data)?.with_context(|| format!("no cluster of {} runs here", data.display()))?;
    let pods = record.pod_cidr.context("the cluster has not given this machine addresses for pods yet")?;
    Ok(super::parts::name_server(pods, data))
}

async fn resolve(data: &Path, name: &str) -> Result<()> {
    let server = SocketAddr::from((server(data)?, 53));
    let found = minik8s_net::lookup(server, name).await;
    let found = found.with_context(|| format!("the cluster's name server {server} does not know {name}"))?;
    if found.is_empty() {
        bail!("the cluster's name server {server} knows no address of {name}");
    }
    found.iter().for_each(|address| say(&address.to_string()));
    Ok(())
}

fn setup(options: &HostSetup) -> Result<()> {
    let file = &options.resolv_conf;
    let before = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let after = if options.undo { without(&before) } else { with(&before, server(&options.data.data_dir)?) };
    if Path::new(RESOLVED).exists() && before.contains("127.0.0.53") {
        bail!(
            "systemd-resolved answers on this machine: run `resolvectl dns LINK {}` and `resolvectl domain LINK '~DOMAIN'` \
             for the bridge of the cluster instead, which last as long as the bridge",
            server(&options.data.data_dir)?
        );
    }
    if options.dry_run {
        say(after.trim_end());
        return Ok(());
    }
    if after != before {
        // In place: the file may be a mount.
        std::fs::write(file, &after).with_context(|| format!("cannot write {}; are you root?", file.display()))?;
    }
    Ok(())
}

/// Takes the line of a cluster that goes out of this machine's configuration, where it is in.
pub(super) fn undo(record: &Record, data: &Path) {
    let file = Path::new("/etc/resolv.conf");
    let (Some(pods), Ok(before)) = (record.pod_cidr, std::fs::read_to_string(file)) else { return };
    let ours = before.contains(&format!("{MARK}\nnameserver {}\n", super::parts::name_server(pods, data)));
    let after = without(&before);
    if ours && let Err(error) = std::fs::write(file, after) {
        tracing::warn!(%error, "cannot take the cluster's name server out of /etc/resolv.conf");
    }
}

fn with(text: &str, server: Ipv4Addr) -> String {
    format!("{MARK}\nnameserver {server}\n{}", without(text))
}

/// Without our lines; everything else stays, whoever wrote it.
fn without(text: &str) -> String {
    let mut lines = text.split_inclusive('\n');
    let mut out = String::new();
    while let Some(line) = lines.next() {
        if line.trim_end() == MARK {
            lines.next();
        } else {
            out.push_str(line);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_and_doing_it_twice_changes_nothing() {
        let before = "search lan\nnameserver 192.0.2.1\noptions ndots:1\n";
        let server = Ipv4Addr::new(10, 244, 0, 1);
        let once = with(before, server);
        assert_eq!(once, format!("{MARK}\nnameserver 10.244.0.1\n{before}"));
        assert_eq!(with(&once, server), once);
        assert_eq!(without(&format!("{once}nameserver 192.0.2.2\n")), format!("{before}nameserver 192.0.2.2\n"));
        assert_eq!(without(before), before);
    }
}
