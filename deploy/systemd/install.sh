#!/bin/sh
# Install Callfold on a machine with systemd, upgrade it, go back to the release before, or remove it.
set -eu

usage() {
    cat <<'USAGE'
Usage: install.sh [install | restart | rollback | uninstall] [OPTION]...

install (default)  Install the release of this source tree, or upgrade to it. Repeat it at any time.
restart            Restart the enabled services one at a time, so that no callback is lost.
rollback           Make the release before the current one current again.
uninstall          Stop and remove services and releases. Settings and data stay.

Options:
  --python PATH    Python 3.11 to 3.14 of the releases (default: the newest on the PATH).
  --wheels DIR     Install Python packages from this directory instead of the package index.
  --destdir DIR    Stage below this directory. Create no user, and leave systemd alone.
  --dry-run        Print what would change, and change nothing.
  --purge          With uninstall: also delete settings, secrets, spools, archive and history.
  -h, --help       Print this text.

A release is a directory in /opt/callfold, and /opt/callfold/current points to one of them.
Exit codes: 0 done, 1 failed (the last line says why), 2 wrong usage.
USAGE
}

fail() {
    echo "install: $*" >&2
    exit 1
}

wrong() {
    echo "install: $*" >&2
    echo "Try: install.sh --help" >&2
    exit 2
}

report() {
    echo "install: $*"
}

# Run a command, or only print it.
run() {
    if [ -n "$dry_run" ]; then
        echo "would run: $*"
    else
        "$@"
    fi
}

command=install
destdir=""
dry_run=""
purge=""
wheels=""
python=${PYTHON:-}
here=$(cd "$(dirname "$0")" && pwd -P)
source=$(cd "$here/../.." && pwd -P)
units="callfold.target callfold-ingress@.service callfold-worker@.service callfold-console.service callfold-history.service callfold-forward@.service"
enabled_first="callfold.target callfold-ingress@1.service callfold-ingress@2.service callfold-worker@1.service callfold-worker@2.service callfold-console.service callfold-history.service"

