"""The environment of a private RabbitMQ node on the loopback address, with the shipped configuration and the policies."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from console.local.ports import free_port
from shared.amqp.definitions import policies
from shared.amqp.topology import topology

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def node_environment(data: Path, *, name: str, port: int, mapper: int, more_config: Sequence[str] = ()) -> Mapping[str, str]:
    """Return the environment of a node that keeps its data in `data`; `mapper` is the port of its Erlang port mapper.

    Nodes of one cluster share the directory and the mapper.
    """
    data.mkdir(parents=True, exist_ok=True)
    (data / "enabled_plugins").write_text("[].\n", "utf-8")
    config, definitions = data / f"{name}.conf", data / "definitions.json"
    definitions.write_bytes(orjson.dumps(_definitions(), option=orjson.OPT_INDENT_2))
    shipped = (DEPLOY / "rabbitmq.conf").read_text("utf-8")
    config.write_text("\n".join((shipped, f"load_definitions = {definitions}", *more_config, "")), "utf-8")
    return os.environ | {
        "HOME": str(data),  # the Erlang cookie
        "ERL_EPMD_PORT": str(mapper),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        # RabbitMQ stores the node name in its data, so it must not change with the port.
        "RABBITMQ_NODENAME": name,
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(data / "mnesia"),
        "RABBITMQ_LOG_BASE": str(data / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(data / "enabled_plugins"),
        "RABBITMQ_CONFIG_FILE": str(config),
        "ERL_AFLAGS": f'-run file eval "{DEPLOY / "rabbitmq-preload.erl"}"',  # halves the start time
        "ERL_CRASH_DUMP_SECONDS": "0",  # else a crash dumps its memory to the working directory
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
        "RUNNING_UNDER_SYSTEMD": "true",  # makes the script exec the server, so that signals reach it
    }


def _definitions() -> Mapping[str, object]:
    """Return the policies, and what RabbitMQ creates by itself only if it loads no definitions."""
    permissions = {"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
    return {
        "vhosts": [{"name": "/"}],
        "users": [{"name": "guest", "password": "guest", "tags": "administrator"}],
        "permissions": [permissions],
        "policies": policies(topology(()), vhost="/"),
    }
