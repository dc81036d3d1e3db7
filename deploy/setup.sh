#!/bin/sh
# Install what this machine lacks: programs (through apt-get where it may) and a virtual environment with pinned packages.
#
#   setup.sh --runtime|--dev PROGRAM[=PACKAGE]...
#
# The package is named where Debian's is not called like its program: postgres=postgresql.
# --dev installs what tests need as well. Quick and silent when nothing is missing. Exit code 1 with one sentence otherwise.
set -eu
cd "$(dirname "$0")/.."

kind=$1
shift
PATH="$PATH:/usr/lib/rabbitmq/bin:/usr/sbin:/sbin"
for directory in /usr/lib/postgresql/*/bin; do
    PATH="$PATH:$directory"
done

fail() {
    echo "setup: $*" >&2
    exit 1
}

missing=""
for wanted in "$@"; do
    command -v "${wanted%%=*}" >/dev/null 2>&1 || missing="$missing ${wanted#*=}"
done

install_packages() {
    echo "setup: installing$missing" >&2
    # RUNLEVEL=1 keeps the packages from starting services: Callfold starts its own, private ones.
    $1 env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive sh -c "apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing" >&2
}

if [ -n "$missing" ]; then
    hint="install$missing: 'sudo apt-get install$missing' (Debian), 'sudo dnf install rabbitmq-server redis haproxy wrk postgresql-server chromium' (Fedora) or 'brew install rabbitmq redis haproxy wrk postgresql' (macOS)"
    command -v apt-get >/dev/null 2>&1 || fail "please $hint"
    if [ "$(id -u)" = 0 ]; then
        install_packages "" || fail "apt-get failed; please $hint"
    elif command -v sudo >/dev/null 2>&1 && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        install_packages sudo || fail "apt-get failed; please $hint"
    else
        fail "apt-get needs root; please $hint"
    fi
fi

python=""
for candidate in python3.13 python3.12 python3.11 python3; do
    if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || fail "Python 3.11 or later is needed: 'sudo apt-get install python3 python3-venv' (Debian 12)"

runtime=$(cat deploy/requirements.txt pyproject.toml | cksum | tr -d ' ')
dev=$(cat deploy/requirements.txt tests/requirements.txt pyproject.toml | cksum | tr -d ' ')
if [ -e ".venv/.dev-$dev" ] || { [ "$kind" = --runtime ] && [ -e ".venv/.runtime-$runtime" ]; }; then
    exit 0
fi

if [ ! -x .venv/bin/pip ]; then
    "$python" -m venv .venv || fail "this Python cannot make virtual environments: 'sudo apt-get install python3-venv' (Debian)"
fi
echo "setup: installing Python packages into .venv" >&2
rm -f .venv/.dev-* .venv/.runtime-*
requirements=deploy/requirements.txt
[ "$kind" = --dev ] && requirements=tests/requirements.txt
.venv/bin/pip install -q --disable-pip-version-check --require-hashes -r "$requirements"
.venv/bin/pip install -q --disable-pip-version-check --no-deps -e .
if [ "$kind" = --dev ]; then
    touch ".venv/.dev-$dev"
fi
touch ".venv/.runtime-$runtime"
