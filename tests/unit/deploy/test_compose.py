"""The compose files, alone and together: they fit the schema, and rules refuse what would fail or leak."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.helpers.compose import DEPLOY, interpolated, read, refusals

_FILES = {"one": ("compose.yaml",), "ha": ("compose.yaml", "compose.ha.yaml")}
_VARIABLES = {"RABBITMQ_PASSWORD": "ab12", "CONSOLE_KEY": "cd34"}


@pytest.mark.parametrize("kind", _FILES)
def test_the_files_break_no_rule(kind: str) -> None:
    assert refusals(read(*_FILES[kind])) == []


def _set(*path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(compose: dict[str, Any]) -> None:
        for key in path[:-1]:
            compose = compose[key]
        compose[path[-1]] = value

    return change


def _append(service: str, key: str, value: str) -> Callable[[dict[str, Any]], None]:
    return lambda compose: compose["services"][service][key].append(value)


_MUTANTS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "typo-in-mount": (_append("redis-2", "volumes", "./redis.cnf:/x:ro"), "redis-2: ./redis.cnf does not exist"),
    "writable-file": (_append("redis-2", "volumes", "./redis.conf:/x"), "redis-2: ./redis.conf can be written"),
    "typo-in-volume": (_append("rabbitmq-3", "volumes", "rabitmq-3:/x"), "rabbitmq-3: there is no volume rabitmq-3"),
    "typo-in-network": (_append("worker", "networks", "outbund"), "worker: unknown networks: outbund"),
    "typo-in-secret": (_append("rabbitmq", "secrets", "cookie"), "rabbitmq: unknown secrets: cookie"),
    "unhealthy": (
        lambda compose: compose["services"]["sentinel-2"].pop("healthcheck"),
        "worker: it waits for sentinel-2, which has no health check",
    ),
    "killed-early": (
        _set("services", "ingress-2", "stop_grace_period", value="30s"),
        "ingress-2: it is killed before its own limits",
    ),
    "deadlock": (
        _set("services", "rabbitmq-2", "depends_on", "rabbitmq", "condition", value="service_healthy"),
        "rabbitmq-2: it waits for rabbitmq, which waits for a majority of the nodes after a stop of all",
    ),
    "latest": (_set("services", "redis-3", "image", value="redis:7"), "redis-3: redis:7 is no exact version"),
    "rights": (_set("services", "sentinel-1", "cap_drop", value=[]), "sentinel-1: it keeps rights"),
    "privileged": (_set("services", "rabbitmq", "privileged", value=True), "rabbitmq: it has rights on the machine"),
    "root": (_set("services", "rabbitmq-2", "user", value="root"), "rabbitmq-2: it runs as root"),
    "writable": (_set("services", "console", "read_only", value=False), "console: its root can be written"),
    "port": (_set("services", "redis", "ports", value=["6379:6379"]), "redis: it publishes a port"),
    "password": (
        _set("services", "worker", "environment", "CALLFOLD_AMQP_URL", value="amqp://callfold:secret@rabbitmq/"),
        "worker: CALLFOLD_AMQP_URL has a secret in the file, or an empty one",
    ),
    "empty-password": (
        _set("services", "rabbitmq-2", "environment", "RABBITMQ_DEFAULT_PASS", value="${RABBITMQ_PASSWORD}"),
        "rabbitmq-2: RABBITMQ_DEFAULT_PASS has a secret in the file, or an empty one",
    ),
}


@pytest.mark.parametrize("name", _MUTANTS)
def test_files_that_break_a_rule_are_refused(name: str) -> None:
    change, reason = _MUTANTS[name]
    compose = copy.deepcopy(read(*_FILES["ha"]))
    change(compose)
    assert reason in refusals(compose)


def test_every_process_knows_all_nodes_and_all_sentinels_and_waits_for_what_it_declares_queues_on() -> None:
    compose = read(*_FILES["ha"])
    nodes = {name for name, service in compose["services"].items() if service.get("command") == ["rabbitmq-server"]}
    sentinels = {name for name, service in compose["services"].items() if service.get("command") == ["sentinel"]}
    assert (len(nodes), len(sentinels)) == (3, 3)
    for name, service in compose["services"].items():
        if service["image"] != "callfold:local":
            continue
        urls = interpolated(service["environment"]["CALLFOLD_AMQP_URL"], _VARIABLES)
        assert {urlsplit(url).hostname for url in urls.split(",")} == nodes, name
        assert set(re.findall(r"sentinel-\d", service["environment"]["CALLFOLD_REDIS_URL"])) == sentinels, name
        waits = {other for other, wait in service["depends_on"].items() if wait["condition"] == "service_healthy"}
        assert nodes <= waits, name
        assert "CALLFOLD_REDIS_REPLICAS" in service["environment"]


def test_the_nodes_of_the_configuration_are_the_services() -> None:
    compose = read(*_FILES["ha"])
    named = re.findall(
        r"(?m)^cluster_formation\.classic_config\.nodes\.\d = rabbit@(\S+)$", (DEPLOY / "rabbitmq-cluster.conf").read_text()
    )
    assert named == [name for name, service in compose["services"].items() if service.get("command") == ["rabbitmq-server"]]
    assert all(compose["services"][name]["hostname"] == name for name in named)
    assert "sentinel monitor calls redis 6379 2\n" in (DEPLOY / "sentinel.conf").read_text()
    assert compose["services"]["redis"]["hostname"] == "redis"
