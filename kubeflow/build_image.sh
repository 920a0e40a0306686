#!/usr/bin/env bash
# Builds the image where there is no docker: buildah, on a Debian 13 unpacked from Debian's own archive.
#
#   sudo kubeflow/build_image.sh NAME:TAG [cpu|cuda|tpu]
#
# No registry is asked for the base, which is kept as localhost/byol-base:13 and used again. The working tree is built
# as it is, .dockerignore aside. It needs root, buildah, debootstrap and about 15 GB; a certificate and an index that
# pip was told of here are used in the build and are not in the image.
set -euo pipefail

fail() {
    echo "build_image.sh: $*" >&2
    exit 1
}

[[ "${1:-}" == *:* && "${1##*:}" != latest ]] ||
    fail "usage: build_image.sh NAME:TAG [cpu|cuda|tpu]; a tag that says which build it is, not latest; received '${1:-}'"
[ "$(id -u)" = 0 ] || fail "needs root (debootstrap, buildah): use sudo"
for tool in buildah debootstrap; do
    command -v "$tool" >/dev/null || fail "missing: $tool. Install with: apt-get install buildah debootstrap"
done

readonly NAME=$1 ACCELERATOR=${2:-cpu} BASE=localhost/byol-base:13
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! buildah images "$BASE" >/dev/null 2>&1; then
    echo "build_image.sh: unpacking Debian 13"
    debootstrap --variant=minbase --include=ca-certificates trixie "$work/root" >"$work/log" 2>&1 ||
        fail "debootstrap failed: $(tail -n 1 "$work/log")"
    rm -rf "$work/root/var/cache/apt/archives/"*.deb "$work/root/var/lib/apt/lists/"*
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$work/root" / >/dev/null
    buildah commit --quiet --rm "$container" "$BASE" >/dev/null
    rm -rf "$work/root"
fi

# What the installers need to reach the package index from here: mounted for the build, so not in the image.
readonly CERTIFICATES=/etc/ssl/certs/ca-certificates.crt
index=${PIP_INDEX_URL:-$(pip config get global.index-url 2>/dev/null || true)}
certificate=${PIP_CERT:-$(pip config get global.cert 2>/dev/null || true)}
printf '[global]\n' >"$work/pip.conf"
printf 'system-certs = true\n' >"$work/uv.toml"
if [ -n "$index" ]; then
    echo "index-url = $index" >>"$work/pip.conf"
    printf '[[index]]\nurl = "%s"\ndefault = true\n' "$index" >>"$work/uv.toml"
fi
volumes=(--volume "$work/uv.toml:/etc/uv/uv.toml:ro" --volume "$work/pip.conf:/etc/pip.conf:ro")
if [ -n "$certificate" ]; then
    echo "cert = $CERTIFICATES" >>"$work/pip.conf"
    volumes+=(--volume "$certificate:$CERTIFICATES:ro")
fi

buildah build --layers --isolation chroot --pull-never "${volumes[@]}" \
    --build-arg "BASE=$BASE" --build-arg "ACCELERATOR=$ACCELERATOR" --tag "$NAME" "$repository"
