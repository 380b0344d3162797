//! The machine between the hosts: a bridge per subnet, and a router between them.

use super::super::inside::NetNamespace;
use super::host::Host;
use super::machine::Machine;
use super::{finish, gateway, run};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// Name of a host's port.
pub(super) fn port(host: usize) -> String {
    format!("port{host}")
}

/// Switch and router in one.
#[derive(Debug)]
pub struct Switch(Machine);

impl Switch {
    pub(super) fn start(suffix: &str, dir: &Path, subnets: usize) -> Self {
        let dir = dir.join("switch");
        std::fs::create_dir_all(&dir).expect("a directory");
        let switch = Self(Machine::boot(&format!("{suffix}-switch"), "switch", &dir));
        let mut script = "echo 1 >/proc/sys/net/ipv4/ip_forward\n".to_owned();
        for subnet in 0..subnets {
            script.push_str(&format!(
                "ip link add br{subnet} type bridge\n\
                 ip addr add {}/24 dev br{subnet}\n\
                 ip link set br{subnet} up\n",
                gateway(subnet)
            ));
        }
        switch.script(&script);
        switch
    }

    /// Joins a host that has just started, by a port that is up.
    pub(super) fn plug(&self, host: &Host, machine: &Machine) {
        let port = port(host.index);
        let here = format!(
            "ip link add {port} type veth peer name eth0 netns {}\n\
             ip link set {port} master br{} up\n",
            machine.pid(),
            host.subnet
        );
        finish(self.0.in_network("sh").args(["-ec", &here])).unwrap_or_else(|error| panic!("{here}: {error}"));
        let there = format!(
            "ip addr add {}/24 dev eth0\nip link set eth0 up\nip route add default via {}\n{}",
            host.address(),
            host.gateway(),
            wait_up("eth0")
        );
        finish(machine.command("sh").args(["-ec", &there])).unwrap_or_else(|error| panic!("{there}: {error}"));
        self.set_port(host.index, true);
    }

    /// Takes a host's link away, both ends of it.
    pub(super) fn unplug(&self, host: usize) {
        self.run(&format!("ip link del {}", port(host)));
    }

    /// A program on the switch.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.0.command(program)
    }

    /// Runs words, separated by blanks, to their end and gives what they print.
    ///
    /// # Panics
    /// Where they fail.
    pub fn run(&self, words: &str) -> String {
        run(|program| self.command(program), words)
    }

    /// Its network, to enter with threads of the test.
    pub fn network(&self) -> NetNamespace {
        self.0.network()
    }

    pub(super) fn set_port(&self, host: usize, up: bool) {
        let port = port(host);
        self.script(&if up {
            format!("ip link set {port} up\n{}", wait_up(&port))
        } else {
            format!("ip link set {port} down")
        });
    }

    /// Drops what goes from the first to the second host of any of the pairs, whether bridged or routed: where a packet
    /// came in is noted in its mark, and looked at where it goes out.
    pub(super) fn block(&self, pairs: &[(usize, usize)]) {
        let mut sources: Vec<usize> = pairs.iter().map(|(from, _)| *from).collect();
        sources.dedup();
        let marks = sources.iter().map(|from| format!("iifname {} meta mark set {}\n", port(*from), from + 1));
        let drops = pairs.iter().map(|(from, to)| format!("oifname {} meta mark {} drop\n", port(*to), from + 1));
        let rules = format!(
            "table bridge partition\n\
             delete table bridge partition\n\
             table bridge partition {{\n\
             chain in {{ type filter hook prerouting priority -300; {} }}\n\
             chain out {{ type filter hook postrouting priority 0; {} }}\n\
             }}\n",
            marks.collect::<String>(),
            drops.collect::<String>()
        );
        finish(self.command("nft").arg(rules)).unwrap_or_else(|error| panic!("partition: {error}"));
    }

    fn script(&self, script: &str) {
        finish(self.command("sh").args(["-ec", script])).unwrap_or_else(|error| panic!("{script}: {error}"));
    }
}

/// The kernel notices a carrier in its own time, within a second.
fn wait_up(link: &str) -> String {
    format!("until ip link show dev {link} | grep -q 'state UP'; do sleep 0.01; done\n")
}
