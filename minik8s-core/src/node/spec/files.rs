//! The files of names every container gets: `/etc/hosts` and `/etc/resolv.conf`.

use super::sandbox::{fqdn, hostname};
use crate::network::DnsConfig;
use crate::node::pod;
use k8s_openapi::api::core::v1::Pod;
use std::fmt::Write;
use std::net::IpAddr;

/// The kernel's resolvers read no more of each.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;

/// `/etc/hosts`; pods in the host's network start from the host's own file.
pub(crate) fn hosts_file(pod: &Pod, ips: &[IpAddr], host_file: Option<&str>, domain: &str) -> String {
    let mut text = match host_file {
        Some(host) => format!("# The host's file, managed by the node agent\n{}\n", host.trim_end()),
        None => "# Managed by the node agent\n\
                 127.0.0.1\tlocalhost\n\
                 ::1\tlocalhost ip6-localhost ip6-loopback\n\
                 fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
            .to_owned(),
    };
    if host_file.is_none() {
        let name = hostname(pod);
        for ip in ips {
            let _ = match fqdn(pod, domain) {
                Some(full) => writeln!(text, "{ip}\t{full}\t{name}"),
                None => writeln!(text, "{ip}\t{name}"),
            };
        }
    }
    let aliases = pod::spec(pod).host_aliases.iter().flatten();
    for (index, alias) in aliases.enumerate() {
        if index == 0 {
            text.push_str("\n# Entries added by HostAliases.\n");
        }
        let _ = writeln!(text, "{}\t{}", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t"));
    }
    text
}

/// `/etc/resolv.conf` by the pod's DNS policy; `host` is the host's own file.
pub(crate) fn resolv_conf(pod: &Pod, dns: &DnsConfig, host: &str) -> String {
    let spec = pod::spec(pod);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirst" => spec.host_network != Some(true),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut conf = match policy {
        "None" => Conf::default(),
        _ if cluster && !dns.servers.is_empty() => Conf::of_cluster(pod, dns, host),
        _ => Conf::parse(host),
    };
    if let Some(own) = &spec.dns_config {
        conf.add(own);
    }
    conf.text()
}

#[derive(Default)]
struct Conf {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl Conf {
    fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().map(str::to_owned)),
                Some("search") => conf.searches = words.map(str::to_owned).collect(),
                Some("options") => conf.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        conf
    }

    fn of_cluster(pod: &Pod, dns: &DnsConfig, host: &str) -> Self {
        let (namespace, domain) = (pod::namespace(pod), &dns.domain);
        let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        searches.extend(Self::parse(host).searches);
        let servers = dns.servers.iter().map(ToString::to_string).collect();
        Self { servers, searches, options: vec!["ndots:5".to_owned()] }
    }

    fn add(&mut self, own: &k8s_openapi::api::core::v1::PodDNSConfig) {
        let merge = |into: &mut Vec<String>, more: &Option<Vec<String>>| {
            for item in more.iter().flatten() {
                if !into.contains(item) {
                    into.push(item.clone());
                }
            }
        };
        merge(&mut self.servers, &own.nameservers);
        merge(&mut self.searches, &own.searches);
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            let text = option.value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}:{value}"));
            self.options.retain(|there| there.split(':').next() != Some(&name));
            self.options.push(text);
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for server in self.servers.iter().take(MAX_SERVERS) {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.searches.is_empty() {
            let some: Vec<&str> = self.searches.iter().take(MAX_SEARCHES).map(String::as_str).collect();
            let _ = writeln!(text, "search {}", some.join(" "));
        }
        if !self.options.is_empty() {
            let _ = writeln!(text, "options {}", self.options.join(" "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HOST: &str = "nameserver 1.1.1.1\nsearch corp.example\noptions edns0\n";

    fn conf(spec: serde_json::Value) -> String {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"namespace": "ns"}, "spec": spec})).unwrap();
        let dns = DnsConfig { servers: vec!["10.96.0.10".parse().unwrap()], domain: "cluster.local".into() };
        resolv_conf(&pod, &dns, HOST)
    }

    #[test]
    fn resolv_conf_follows_the_policy() {
        let cluster = "nameserver 10.96.0.10\nsearch ns.svc.cluster.local svc.cluster.local cluster.local corp.example\noptions ndots:5\n";
        assert_eq!(conf(json!({"containers": []})), cluster);
        assert_eq!(conf(json!({"containers": [], "hostNetwork": true})), HOST);
        assert_eq!(
            conf(json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"})),
            cluster
        );
        assert_eq!(conf(json!({"containers": [], "dnsPolicy": "Default"})), HOST);
        let own = json!({"nameservers": ["9.9.9.9"], "searches": ["x"], "options": [{"name": "ndots", "value": "2"}]});
        assert_eq!(
            conf(json!({"containers": [], "dnsPolicy": "None", "dnsConfig": own})),
            "nameserver 9.9.9.9\nsearch x\noptions ndots:2\n"
        );
    }

    #[test]
    fn hosts_names_the_pod_and_its_aliases() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {
            "hostname": "h", "subdomain": "sub", "containers": [],
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}}))
        .unwrap();
        let text = hosts_file(&pod, &["10.0.0.7".parse().unwrap()], None, "cluster.local");
        assert!(text.contains("127.0.0.1\tlocalhost\n"));
        assert!(text.contains("10.0.0.7\th.sub.ns.svc.cluster.local\th\n"), "{text}");
        assert!(text.contains("1.2.3.4\ta\tb\n"));
    }
}
