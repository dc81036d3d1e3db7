#!/bin/sh
# Start a node of the cluster of compose.ha.yaml. Nodes and their commands trust each other because they have the same cookie.
# RabbitMQ reads it from a file that only the user of the node can read.
set -eu
umask 077
install -m 0400 /run/secrets/erlang_cookie "$HOME/.erlang.cookie"
exec docker-entrypoint.sh "$@"
