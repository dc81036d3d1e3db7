#!/bin/sh
# Run a command with the servers of another release. `run.py` starts this in mount and pid namespaces of its own, so that every
# mount and every process ends with it.
#
#   inside.sh ROOT PROGRAMS COMMAND...
#
# ROOT is the directory of the release, PROGRAMS a directory with one script for each server program, which starts it in ROOT.
set -eu
root=$1
programs=$2
shift 2

# Servers keep their data where the tests say: the same paths inside and outside.
for path in /tmp "${TMPDIR:-/tmp}" "$PWD"; do
    mkdir -p "$root$path"
    mount --bind "$path" "$root$path"
done
for path in /dev /proc; do
    mount --rbind "$path" "$root$path"
done
touch "$root/etc/hosts"
mount --bind /etc/hosts "$root/etc/hosts"

# The machine's own release is the old one in a test that moves to a newer one.
OLD_RABBITMQ_SERVER=$(readlink -f /usr/lib/rabbitmq/bin/rabbitmq-server) && export OLD_RABBITMQ_SERVER

# Callfold prefers this directory to the PATH, because Debian's programs on the PATH switch to another user.
[ ! -d /usr/lib/rabbitmq/bin ] || mount --bind "$programs" /usr/lib/rabbitmq/bin
PATH=$programs:$PATH
export PATH
exec "$@"
