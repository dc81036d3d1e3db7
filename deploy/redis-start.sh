#!/bin/sh
# Start Redis or a Sentinel of compose.ha.yaml with a copy of its configuration in /data, because a failover rewrites it.
#
#   redis-start.sh server [MASTER PORT]
#   redis-start.sh sentinel
#
# The second server and the third begin as replicas of the named master.
set -eu
umask 077
file=/data/$1.conf
case $1 in
server)
    shift
    # After a failover the copy says which role this server has. All else comes from redis.conf at each start.
    role=$*
    [ ! -e "$file" ] || role=$(sed -n 's/^replicaof //p' "$file" | tail -n 1)
    {
        cat /usr/local/etc/redis/redis.conf
        # No password: only containers of this system are on the network (see sentinel.conf).
        printf 'dir /data\nprotected-mode no\nreplica-announce-ip %s\n' "$(hostname)"
        [ -z "$role" ] || printf 'replicaof %s\n' "$role"
    } >"$file.new"
    mv "$file.new" "$file"
    exec redis-server "$file"
    ;;
sentinel)
    # Its own file has what the Sentinels agreed on. Delete the volume to start over.
    if [ ! -e "$file" ]; then
        { cat /usr/local/etc/redis/sentinel.conf && printf 'dir /data\nsentinel announce-ip %s\n' "$(hostname)"; } >"$file.new"
        mv "$file.new" "$file"
    fi
    exec redis-server "$file" --sentinel
    ;;
esac
