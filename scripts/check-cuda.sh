#!/usr/bin/env bash
# Checks the CUDA sources of the examples on a machine without a graphics processor. Their kernels are run as threads of the
# processor, at sizes that fit their blocks and sizes that do not; then the compiler makes code of them for several generations,
# with warnings as errors, and a whole program, which must say by itself that there is no driver.
#   scripts/check-cuda.sh             compile
#   scripts/check-cuda.sh --install   see to it that there is a compiler: fetch one from PyPI (125 MB) where there is none
#   scripts/check-cuda.sh --find      say where it is; exit 1 where there is none
set -euo pipefail
cd "$(dirname "$0")/.."

# Pieces of one release: the compiler, its parts, and the library that programs are linked with.
pieces=(nvidia-cuda-nvcc==13.5.37 nvidia-cuda-crt==13.5.37 nvidia-nvvm==13.5.37 nvidia-cuda-runtime==13.5.37)
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/minik8s/cuda-13.5.37

find_nvcc() {
  command -v nvcc && return
  [ -x "$cache/nvidia/cu13/bin/nvcc" ] && echo "$cache/nvidia/cu13/bin/nvcc"
}

install_nvcc() {
  find_nvcc >/dev/null && return
  local new
  mkdir -p "$(dirname "$cache")"
  new=$(mktemp -d "$cache.XXXXXX")
  if ! python3 -m pip install --root-user-action=ignore --quiet --disable-pip-version-check --no-deps --target "$new" "${pieces[@]}"; then
    rm -rf "$new"
    echo "check-cuda: no compiler could be fetched: it takes python3 with pip, and PyPI" >&2
    return 1
  fi
  chmod +x "$new"/nvidia/cu13/bin/* "$new"/nvidia/cu13/nvvm/bin/*
  # Where another was faster, theirs is as good.
  mv -T "$new" "$cache" 2>/dev/null || rm -rf "$new"
}

case ${1:-} in
  --find) find_nvcc; exit ;;
  --install) install_nvcc; exit ;;
  '') ;;
  *) sed -n 's/^#   //p' "$0" >&2; exit 2 ;;
esac

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for source in examples/gpu/*/*.cu; do
  # A launch is the only thing that is no C++.
  sed -E 's/([a-z_]+)<<<(.+)>>>\((.*)\);/launch(\2, [=] { \1(\3); });/' "$source" >"$out/threads.cpp"
  g++ -std=c++20 -O1 -pthread -Wall -Wextra -Werror -include scripts/cuda-on-threads.h -I"$(dirname "$source")" -o "$out/threads" "$out/threads.cpp"
  for size in 1 16 33 100; do (cd "$out" && ./threads "$size"); done
done

nvcc=$(find_nvcc) || { echo "check-cuda: there is no nvcc: scripts/check-cuda.sh --install" >&2; exit 1; }
for source in examples/gpu/*/*.cu; do
  for generation in sm_75 sm_80 sm_90 sm_100; do
    "$nvcc" -O2 -arch="$generation" -Werror all-warnings -cubin -o "$out/code" "$source"
    echo "$source for $generation: $(stat -c %s "$out/code") bytes"
  done
  "$nvcc" -O2 -Werror all-warnings -o "$out/program" "$source"
  if [ -e /dev/nvidiactl ]; then (cd "$out" && ./program 256); continue; fi
  code=0
  said=$("$out/program" 16 2>&1) || code=$?
  case $code,$said in
    3,*driver*) echo "$source as a program: $said" ;;
    *) echo "check-cuda: $source without a driver ended with $code and said: $said" >&2; exit 1 ;;
  esac
done
