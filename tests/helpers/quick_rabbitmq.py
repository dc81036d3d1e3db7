"""A RabbitMQ that starts with two thirds of the CPU time: for the servers that tests start, many dozens of times in a run.

It has the settings of the shipped configuration, as arguments of Erlang: to read a file, RabbitMQ first reads the schemas of all of
its settings. One scheduler is enough for a test. The file itself is read by `callfold up`, `callfold demo` and the tests of clusters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from console.local import stack
from console.local.rabbitmq_node import node_environment

# A setting of the file, and what it becomes. One that is not here fails every test with a server: add it.
_ARGUMENTS = {
    "heartbeat": "-rabbit heartbeat {}",
    "consumer_timeout": "-rabbit consumer_timeout {}",
    "vm_memory_high_watermark.relative": "-rabbit vm_memory_high_watermark {}",
    "disk_free_limit.absolute": '-rabbit disk_free_limit "{}"',
    "queue_leader_locator": '-rabbit queue_leader_locator <<"{}">>',
    "cluster_partition_handling": "-rabbit cluster_partition_handling {}",
    "load_definitions": '-rabbit load_definitions "{}"',
    "log.console.level": "-rabbit log [{{console,[{{enabled,true}},{{level,{}}}]}},{{file,[{{file,false}}]}}]",
}
_PART_OF_LOG = {"log.console": "true", "log.file": "false"}
_SETTING = re.compile(r"^([\w.]+) *= *(.*)$", re.MULTILINE)
_ADDED = "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"


def arguments(config: str) -> str:
    """Return the arguments of Erlang for the text of a configuration file."""
    settings = dict(_SETTING.findall(config))
    for name, value in _PART_OF_LOG.items():
        assert settings.pop(name) == value
    return " ".join(_ARGUMENTS[name].format(value) for name, value in settings.items())


def _environment(data: Path, **options: Any) -> Mapping[str, str]:  # noqa: ANN401 - those of the original
    found = node_environment(data, **options)
    settings = arguments(Path(found["RABBITMQ_CONFIG_FILE"]).read_text("utf-8"))
    return {**found, "RABBITMQ_CONFIG_FILE": str(data / "none"), _ADDED: f"{found[_ADDED]} +S 1:1 +SDcpu 1:1 {settings}"}


def keep_to() -> None:
    """Start the private servers of this process so."""
    stack.node_environment = _environment  # type: ignore[attr-defined]
