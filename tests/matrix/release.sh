#!/bin/sh
# Unpack the servers of a Debian release into a directory, for `chroot`. Needs root, a network, two minutes and 500 MB.
#
#   release.sh RELEASE DIRECTORY PACKAGE...
#
# Does nothing if the directory is complete. What an interrupted run has left is removed first. The archive is the one that
# apt of this machine uses. debootstrap is unpacked beside the directory, so nothing is installed on this machine.
set -eu
release=$1
root=$2
shift 2
[ ! -e "$root/.complete" ] || exit 0
packages=$(IFS=,; echo "$*")
work=$root.work
rm -rf --one-file-system "$root" "$work"
mkdir -p "$work"
cd "$work"

# Debian's own archive, whatever else apt uses.
mirror=$(apt-get indextargets --format '$(REPO_URI) $(LABEL)' "Origin: Debian" "Label: Debian" | head -n 1 | cut -d ' ' -f 1)
[ -n "$mirror" ] || {
    echo "matrix: apt of this machine knows no archive of Debian" >&2
    exit 1
}
apt-get download -qq -o APT::Sandbox::User=root debootstrap
dpkg -x debootstrap_*.deb .
scripts=usr/share/debootstrap/scripts
[ -e "$scripts/$release" ] || ln -s sid "$scripts/$release" # a release that is newer than this debootstrap

# The namespaces end with the command: no mount and no process of the installation can remain.
DEBOOTSTRAP_DIR=$work/usr/share/debootstrap unshare --mount --pid --fork --kill-child --mount-proc \
    usr/sbin/debootstrap --variant=minbase --include="$packages" "$release" "$root" "$mirror" >"$root.log" 2>&1 || {
    tail -n 5 "$root.log" >&2
    exit 1
}
rm -rf "$root/var/cache/apt/archives" "$root/var/lib/apt/lists"
touch "$root/.complete"
cd /
rm -rf "$work"
