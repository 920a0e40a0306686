#!/usr/bin/env bash
# Runs the current lane (TFX 1.21, Python 3.13, glibc 2.41) on a system too old for it, in a Debian 13 root file system.
#
#   sudo tests/lanes/debian13.sh FOLDER [MAKE_ARGUMENT...]
#
# FOLDER is empty, or made by this script before: then the Debian in it and the environment are used again. The working
# tree (not what git ignores) is copied to FOLDER/root/byol-tfx, and `make MAKE_ARGUMENT...` (default: `make test`) runs
# there. It needs root, debootstrap and about 5 GB; the host's certificates and pip settings are taken along, so that
# mirrors keep working. Nothing of the host is visible inside but the kernel and the network.
set -euo pipefail

fail() {
    echo "debian13.sh: $*" >&2
    exit 1
}

[ "$#" -ge 1 ] || fail "usage: debian13.sh FOLDER [MAKE_ARGUMENT...]"
[ "$(id -u)" = 0 ] || fail "needs root (debootstrap and chroot): use sudo"
for tool in debootstrap unshare chroot git tar; do
    command -v "$tool" >/dev/null || fail "missing: $tool. Install with: apt-get install debootstrap util-linux git tar"
done

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mkdir -p "$1"
root=$(cd "$1" && pwd)
shift
[ "$#" -gt 0 ] || set -- test
made=$root/.byol-debian13
inside=/root/byol-tfx

if [ ! -e "$made" ]; then
    [ -z "$(ls -A "$root")" ] || fail "$root is not empty and was not made by this script: give an empty folder"
    echo "debian13.sh: unpacking Debian 13 into $root"
    debootstrap --variant=minbase \
        --include=ca-certificates,g++,git,make,python3,python3-dev,python3-venv trixie "$root" >"$root.log" 2>&1 ||
        fail "debootstrap failed: $(tail -n 1 "$root.log") (all of it: $root.log)"
    rm "$root.log"
    touch "$made"
fi

# The network as the host sees it, and what pip needs to reach its index from here.
for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt /etc/pip.conf; do
    [ ! -e "$file" ] || install -D -m 644 "$file" "$root$file"
done
pip_settings=${HOME:-/root}/.config/pip/pip.conf
[ ! -e "$pip_settings" ] || install -D -m 644 "$pip_settings" "$root/root/.config/pip/pip.conf"

# The copy is made anew each time, around the environment that an earlier run left in it.
mkdir -p "$root$inside"
find "$root$inside" -mindepth 1 -maxdepth 1 ! -name .venv ! -name .tools -exec rm -rf {} +
git -C "$repository" -c safe.directory="$repository" ls-files --cached --others --exclude-standard -z |
    (cd "$repository" && xargs -0 sh -c 'for path; do [ ! -e "$path" ] || printf "%s\0" "$path"; done' sh) |
    tar -C "$repository" --create --null --files-from=- | tar -C "$root$inside" --extract --no-same-owner

environment=(HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM="${TERM:-dumb}")
for name in CI http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY PIP_INDEX_URL UV_DEFAULT_INDEX; do
    [ -z "${!name:-}" ] || environment+=("$name=${!name}")
done
# Python's own certificates do not include a proxy's, Debian's file copied above does.
environment+=(SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt)

# In namespaces of its own, so that the mounts and every process end with it.
export root inside
exec unshare --mount --pid --fork --kill-child sh -euc '
    mount -t proc proc "$root/proc"
    mkdir -p "$root/dev/shm"
    mount -t tmpfs -o size=50% tmpfs "$root/dev/shm"
    exec chroot "$root" /usr/bin/env -i -C "$inside" "$@"
' sh "${environment[@]}" make --no-print-directory "$@"
