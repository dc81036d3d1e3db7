#!/bin/sh
# Start a node of the cluster of compose.ha.yaml. Nodes and their commands trust each other because they have the same cookie.
# RabbitMQ reads it from a file that only the user of the node can read.
set -eu
umask 077
install -m 0400 /run/secrets/erlang_cookie "$HOME/.erlang.cookie"

# A node without data joins the first node of the configuration. If that did not run yet, it would begin a second cluster.
# A node with data waits for nothing.
me=rabbit@$(hostname)
first=$(sed -n 's/^cluster_formation.classic_config.nodes.1 = //p' /etc/rabbitmq/conf.d/50-cluster.conf)
if [ "$me" != "$first" ] && [ ! -e "$HOME/mnesia/$me" ]; then
    trap 'exit 0' TERM
    until rabbitmq-diagnostics -q --node "$first" check_running >/dev/null 2>&1; do
        sleep 2
    done
fi
exec docker-entrypoint.sh "$@"
