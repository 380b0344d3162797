#!/usr/bin/env bash
# The direction of dependencies: a star. core knows nobody; leaf crates know core alone; only the binary, examples and
# benchmarks name concrete backends. Each line that fails says which arrow is wrong.
set -euo pipefail
cd "$(dirname "$0")/.."
fail=0

# Names of the crates that $1 depends on in a normal build with all its features.
tree() { cargo tree --quiet -p "$1" -e normal --prefix none --all-features | awk '{print $1}' | sort -u; }

forbid() { # crate, forbidden names...
  local crate=$1 deps name
  shift
  deps=$(tree "$crate")
  [ -n "$deps" ] || { echo "guard: cargo tree -p $crate printed nothing" >&2; fail=1; return; }
  for name in "$@"; do
    if grep -qx "$name" <<<"$deps"; then
      echo "guard: $crate must not depend on $name" >&2
      fail=1
    fi
  done
}

forbid minik8s-core minik8s-runtime minik8s-net minik8s-serverless minik8s-gpu minik8s-cli \
  containerd-client rtnetlink netlink-sys openssh nix oci-client clap
for leaf in runtime net serverless gpu; do
  others=()
  for other in runtime net serverless gpu cli; do
    [ "$other" = "$leaf" ] || others+=("minik8s-$other")
  done
  forbid "minik8s-$leaf" "${others[@]}"
done
forbid minik8s-runtime rtnetlink netlink-packet-route # only the network crate speaks netlink
# Who only adds the core crate needs no protoc, and so neither of the clients that want it.
if cargo tree --quiet -p minik8s-core -e normal,build --prefix none | awk '{print $1}' | grep -qxE 'etcd-client|containerd-client'; then
  echo "guard: minik8s-core must not need protoc by default" >&2
  fail=1
fi
exit $fail
