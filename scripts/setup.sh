#!/usr/bin/env bash
# Installs what a build, a test or the demo needs and this machine lacks. Touches nothing that is present.
#   scripts/setup.sh          install the missing Debian packages (needs root only where something is missing)
#   scripts/setup.sh --check  only say what is missing; exit 1 where something is
set -euo pipefail

check_only=false
[ "${1:-}" = --check ] && check_only=true

# program:Debian package that brings it
needs=(
  "containerd:containerd"    # runs the containers (the project starts its own private instance)
  "runc:runc"                # what containerd starts them with
  "nft:nftables"             # only to look at rules in tests; the network speaks netlink itself
  "ip:iproute2"              # only to look at links in tests and in the demo, and to make hosts for tests
  "nsenter:util-linux"       # only for tests, with unshare and setpriv: several hosts on one machine
  "protoc:protobuf-compiler" # a build dependency of the containerd and etcd clients
  "etcd:etcd-server"         # only for tests, which start their own on free ports
  "kill:procps"              # only for tests, which end what they started
  "cc:gcc"                   # the linker, and the C parts of the TLS library
  "g++:g++"                  # only for tests: what compiles the CUDA example needs it
  "nginx:nginx-light"        # only what benchmarks compare the gateway with; tests start none
  "wrk:wrk"                  # only the client of that benchmark
  "python3:python3"          # only for tests: calls by twenty at once, and what a function is called with
  "pip3:python3-pip"         # only for tests: how the compiler of the CUDA example is fetched
  "node:nodejs"              # only for tests: what functions of JavaScript are served with
  "curl:curl"                # only for tests: a client of the gateway's TLS that is not ours
  "make:make"
  "tmux:tmux"                # only for tests: the terminal that a live screen is looked at in
  "prometheus:prometheus"    # only for tests, which start their own on a free port
  "ssh:openssh-client"       # how clusters with Slurm are reached
  "sshd:openssh-server"      # this and the next four only for tests, which start their own Slurm on loopback
  "slurmctld:slurmctld"
  "slurmd:slurmd"
  "sbatch:slurm-client"
  "munged:munge"
)

have() { PATH="$PATH:/usr/sbin:/sbin:/usr/local/bin" command -v "$1" >/dev/null 2>&1; }

missing=()
for need in "${needs[@]}"; do
  have "${need%%:*}" || missing+=("${need#*:}")
done
# A static busybox is what test and demo images are made of; a dynamic one would not start in an empty root.
busybox_static() {
  local b
  for b in /bin/busybox /usr/bin/busybox; do
    [ -x "$b" ] && ! ldd "$b" >/dev/null 2>&1 && return 0
  done
  return 1
}
busybox_static || missing+=(busybox-static)
# The compiler's package only recommends the headers of the C library.
[ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
# For typing along, any kubectl will do; where there is none, Debian's. Tests want 1.32 or newer and say so where they
# skip for it; Debian 12's is older.
have kubectl || missing+=(kubernetes-client)

if ! have cargo; then
  echo "setup: no cargo on the search path. Install Rust 1.95 or newer (https://rustup.rs), then run this again." >&2
  exit 1
fi

# Base images of functions are made of Debian packages that are fetched by name, for which apt needs its lists.
lists=true
if have apt-cache && ! apt-cache show python3-minimal >/dev/null 2>&1; then
  lists=false
fi

if [ "${#missing[@]}" -eq 0 ]; then
  $lists && exit 0
  if $check_only; then
    echo "setup: apt has no lists of packages: apt-get update" >&2
    exit 1
  fi
  # Only tests of functions want them: somebody without root can do all else.
  if [ "$(id -u)" -ne 0 ]; then
    echo "setup: apt has no lists of packages, from which base images of functions are made: sudo apt-get update" >&2
    exit 0
  fi
  apt-get update -qq
  exit 0
fi

install=(apt-get install -y --no-install-recommends "${missing[@]}")
if $check_only; then
  echo "setup: missing: ${missing[*]}" >&2
  exit 1
fi
if ! have apt-get; then
  echo "setup: missing: ${missing[*]} (Debian package names), and this machine has no apt-get: install them its own way." >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "setup: missing packages. Run this, then try again:" >&2
  echo "  sudo apt-get update && sudo ${install[*]}" >&2
  exit 1
fi

echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get update && "${install[@]}"; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "setup: apt-get failed, see above. The command was: ${install[*]}" >&2
  exit 1
fi
# Debian starts an etcd, an nginx and others of its own as services; nothing here uses those.
for service in etcd:etcd-server nginx:nginx-light prometheus:prometheus ssh:openssh-server slurmctld:slurmctld \
  slurmd:slurmd munge:munge; do
  if [[ " ${missing[*]} " == *" ${service#*:} "* ]] && [ -d /run/systemd/system ]; then
    systemctl disable --now "${service%%:*}" >/dev/null 2>&1 || true
  fi
done
