#!/bin/sh
# Run a command in the root file system of an image as a container does: ROOT USER WORKDIR [MOUNT...] -- COMMAND...
# The root is read-only, /tmp is a tmpfs, and each MOUNT (SOURCE:TARGET) can be written. Start it with `unshare --mount`.
# The process keeps its id, so that signals reach it. The network is the machine's.
set -eu
root=$1 user=$2 directory=$3
shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o size=64m,mode=1777,nosuid,nodev tmpfs "$root/tmp"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
for device in null zero random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
while [ "$1" != -- ]; do
    mount --bind "${1%%:*}" "$root${1#*:}"
    shift
done
shift
mount -o remount,bind,ro "$root"
exec /usr/sbin/chroot --userspec="$user" --groups= "$root" setpriv --no-new-privs sh -c 'cd "$1" && shift && exec "$@"' - "$directory" "$@"
