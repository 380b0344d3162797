#!/usr/bin/env bash
# Makes a base image for functions from Debian packages, without any registry: an OCI archive for
# `minik8s function base NAME -f ARCHIVE`. Usage: scripts/function-base.sh python|node OUT.tar [MINIK8S]
# Needs apt-get (with its lists, see scripts/setup.sh) and dpkg-deb; no root.
set -euo pipefail
kind=${1:?python or node} out=$(realpath -m "${2:?where the archive goes}") minik8s=${3:-minik8s}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case $kind in
  # With pip, as the wheel that Debian has of it: it installs what functions require while they are built.
  python) wanted=(python3-minimal libpython3-stdlib) alone=(python3-pip-whl ca-certificates) run=/usr/bin/python3 ;;
  node) wanted=(nodejs) alone=(ca-certificates) run=/usr/bin/node ;;
  *) echo "there is no base called $kind: python or node" >&2; exit 1 ;;
esac
# What the lists have, whatever is installed on this machine: that may come from elsewhere.
: >"$work/installed"
echo "Dir::State::status \"$work/installed\"; Dir::Cache::pkgcache \"\"; Dir::Cache::srcpkgcache \"\";" >"$work/apt.conf"
export APT_CONFIG=$work/apt.conf
# All that these need, but nothing that is only recommended, and nothing of what a container does not have anyway.
mapfile -t packages < <(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
  --no-replaces --no-enhances "${wanted[@]}" | grep -E '^[a-z0-9]' | grep -vE ':i386$|^(dpkg|debconf|perl|tar|install-info|cdebconf|debianutils|adduser|passwd|init-system-helpers)' | sort -u)
mkdir -p "$work/debs" "$work/root/tmp" "$work/root/etc"
(cd "$work/debs" && apt-get -o APT::Sandbox::User=root -qq download "${packages[@]}" "${alone[@]}")
for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
rm -rf "$work"/root/usr/share/{doc,man,locale,lintian,bug,perl,info} "$work"/root/usr/lib/python3*/test
[ -x "$work/root$run" ] || [ -L "$work/root$run" ] || { echo "$run did not come with ${packages[*]}" >&2; exit 1; }
echo 'root:x:0:0::/root:/bin/sh
nobody:x:65534:65534::/nonexistent:/bin/false' >"$work/root/etc/passwd"
# As its own script would do.
mkdir -p "$work/root/etc/ssl/certs"
cat "$work"/root/usr/share/ca-certificates/mozilla/*.crt >"$work/root/etc/ssl/certs/ca-certificates.crt"
# What is compiled here is not compiled at each start.
if [ "$kind" = python ] && command -v python3 >/dev/null; then
  version=$(basename "$(readlink -f "$work/root$run")")
  host=$(command -v "$version" || true)
  [ -z "$host" ] || "$host" -m compileall -q -s "$work/root" "$work"/root/usr/lib/python3.*/ >/dev/null 2>&1 || true
fi
chmod 1777 "$work/root/tmp"
"$minik8s" image build "$work/root" -t "base/$kind:latest" -o "$out" --env PYTHONDONTWRITEBYTECODE=1 \
  --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
