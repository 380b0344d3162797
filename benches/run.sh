#!/bin/sh
# Builds all benchmarks and runs them one after the other; with names as arguments, only those.
set -eu
cd "$(dirname "$0")/.."
# What others are measured by: Debian's packages.
for need in iptables-restore:iptables dnsperf:dnsperf; do
    command -v "${need%%:*}" >/dev/null || apt-get install -y --no-install-recommends "${need#*:}" >/dev/null
done
cargo build --release -p minik8s-cli -p minik8s-benches --bins
for source in benches/src/bin/*.rs; do
    name=$(basename "$source" .rs)
    case " ${*:-$name} " in *" $name "*) "target/release/$name" ;; esac
done
