#!/bin/sh
# Run a command as a container of a service does: ROOT HOSTNAME USER SOURCE:TARGET... -- COMMAND...
# ROOT is an empty directory. It becomes the machine's root, with other directories where the image has its own.
# Each SOURCE is mounted at its TARGET. The process keeps its id, so that signals reach it.
set -eu
root=$1 user=$3
hostname "$2"
shift 3
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$root"
for entry in /*; do
    if [ -L "$entry" ]; then
        cp -P "$entry" "$root$entry"
    elif [ -d "$entry" ]; then
        mkdir "$root$entry"
        mount --rbind "$entry" "$root$entry"
    fi
done
for own in /usr/local /etc/rabbitmq /run /var/lib/rabbitmq; do
    mount -t tmpfs -o mode=755 tmpfs "$root$own"
done
while [ "$1" != -- ]; do
    source=${1%%:*} target=$root${1#*:}
    if [ -d "$source" ]; then mkdir -p "$target"; else mkdir -p "$(dirname "$target")" && touch "$target"; fi
    mount --bind "$source" "$target"
    shift
done
shift
exec /usr/sbin/chroot "$root" setpriv --reuid="$user" --regid="$user" --init-groups --no-new-privs "$@"
