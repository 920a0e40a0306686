#!/usr/bin/env bash
# Resolves every *.in of this folder into a hash-pinned *.lock without index addresses. Called by `make lock`.
# Pins that still fit are kept; `UPGRADE=1 make lock` takes the newest releases.
set -euo pipefail
cd "$(dirname "$0")"

if [ "$#" -ne 1 ]; then
    echo "usage: lock.sh UV" >&2
    exit 2
fi
uv=$1
options=(--quiet --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock")
if [ -n "${UPGRADE:-}" ]; then
    options+=(--upgrade)
fi

# The environment script itself refuses other platforms, so markers that every line carries only hide the ones that
# matter; and an installer that meets them elsewhere would skip all packages in silence.
strip_common_markers() {
    sed -i -E \
        -e "s/ and implementation_name == 'cpython' and platform_machine == 'x86_64'//" \
        -e "s/ and platform_python_implementation != 'PyPy'//" \
        -e "s/ and sys_platform == 'linux'//" \
        -e "s/ ; python_full_version < '3\.14' \\\\$/ \\\\/" \
        -e "s/python_full_version == '3\.13\.\*'/python_full_version >= '3.13'/" "$1"
}

echo "Locking the floor lane"
"$uv" pip compile "${options[@]}" --python-version 3.10 --python-platform x86_64-manylinux_2_28 \
    floor.in --output-file floor.lock
echo "Locking the current lane"
"$uv" pip compile "${options[@]}" --universal --fork-strategy fewest --python-version 3.11 \
    current.in --output-file current.lock
strip_common_markers current.lock
echo "Locking the accelerators' libraries for the current lane"
for name in cuda tpu; do
    "$uv" pip compile "${options[@]}" --universal --fork-strategy fewest --python-version 3.11 \
        "$name.in" --output-file "$name.lock"
    strip_common_markers "$name.lock"
done
echo "Locking the installer and the build back-ends"
for name in bootstrap build; do
    "$uv" pip compile "${options[@]}" --python-version 3.10 "$name.in" --output-file "$name.lock"
done
