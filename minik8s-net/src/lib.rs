//! Networks for minik8s: bridge, addresses, service rules in nftables, cluster DNS.
