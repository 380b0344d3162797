#!/usr/bin/env bash
# The demo: an image from local parts, a cluster, a Deployment behind a Service, two containers sharing a volume, every
# replica called by address and by name from a pod and from the host, a container killed and healed, everything gone.
# Uses its own data directory and address ranges; leaves the machine as it found it, also when it fails half-way.
set -euo pipefail
cd "$(dirname "$0")/../.."

bin=${MINIK8S_BIN:-target/debug/minik8s}
pods=${DEMO_POD_CIDR:-10.244.0.0/24}
services=${DEMO_SERVICE_CIDR:-10.96.0.0/16}
began=$(date +%s%N)

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' off=$'\e[0m'; else bold='' dim='' off=''; fi
seconds() { awk -v a="$began" -v b="$(date +%s%N)" 'BEGIN { printf "%.1f", (b - a) / 1e9 }'; }
step() { printf '%s\n' "${bold}[$(seconds) s]${off} $*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
run() { printf '%s\n' "${dim}\$ minik8s $*${off}"; "$bin" "$@"; }

[ -x "$bin" ] || fail "$bin is not built: run \`make demo\`"
[ "$(id -u)" -eq 0 ] || fail "containers and network links need root. All is built; run: sudo examples/demo/run.sh"

dir=$(mktemp -d /tmp/minik8s-demo.XXXXXX)
export MINIK8S_DATA_DIR=$dir/data KUBECONFIG=$dir/data/admin.kubeconfig
server=

cleanup() {
  local code=$?
  trap - EXIT INT TERM
  if [ -n "$server" ] && kill -0 "$server" 2>/dev/null; then
    kill -TERM "$server"
    wait "$server" || true
  fi
  "$bin" down --purge >"$dir/down.log" 2>&1 || { cat "$dir/down.log" >&2; code=1; }
  if [ "$code" -ne 0 ] && [ -f "$dir/up.log" ]; then
    echo "demo: failed; the cluster's last words were:" >&2
    tail -n 30 "$dir/up.log" >&2
  fi
  rm -rf "$dir"
  exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# Waits with progress shown: until WHAT SECONDS COMMAND...
until_true() {
  local what=$1 limit=$2 waited=0
  shift 2
  printf '  %s ' "$what"
  until "$@" >/dev/null 2>&1; do
    waited=$((waited + 1))
    [ "$waited" -le $((limit * 5)) ] || { echo; fail "gave up after $limit s waiting: $what"; }
    [ $((waited % 5)) -eq 0 ] && printf '.'
    sleep 0.2
  done
  printf ' ok\n'
}

step "an image from local parts"
# busybox serves and bash calls (through /dev/tcp, so that no other client is needed), with the libraries bash wants.
mkdir -p "$dir/image/bin" "$dir/image/www" "$dir/image/tmp" "$dir/image/etc"
cp "$(command -v busybox)" "$dir/image/bin/busybox"
for applet in sh httpd hostname sleep cat mkdir; do ln -s busybox "$dir/image/bin/$applet"; done
cp -L "$(command -v bash)" "$dir/image/bin/bash"
for library in $(ldd "$(command -v bash)" | grep -o '/[^ ]*'); do
  mkdir -p "$dir/image$(dirname "$library")"
  cp -L "$library" "$dir/image$library"
done
cat >"$dir/image/bin/fetch" <<'FETCH'
#!/bin/bash
# fetch HOST PORT: the body of http://HOST:PORT/
exec 3<>"/dev/tcp/$1/$2" || exit 1
printf 'GET / HTTP/1.0\r\nHost: %s\r\n\r\n' "$1" >&3
while read -r -t 2 line <&3 && [ "${line%$'\r'}" != "" ]; do :; done
cat <&3
FETCH
chmod 755 "$dir/image/bin/fetch"
printf 'root:x:0:0:root:/:/bin/sh\n' >"$dir/image/etc/passwd"
run image build "$dir/image" --tag localhost/minik8s-demo:latest

step "a cluster"
"$bin" up --listen 127.0.0.1:0 --pod-cidr "$pods" --service-cidr "$services" >"$dir/up.out" 2>"$dir/up.log" &
server=$!
ready() { kill -0 "$server" || fail "the cluster ended: $(tail -n 3 "$dir/up.log")"; grep -q '^ready ' "$dir/up.out"; }
until_true "waiting for the cluster" 30 ready
cat "$dir/up.out"

step "a Deployment of three behind a Service, and a pod of two containers with a shared volume"
run apply -f examples/demo/web.yaml -f examples/demo/shared.yaml
run rollout status deploy/web --timeout 60
pod_ready() { [ "$("$bin" get pod shared -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = True ]; }
until_true "waiting for pod shared" 30 pod_ready
run get nodes,deployments,pods,services,endpointslices -o wide

step "every replica answers: by address and by name, from a pod and from the host"
names=$("$bin" get pods -l app=web -o 'jsonpath={range .items[*]}{.metadata.name}{"\n"}{end}' | sort)
address=$("$bin" get service web -o 'jsonpath={.spec.clusterIP}')
dns=$("$bin" exec shared -c reader -- cat /etc/resolv.conf | awk '/^nameserver/ { print $2; exit }')
from_host() { timeout 3 "$dir/image/bin/fetch" "$1" "${2:-80}"; }
from_pod() { timeout 5 "$bin" exec shared -c reader -- fetch "$1" "${2:-80}"; }
host_name() { busybox nslookup -type=a web.default.svc.cluster.local "$dns" | awk '/^Address/ { a = $NF } END { print a }'; }
all_answer() { # how, where
  local seen='' answer
  for _ in $(seq 1 60); do
    answer=$("$1" "$2") || continue
    seen=$(printf '%s\n%s' "$seen" "$answer" | sed '/^$/d' | sort -u)
    [ "$seen" = "$names" ] && return 0
  done
  printf 'answered: %s\n' "$(tr '\n' ' ' <<<"$seen")" >&2
  return 1
}
named=$(host_name)
[ "$named" = "$address" ] || fail "the cluster's DNS says $named for web, the Service has $address"
for how in "from_pod:$address:ClusterIP $address, from a pod" "from_pod:web:name web, from a pod" \
  "from_host:$address:ClusterIP $address, from the host" "from_host:$named:name web.default.svc.cluster.local, from the host"; do
  IFS=: read -r call where words <<<"$how"
  all_answer "$call" "$where" || fail "not every replica answered: $words"
  printf '  %s: all three answered\n' "$words"
done
shared=$("$bin" get pod shared -o 'jsonpath={.status.podIP}')
printf '  the shared volume says: %s\n' "$(from_host "$shared" 8080)"

step "a container is killed, and heals"
victim=$(head -n 1 <<<"$names")
restarts() { "$bin" get pod "$victim" -o 'jsonpath={.status.containerStatuses[0].restartCount}'; }
# A process that is number 1 in its namespace is safe from its own kind: kill it from outside, found by its cgroup.
uid=$("$bin" get pod "$victim" -o 'jsonpath={.metadata.uid}')
pid=$(grep -l "$uid" /proc/[0-9]*/cgroup 2>/dev/null | head -n 1 | cut -d/ -f3)
[ -n "$pid" ] || fail "no process of pod $victim found"
kill -9 "$pid"
healed() { [ "$(restarts)" -ge 1 ] && [ "$("$bin" get deploy web -o 'jsonpath={.status.availableReplicas}')" = 3 ]; }
until_true "waiting for $victim to heal" 30 healed
run get pods
all_answer from_host "$address" || fail "not every replica answered after healing"

step "everything goes"
run delete -f examples/demo/web.yaml -f examples/demo/shared.yaml
kill -TERM "$server"
wait "$server" || fail "the cluster did not stop cleanly"
server=
run down --purge
left=$(ip -o link | grep -c 'mk8s' || true)
[ "$left" = 0 ] || fail "links were left behind: $(ip -o link | grep mk8s)"
! grep -q "$dir" /proc/mounts || fail "mounts were left behind: $(grep "$dir" /proc/mounts)"

printf '%s\n' "${bold}shown in $(seconds) s: an image built, 3 replicas behind a Service (by address and by name, from a pod and from the host), a shared volume, a container healed, everything taken down${off}"
