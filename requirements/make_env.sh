#!/usr/bin/env bash
# Makes the virtual environment of one lane from its lock, once: `make env` calls it before everything else.
#
#   LANE    floor | current   overrides the choice by what this system can load
#   VENV    folder of the environment, `.venv` unless told
#
# An environment counts as made only when its stamp, written last, names the lock it was made from. docs/lanes.md
# describes the lanes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VENV=${VENV:-.venv}
readonly TOOLS=.tools
readonly STAMP=$VENV/.byol-lane
readonly PROJECT_STAMP=$VENV/.byol-project
readonly CURRENT_PYTHONS=(3.13 3.12 3.11)
readonly FLOOR_PYTHONS=(3.10)
readonly CURRENT_GLIBC=2.39
readonly FLOOR_GLIBC=2.28

fail() {
    echo "make env: $*" >&2
    exit 1
}

digest() { sha256sum "$@" | sha256sum | cut -c1-64; }

# version_at_least 2.41 2.39
version_at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# Prints "EXECUTABLE HEADERS" (HEADERS is yes or no) when $1 runs and is an ordinary CPython of version $2. A pyenv shim
# whose version is missing here exists but does not run, which is why candidates are run rather than looked up.
probe() {
    "$1" - "$2" 2>/dev/null <<'PROBE'
import os, struct, sys, sysconfig
ok = (
    "%d.%d" % sys.version_info[:2] == sys.argv[1]
    and sys.implementation.name == "cpython"
    and struct.calcsize("P") == 8
    and not sysconfig.get_config_var("Py_GIL_DISABLED")
)
if not ok:
    sys.exit(1)
header = os.path.join(sysconfig.get_path("include"), "Python.h")
print(getattr(sys, "_base_executable", sys.executable), "yes" if os.path.exists(header) else "no", sep="\t")
PROBE
}

# Every interpreter of version $1 that may exist here, best known places first.
candidates() {
    local version=$1
    type -ap "python$version" python3 python || true
    local home=${HOME:-/nonexistent} folder
    for folder in \
        "${PYENV_ROOT:-$home/.pyenv}/versions/$version" \
        "${UV_PYTHON_INSTALL_DIR:-$home/.local/share/uv/python}/cpython-$version" \
        "$TOOLS/python/cpython-$version"; do
        compgen -G "$folder.*/bin/python$version" || true
    done
}

# Sets PYTHON, PYTHON_VERSION and HEADERS to the first usable interpreter of the versions given, one with headers if any.
find_python() {
    local version candidate found
    PYTHON='' PYTHON_VERSION='' HEADERS=no
    for version in "$@"; do
        while IFS= read -r candidate; do
            found=$(probe "$candidate" "$version") || continue
            if [ -z "$PYTHON" ] || [ "${found#*$'\t'}" = yes ]; then
                PYTHON=${found%$'\t'*} PYTHON_VERSION=$version HEADERS=${found#*$'\t'}
            fi
            [ "$HEADERS" = no ] || return 0
        done < <(candidates "$version")
    done
    [ -n "$PYTHON" ]
}

# Sets LANE_NAME and REASON, and PYTHON when there is one for that lane.
choose_lane() {
    local glibc
    glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2) || true
    [ -n "$glibc" ] || fail "TFX needs glibc, which this system does not have (musl?); use Debian, Ubuntu or the like"
    case ${LANE:-} in
        floor | current)
            LANE_NAME=$LANE REASON="asked for by LANE=$LANE"
            ;;
        "")
            if ! version_at_least "$glibc" "$CURRENT_GLIBC"; then
                LANE_NAME=floor REASON="glibc $glibc is older than the $CURRENT_GLIBC that TFX 1.21 needs"
            elif find_python "${CURRENT_PYTHONS[@]}"; then
                LANE_NAME=current REASON="glibc $glibc and Python $PYTHON_VERSION can load TFX 1.21"
                return
            else
                LANE_NAME=floor REASON="no Python 3.11, 3.12 or 3.13 for TFX 1.21"
            fi
            ;;
        *) fail "LANE=$LANE is not a lane: expected floor or current" ;;
    esac
    version_at_least "$glibc" "$FLOOR_GLIBC" || fail "both lanes need glibc >= $FLOOR_GLIBC, this is $glibc: use a newer system"
    if [ "$LANE_NAME" = current ]; then
        version_at_least "$glibc" "$CURRENT_GLIBC" ||
            fail "the current lane needs glibc >= $CURRENT_GLIBC (Debian 13, Ubuntu 24.04), this is $glibc: use LANE=floor"
        find_python "${CURRENT_PYTHONS[@]}" || true
    else
        find_python "${FLOOR_PYTHONS[@]}" || true
    fi
}

