//! What can be told before anything is made: missing privileges, programs and ranges, each with the way out.

use crate::args::{ControlPlane, NetworkKind, NodeOptions, RuntimeKind, StoreKind, Up};
use anyhow::{Context, Result, bail};

/// Refuses a control plane that cannot work.
pub(crate) fn check(options: &Up) -> Result<()> {
    control_plane(&options.control)?;
    let services = options.control.service_cidr;
    if let Some(pods) = options.pod_cidr.filter(|pods| pods.contains(&services) || services.contains(pods)) {
        bail!("--pod-cidr {pods} and --service-cidr {services} overlap; choose ranges that do not");
    }
    if options.without_node { Ok(()) } else { node(&options.node) }
}

/// Refuses a node that cannot work.
pub(crate) fn node(options: &NodeOptions) -> Result<()> {
    let real = options.runtime == RuntimeKind::Containerd || options.network == NetworkKind::Bridge;
    if real && !nix::unistd::geteuid().is_root() {
        bail!(
            "containers and network links need root: run it with `sudo`, or pretend with `--runtime fake --network noop`"
        );
    }
    if options.runtime == RuntimeKind::Fake && options.network == NetworkKind::Bridge {
        bail!("pretended containers have no network to join: add `--network noop`, or use `--runtime containerd`");
    }
    if options.runtime == RuntimeKind::Containerd {
        containerd(options)?;
    }
    Ok(())
}

/// Refuses an API server that cannot work.
pub(crate) fn control_plane(options: &ControlPlane) -> Result<()> {
    let ranges = options.ranges.pods().check(options.service_cidr.into());
    ranges.context("--cluster-cidr, --node-cidr-mask-size and --service-cidr do not go together")?;
    match (options.store == StoreKind::Etcd, options.etcd.etcd_endpoints.is_empty()) {
        (true, true) => bail!("--store etcd needs to know where etcd is: add --etcd-endpoints http://ADDRESS:2379"),
        (false, false) => bail!("--etcd-endpoints means nothing without --store etcd"),
        _ => Ok(()),
    }
}

fn containerd(options: &NodeOptions) -> Result<()> {
    match &options.containerd {
        Some(socket) if !socket.exists() => {
            bail!(
                "there is no containerd at {}: is it running? Without --containerd, a private one is started",
                socket.display()
            )
        }
        Some(_) => Ok(()),
        None => {
            for program in ["containerd", "runc"] {
                if !on_path(program) {
                    bail!(
                        "{program} is not installed: run scripts/setup.sh (Debian: apt-get install containerd runc), \
                         name a running containerd with --containerd SOCKET, or pretend with `--runtime fake --network noop`"
                    );
                }
            }
            Ok(())
        }
    }
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/local/bin"].map(Into::into);
    std::env::split_paths(&path).chain(system).any(|dir| dir.join(program).is_file())
}
