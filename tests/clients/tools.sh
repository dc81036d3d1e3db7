#!/bin/sh
# Install the Node packages of the TypeScript client and of tests/clients, as their lock files pin them, and build the client.
# Installs only if a lock file has changed. It needs Node 20 or later with npm.
set -eu
cd "$(dirname "$0")/../.."

fail() {
    echo "test-clients: $*" >&2
    exit 1
}

advice="Install Node 20 or later with npm, such as the packages nodejs and npm of Debian 13."
command -v node >/dev/null 2>&1 || fail "node is not on the PATH. $advice"
command -v npm >/dev/null 2>&1 || fail "npm is not on the PATH. $advice"
major=$(node -p 'process.versions.node.split(".")[0]')
[ "$major" -ge 20 ] || fail "node is version $(node --version). $advice"

export npm_config_cache="$PWD/build/npm" npm_config_update_notifier=false
mkdir -p build/clients
for folder in clients/typescript tests/clients; do
    ready="build/clients/$(echo "$folder" | tr / -).ready"
    pins="$major $(cat "$folder/package.json" "$folder/package-lock.json" | cksum)"
    if ! [ "$(cat "$ready" 2>/dev/null)" = "$pins" ] || ! [ -d "$folder/node_modules" ]; then
        rm -f "$ready"
        echo "test-clients: installing the packages of $folder" >&2
        (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
        printf '%s\n' "$pins" >"$ready"
    fi
done
cd clients/typescript
npm run --silent build