# Names everything that is missing in one line, before anything is downloaded.
check_system() {
    local missing=() packages=()
    [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
        fail "TFX has wheels for Linux on x86_64 only, this is $(uname -s) on $(uname -m)"
    if ! command -v g++ >/dev/null; then
        missing+=("g++") packages+=(g++)
    fi
    if ! find_installer_python; then
        missing+=("Python 3 with pip or venv") packages+=(python3 python3-venv)
        [ -n "$PYTHON" ] || packages+=(python3-dev)
    fi
    if [ -n "$PYTHON" ] && [ "$HEADERS" = no ]; then
        missing+=("Python.h of Python $PYTHON_VERSION") packages+=("python$PYTHON_VERSION-dev")
    elif [ -z "$PYTHON" ] && [ "$LANE_NAME" = current ]; then
        missing+=("Python 3.11, 3.12 or 3.13") packages+=(python3 python3-venv python3-dev)
    fi
    if [ "${#missing[@]}" -gt 0 ]; then
        local list
        list=$(printf ', %s' "${missing[@]}")
        fail "missing: ${list:2}. Install with: apt-get install ${packages[*]}"
    fi
}

# Sets INSTALLER to a Python that can install the pinned uv, and INSTALL_BY to how.
find_installer_python() {
    local candidate
    while IFS= read -r candidate; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 8))' </dev/null >/dev/null 2>&1; then
            INSTALLER=$candidate
            if "$candidate" -m pip --version </dev/null >/dev/null 2>&1; then
                INSTALL_BY=pip
                return 0
            elif "$candidate" -c 'import ensurepip, venv' </dev/null >/dev/null 2>&1; then
                INSTALL_BY=venv
                return 0
            fi
        fi
    done < <(
        [ -z "$PYTHON" ] || echo "$PYTHON"
        type -ap python3 python || true
    )
    return 1
}

# uv installs a locked environment in seconds, where pip alone takes minutes. It stays in a folder of the project.
bootstrap_uv() {
    local lock=requirements/bootstrap.lock stamp=$TOOLS/uv/.stamp log=$TOOLS/bootstrap.log
    UV=$TOOLS/uv/bin/uv
    if [ "$(cat "$stamp" 2>/dev/null)" = "$(digest $lock)" ] && "$UV" --version >/dev/null 2>&1; then
        return
    fi
    rm -rf "$TOOLS/uv"
    echo "make env: fetching the installer (uv) into $TOOLS"
    if [ "$INSTALL_BY" = pip ]; then
        PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 "$INSTALLER" -m pip install --quiet --require-hashes \
            --target "$TOOLS/uv" -r $lock >"$log" 2>&1 ||
            fail "could not fetch uv from the package index: $(grep -v '^$' "$log" | tail -n 1)"
    else
        "$INSTALLER" -m venv "$TOOLS/uv" >"$log" 2>&1 &&
            "$TOOLS/uv/bin/python" -m pip install --quiet --require-hashes -r $lock >>"$log" 2>&1 ||
            fail "could not fetch uv from the package index: $(grep -v '^$' "$log" | tail -n 1)"
    fi
    "$UV" --version >/dev/null || fail "the uv that was fetched into $TOOLS/uv does not run"
    digest $lock >"$stamp"
}

# uv does not read pip's settings; a mirror or a certificate that pip was told of is meant for it, too.
adopt_pip_settings() {
    local index cert
    index=${PIP_INDEX_URL:-$("$INSTALLER" -m pip config get global.index-url 2>/dev/null || true)}
    cert=${PIP_CERT:-$("$INSTALLER" -m pip config get global.cert 2>/dev/null || true)}
    if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] && [ -n "$index" ]; then
        export UV_DEFAULT_INDEX=$index
    fi
    if [ -z "${SSL_CERT_FILE:-}" ] && [ -n "$cert" ]; then
        export SSL_CERT_FILE=$cert
    fi
}

