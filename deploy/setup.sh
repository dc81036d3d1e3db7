#!/bin/sh
# Install what this machine lacks: programs (through apt-get, if allowed) and a virtual environment with pinned packages.
#
#   setup.sh --runtime|--dev PROGRAM[=PACKAGE]...
#
# Name the package if Debian's differs from its program: postgres=postgresql. --dev also installs what the tests need.
# Quick and silent if nothing is missing. On failure: exit code 1 and one sentence.
#
# Python: the newest supported one on the PATH, or the one that the variable PYTHON names. `.venv` is recreated if its set-up
# did not finish, if its Python is another one or no longer runs, or if it was copied.
set -eu
cd "$(dirname "$0")/.."

supported="3.14 3.13 3.12 3.11"
candidates="$(printf 'python%s ' $supported)python3"
kind=$1
shift

fail() {
    echo "setup: $*" >&2
    exit 1
}

# With `.venv` active in this shell, its own Python comes first on the PATH. It cannot recreate the directory it runs from.
search=""
set -f
IFS=:
for directory in $PATH; do
    [ "$directory" -ef .venv/bin ] || search="$search:$directory"
done
unset IFS
set +f
PATH="${search#:}:/usr/lib/rabbitmq/bin:/usr/sbin:/sbin"
for directory in /usr/lib/postgresql/*/bin; do
    PATH="$PATH:$directory"
done

find_missing_programs() { # PROGRAM[=PACKAGE]...
    missing=""
    for wanted in "$@"; do
        command -v "${wanted%%=*}" >/dev/null 2>&1 || missing="$missing ${wanted#*=}"
    done
}

# Print version and real path of a Python. Fails if it does not run (a pyenv shim may not) or is not a supported version.
identify() {
    "$1" -I -S -c '
import os, sys
if "%d.%d" % sys.version_info[:2] not in sys.argv[1].split():
    sys.exit(1)
print(sys.version.split()[0], os.path.realpath(sys.executable))' "$supported" 2>/dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
    else
        set -- $candidates
    fi
    for python in "$@"; do
        if command -v "$python" >/dev/null 2>&1 && identity=$(identify "$python"); then
            return
        fi
    done
    python=""
    identity=""
}

# Print a checksum of the candidates' paths. While it stays the same, only the chosen Python is started: pyenv's shims are slow.
summarise_candidates() {
    {
        echo "${PYTHON:-} ${PYENV_VERSION:-}"
        for candidate in $candidates; do
            command -v "$candidate" || echo "no $candidate"
        done
    } | cksum
}

# `.venv/.ready` is removed before anything changes in `.venv` and written when all is done. `stale` says why it is invalid.
check_environment() {
    stale=""
    has_runtime=""
    has_dev=""
    if [ ! -e .venv ]; then
        stale="there is none"
    elif ! { read -r made_in && read -r made_from && read -r made_with && read -r made_by && read -r has_runtime && read -r has_dev; } \
        2>/dev/null <.venv/.ready; then
        stale="the last set-up did not finish"
    elif [ "$made_in" != "$(cd .venv && pwd -P)" ]; then
        stale="it was made in another directory"
    elif ! .venv/bin/python -I -S -c "" 2>/dev/null; then
        stale="its Python does not run"
    else
        python=$made_with
        if [ "$made_from" != "$found" ] || ! identity=$(identify "$python"); then
            find_python
        fi
        [ "$identity" = "$made_by" ] || stale="it was made by Python $made_by"
    fi
    [ -z "$stale" ]
}

is_ready() {
    find_missing_programs "$@"
    check_environment && [ -z "$missing" ] || return 1
    case $kind in
        --dev) [ "$has_dev" = "$dev" ] ;;
        *) [ "$has_runtime" = "$runtime" ] ;;
    esac
}

# RUNLEVEL=1 keeps the packages from starting services: Callfold starts its own, private ones.
# File descriptor 9 is the lock. A daemon that a package starts must not inherit it.
run_apt_get() { # [sudo]
    echo "setup: installing$missing" >&2
    "$@" env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        sh -c "apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing" >&2 9<&-
}

install_packages() {
    hint="install$missing: 'sudo apt-get install$missing' (Debian), 'sudo dnf install python3 rabbitmq-server redis haproxy wrk postgresql-server chromium' (Fedora) or 'brew install python rabbitmq redis haproxy wrk postgresql' (macOS)"
    command -v apt-get >/dev/null 2>&1 || fail "please $hint"
    if [ "$(id -u)" = 0 ]; then
        run_apt_get || fail "apt-get failed; please $hint"
    elif command -v sudo >/dev/null 2>&1 && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        run_apt_get sudo || fail "apt-get failed; please $hint"
    else
        fail "apt-get needs root; please $hint"
    fi
}

# On Debian, the modules that create virtual environments are in separate packages.
find_missing_python() {
    find_python
    if [ -z "$python" ]; then
        [ -n "${PYTHON:-}" ] || [ -x /usr/bin/python3 ] || missing="$missing python3-venv"
    elif ! "$python" -I -c "import ensurepip, venv" 2>/dev/null; then
        case $identity in
            *" /usr/bin/"*) missing="$missing python$(echo "$identity" | cut -d. -f1,2)-venv" ;;
        esac
    fi
}

log=.venv/setup.log

explain() {
    reason=$(sed -n 's/^ERROR: //p' "$log" | tail -n 1)
    [ -n "$reason" ] || reason=$(tail -n 1 "$log")
    ! grep -q 'Retrying (' "$log" || reason="$reason (is the package index reachable?)"
    echo "$reason. See $log for all output."
}

create_environment() {
    if [ -z "$python" ]; then
        [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON is not a supported version ($supported) or does not run. Set PYTHON to another."
        fail "no supported Python found ($supported). Install one, or set PYTHON=/path/to/python3."
    fi
    [ ! -e .venv ] || echo "setup: recreating .venv: $stale" >&2
    rm -f .venv/.ready
    rm -rf .venv
    mkdir .venv
    "$python" -I -m venv .venv >"$log" 2>&1 || fail "$python cannot create a virtual environment: $(explain)"
}

pip_install() {
    .venv/bin/python -I -m pip install -q --no-input --disable-pip-version-check "$@" >>"$log" 2>&1 ||
        fail "pip cannot install the Python packages: $(explain)"
}

install_environment() {
    echo "setup: installing Python packages into .venv" >&2
    rm -f .venv/.ready
    case $kind in
        --dev) pins=tests/requirements.txt ;;
        *) pins=deploy/requirements.txt dev=none ;;
    esac
    : >"$log"
    pip_install --require-hashes -r "$pins"
    pip_install --no-deps -e .
    printf '%s\n' "$(cd .venv && pwd -P)" "$found" "$python" "$identity" "$runtime" "$dev" >.venv/.ready.new
    mv .venv/.ready.new .venv/.ready
}

# The shell reads a function as a whole before it runs, so a checkout may replace this file during the run.
main() {
    found=$(summarise_candidates)
    runtime=$(cat deploy/requirements.txt pyproject.toml | cksum)
    dev=$(cat deploy/requirements.txt tests/requirements.txt pyproject.toml | cksum)

    is_ready "$@" && exit 0

    # One set-up at a time. Programs that a killed set-up left running still hold the lock, so none of them writes to `.venv`.
    if command -v flock >/dev/null 2>&1; then
        exec 9<.
        flock -n 9 || {
            echo "setup: waiting for another set-up of this directory" >&2
            flock 9 || true # a file system without locks is no reason to fail
        }
        is_ready "$@" && exit 0
    fi

    [ -z "$stale" ] || find_missing_python
    if [ -n "$missing" ]; then
        install_packages
        [ -z "$stale" ] || find_python
        found=$(summarise_candidates)
        is_ready "$@" && exit 0
    fi
    [ -z "$stale" ] || create_environment
    install_environment
    exit 0
}

main "$@"