read_arguments() {
    case ${1:-} in
        install | restart | rollback | uninstall)
            command=$1
            shift
            ;;
    esac
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help)
                usage
                exit 0
                ;;
            --dry-run) dry_run=yes ;;
            --purge) purge=yes ;;
            --python | --wheels | --destdir)
                [ -n "${2:-}" ] || wrong "$1 needs a value."
                case $1 in
                    --python) python=$2 ;;
                    --wheels) wheels=$(cd "$2" 2>/dev/null && pwd -P) || wrong "--wheels: there is no directory $2." ;;
                    --destdir) destdir=$2 ;;
                esac
                shift
                ;;
            *) wrong "unknown argument $1." ;;
        esac
        shift
    done
    [ -z "$purge" ] || [ "$command" = uninstall ] || wrong "--purge belongs to uninstall."
    case $destdir in
        "" | /*) ;;
        *) destdir=$PWD/$destdir ;;
    esac
    opt=$destdir/opt/callfold
    etc=$destdir/etc/callfold
    state=$destdir/var/lib/callfold
    lib=$destdir/usr/local/lib
    bin=$destdir/usr/local/bin
}

check_machine() {
    [ -n "$destdir" ] && return 0
    [ "$(id -u)" = 0 ] || [ -n "$dry_run" ] || fail "it needs root: run it with sudo."
    for program in systemctl systemd-sysusers systemd-tmpfiles setpriv; do
        command -v "$program" >/dev/null 2>&1 || fail "$program is missing. This machine needs systemd 250 or later, and util-linux."
    done
    version=$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
    [ "${version:-0}" -ge 250 ] || fail "systemd ${version:-?} is too old: 250 or later is needed."
}

# One installation at a time. The lock ends with this process.
lock() {
    [ -z "$dry_run" ] || return 0
    mkdir -p "$opt"
    command -v flock >/dev/null 2>&1 || return 0
    exec 9>"$opt/.lock"
    flock -n 9 || fail "another install.sh is running."
}

# Services cannot see home directories (ProtectHome=), where pyenv and uv keep their Pythons.
find_python() {
    for candidate in ${python:-python3.14 python3.13 python3.12 python3.11 python3 /usr/bin/python3}; do
        "$candidate" -I -c '
import ensurepip, sys, venv
is_private = sys.base_prefix.startswith(("/home/", "/root/", "/run/user/"))
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14) or is_private)' 2>/dev/null || continue
        python=$candidate
        return 0
    done
    [ -z "$python" ] || fail "--python $python is no Python 3.11 to 3.14 with venv outside of home directories, or does not run."
    fail "no Python 3.11 to 3.14 with venv outside of home directories. On Debian: apt-get install python3-venv"
}

# Name the release: its version, and a checksum of everything that is installed.
name_release() {
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$source/pyproject.toml")
    [ -n "$version" ] || fail "$source/pyproject.toml names no version."
    content=$(
        cd "$source"
        find pyproject.toml README.md LICENSE shared ingress worker console simulator clients/python/src docs deploy -type f \
            ! -path '*/__pycache__/*' -exec cksum {} + | LC_ALL=C sort -k3 | cksum | cut -d' ' -f1
    )
    release=$version-$(printf '%08x' "$content")
}

pip() {
    if [ -n "$wheels" ]; then
        set -- "$@" --no-index --find-links "$wheels"
    fi
    "$target/bin/python" -I -m pip install -q --no-input --disable-pip-version-check "$@" >>"$log" 2>&1 || explain
}

explain() {
    reason=$(sed -n 's/^ERROR: //p' "$log" | tail -n 1)
    fail "pip failed: ${reason:-$(tail -n 1 "$log")} All output is in $log."
}

# Build the release next to the others. `.ready` is written last, so a half-finished one is built again.
build_release() {
    target=$opt/$release
    if [ -e "$target/.ready" ]; then
        report "release $release is built"
        return 0
    fi
    find_python
    if [ -n "$dry_run" ]; then
        echo "would build: $target with $python"
        return 0
    fi
    report "building release $release"
    [ ! -e "$target" ] || report "removing what an earlier attempt left of it"
    rm -rf "$target"
    log=$opt/install.log
    : >"$log"
    "$python" -I -m venv "$target" >>"$log" 2>&1 || fail "$python cannot create a virtual environment. All output is in $log."
    pip --require-hashes --only-binary :all: -r "$source/deploy/requirements.txt"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    (cd "$source" && cp -R pyproject.toml README.md LICENSE shared ingress worker console simulator "$scratch")
    mkdir -p "$scratch/clients/python"
    cp -R "$source/clients/python/src" "$scratch/clients/python/"
    pip --no-deps "$scratch"
    share=$target/share/callfold
    mkdir -p "$share"
    cp -R "$source/docs" "$source/deploy" "$share/"
    "$target/bin/callfold" --version >>"$log" 2>&1 || fail "the new release does not run. All output is in $log."
    chmod -R go-w "$target"
    : >"$target/.ready"
}

# Copy the file if it differs.
place() { # MODE FROM TO
    ! cmp -s "$2" "$3" || return 0
    run install -D -m "$1" "$2" "$3"
}

# Files that exist are the operator's: they stay as they are.
place_settings() {
    run install -d -m 0755 "$etc"
    run install -d -m 0700 "$etc/secrets"
    for role in ingress worker console history forward; do
        run install -d -m 0700 "$etc/secrets/$role"
    done
    [ -e "$etc/callfold.env" ] || run install -D -m 0644 "$1/callfold.env" "$etc/callfold.env"
}

activate() { # RELEASE
    files=$opt/$1/share/callfold/deploy/systemd
    if [ -n "$dry_run" ] && [ ! -e "$files" ]; then
        files=$here
    fi
    for unit in $units callfold-.service.d/common.conf; do
        place 0644 "$files/$unit" "$lib/systemd/system/$unit"
    done
    place 0644 "$files/sysusers.conf" "$lib/sysusers.d/callfold.conf"
    place 0644 "$files/tmpfiles.conf" "$lib/tmpfiles.d/callfold.conf"
    place 0755 "$files/callfold" "$bin/callfold"
    place_settings "$files"
    now=$(readlink "$opt/current" 2>/dev/null) || now=""
    if [ "$now" != "$1" ]; then
        [ -z "$now" ] || run ln -sfn "$now" "$opt/previous"
        # `mv` replaces the link in one step: no process ever sees none.
        run ln -sfn "$1" "$opt/current.new"
        run mv -T "$opt/current.new" "$opt/current"
    fi
    if [ -z "$destdir" ]; then
        run systemd-sysusers "$lib/sysusers.d/callfold.conf"
        run systemd-tmpfiles --create "$lib/tmpfiles.d/callfold.conf"
        run systemctl daemon-reload
    fi
}

install_release() {
    name_release
    lock
    first=""
    [ -e "$opt/current" ] || first=yes
    build_release
    activate "$release"
    if [ -z "$destdir" ] && [ -n "$first" ]; then
        run systemctl enable -q $enabled_first
        report "installed. Write $etc/sources.toml and the secrets (docs/install-systemd.md), then: systemctl start callfold.target"
    elif [ -n "$first" ]; then
        report "staged in $destdir"
    else
        report "release $release is current. Restart the services with: install.sh restart"
    fi
}

# A worker, a forwarder, the console and the history may stop at any time. Of the ingresses, at most one is away, and only until its port is open.
restart_services() {
    [ -z "$destdir" ] || wrong "restart needs the machine, not --destdir."
    services=$(systemctl list-units --plain --no-legend --state=active 'callfold-*.service' | cut -d' ' -f1)
    [ -n "$services" ] || fail "no service of Callfold is active. Start them: systemctl start callfold.target"
    for role in history forward worker console ingress; do
        for service in $services; do
            case $service in
                callfold-"$role"[@.]*)
                    report "restarting $service"
                    run systemctl restart "$service" || fail "$service did not start. See: journalctl -u $service. The others still run."
                    ;;
            esac
        done
    done
}

roll_back() {
    previous=$(readlink "$opt/previous" 2>/dev/null) || fail "there is no release before the current one in $opt."
    [ -e "$opt/$previous/.ready" ] || fail "$opt/$previous is not complete. Install it from its source tree."
    lock
    activate "$previous"
    report "release $previous is current again. Restart the services with: install.sh restart"
}

# A link or directory outside /opt/callfold is never followed: rm removes links, not what they point to.
uninstall() {
    lock
    if [ -z "$destdir" ]; then
        services=$(systemctl list-units --all --plain --no-legend 'callfold-*.service' | cut -d' ' -f1)
        run systemctl stop callfold.target $services || fail "a service did not stop. Nothing was removed."
        run systemctl disable -q callfold.target $services
    fi
    for unit in $units; do
        run rm -f "$lib/systemd/system/$unit"
    done
    run rm -rf "$lib/systemd/system/callfold-.service.d"
    run rm -f "$lib/sysusers.d/callfold.conf" "$lib/tmpfiles.d/callfold.conf" "$bin/callfold"
    run rm -rf "$opt"
    [ -n "$destdir" ] || run systemctl daemon-reload
    if [ -n "$purge" ]; then
        run rm -rf "$etc" "$state"
        report "removed, with all settings and data"
    else
        report "removed. $etc and $state stay. The spools in $state/spool-* may hold callbacks: docs/install-systemd.md"
    fi
}

main() {
    read_arguments "$@"
    check_machine
    case $command in
        install) install_release ;;
        restart) restart_services ;;
        rollback) roll_back ;;
        uninstall) uninstall ;;
    esac
}

main "$@"