download_python() {
    echo "make env: no Python 3.10 here, trying to download one"
    UV_PYTHON_INSTALL_DIR=$TOOLS/python "$UV" python install --no-bin 3.10 >"$TOOLS/python.log" 2>&1 || true
    find_python "${FLOOR_PYTHONS[@]}" || fail "missing: Python 3.10 with its headers, and none could be downloaded ($REASON)." \
        "Install with: apt-get install python3.10 python3.10-dev (Ubuntu 22.04), or: pyenv install 3.10"
}

install_lock() {
    local quiet=(--quiet)
    [ ! -t 2 ] || quiet=() # a person watches: let the progress bars show
    rm -rf "$VENV"
    "$UV" venv --quiet --no-project --no-python-downloads --python "$PYTHON" "$VENV" &&
        "$UV" pip install "${quiet[@]}" --python "$VENV/bin/python" --require-hashes --no-deps \
            --build-constraints requirements/build.lock --require-build-hashes -r "requirements/$LANE_NAME.lock" ||
        fail "the $LANE_NAME lane could not be installed, for the reason above; the next \`make\` starts afresh"
}

# Needs no index: pip and setuptools are in the lock.
install_project() {
    "$VENV/bin/python" -m pip --isolated --disable-pip-version-check install --quiet --no-index --no-deps \
        --no-build-isolation --editable . ||
        fail "the project itself could not be installed into $VENV, for the reason above"
    "$VENV/bin/python" -m pip --isolated --disable-pip-version-check check >"$VENV/check.log" ||
        fail "setup.py and the lock disagree: $(head -n 1 "$VENV/check.log")"
    digest setup.py >"$PROJECT_STAMP"
}

# The stamp's lines: lane, digest of its lock, folder (an environment does not survive being moved), why this lane.
# A lane once made stays until LANE, its lock or `make clean` says otherwise.
lock_is_installed() {
    [ -x "$VENV/bin/python" ] && [ -f "$STAMP" ] || return 1
    local lane made_from folder
    { read -r lane && read -r made_from && read -r folder && read -r REASON; } <"$STAMP" || return 1
    [ "${LANE:-$lane}" = "$lane" ] && [ "$folder" = "$PWD" ] && [ -f "requirements/$lane.lock" ] || return 1
    [ "$made_from" = "$(digest "requirements/$lane.lock")" ] || return 1
    "$VENV/bin/python" -c '' >/dev/null 2>&1 || return 1
    LANE_NAME=$lane
}

project_is_installed() { [ "$(cat "$PROJECT_STAMP" 2>/dev/null)" = "$(digest setup.py)" ]; }

make_environment() {
    choose_lane
    echo "Lane: $LANE_NAME ($REASON)"
    check_system
    mkdir -p "$TOOLS"
    exec 9>"$TOOLS/lock"
    flock 9
    if lock_is_installed; then
        return # another `make` made it while this one waited
    fi
    adopt_pip_settings
    bootstrap_uv
    [ -n "$PYTHON" ] || download_python
    local lock=requirements/$LANE_NAME.lock made_from
    made_from=$(digest "$lock")
    echo "make env: installing $(grep -c '^[a-z0-9].*==' "$lock") locked packages into $VENV with Python $PYTHON_VERSION"
    install_lock
    install_project
    printf '%s\n' "$LANE_NAME" "$made_from" "$PWD" "$REASON" >"$STAMP.new"
    mv "$STAMP.new" "$STAMP"
    echo "make env: $VENV is ready after $SECONDS s"
}

case ${1:-env} in
    env)
        if lock_is_installed; then
            echo "Lane: $LANE_NAME ($REASON); $VENV is up to date"
            project_is_installed || install_project
        else
            make_environment
        fi
        ;;
    tools) # only the installer, for `make lock`
        PYTHON=''
        find_installer_python || fail "missing: Python 3 with pip or venv. Install with: apt-get install python3 python3-venv"
        mkdir -p "$TOOLS"
        bootstrap_uv
        ;;
    cuda | tpu) # an accelerator's libraries, into the environment that was made; for the image
        adopt_pip_settings
        "$TOOLS/uv/bin/uv" pip install --quiet --python "$VENV/bin/python" --require-hashes --no-deps \
            -r "requirements/$1.lock" || fail "the libraries of $1 could not be installed, for the reason above"
        ;;
    *) fail "$1 is not known: expected env, tools, cuda or tpu" ;;
esac
