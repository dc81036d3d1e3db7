"""Names and versions of servers, from what real ones have sent."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.server_version import OLDEST_SUPPORTED, ServerVersion, broker_version, store_version

_README = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")

# The beginning of `INFO server`.
_REDIS_7 = "# Server\r\nredis_version:7.0.15\r\nredis_git_sha1:00000000\r\nredis_git_dirty:0\r\nredis_mode:standalone\r\n"
_REDIS_8 = "# Server\r\nredis_version:8.0.2\r\nredis_git_sha1:00000000\r\nredis_git_dirty:0\r\nredis_mode:standalone\r\n"
_VALKEY_8 = (
    "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\nvalkey_release_stage:ga\r\n"
    "redis_git_sha1:00000000\r\nserver_mode:standalone\r\n"
)
_VALKEY_7 = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:7.2.5\r\nredis_git_sha1:00000000\r\n"


def _info(text: str) -> dict[str, str]:
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


@pytest.mark.parametrize(
    ("info", "shown"),
    [
        (_REDIS_7, "Redis 7.0.15"),
        (_REDIS_8, "Redis 8.0.2"),
        (_VALKEY_8, "Valkey 8.1.1"),
        (_VALKEY_7, "Valkey 7.2.5"),
        ("", "Redis unknown"),
    ],
)
def test_a_store_is_shown_by_its_own_name_and_version(info: str, shown: str) -> None:
    assert str(store_version(_info(info))) == shown


def test_a_broker_is_shown_by_its_own_name_and_version() -> None:
    assert str(broker_version({"product": "RabbitMQ", "version": "4.0.5", "platform": "Erlang/OTP 27.3.4.1"})) == "RabbitMQ 4.0.5"
    assert str(broker_version({})) == "RabbitMQ unknown"


@pytest.mark.parametrize(
    "server",
    [
        ServerVersion("RabbitMQ", "3.10.8"),
        ServerVersion("RabbitMQ", "4.3.0-rc.1"),
        ServerVersion("Redis", "7.0.0"),
        ServerVersion("Redis", "10.0.1"),
        ServerVersion("Valkey", "9.1.0"),
        ServerVersion("Valkey", "unknown"),
        ServerVersion("Another", "0.1"),
    ],
)
def test_a_supported_or_unknown_version_is_no_problem(server: ServerVersion) -> None:
    assert server.problem is None


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        (ServerVersion("RabbitMQ", "3.9.29"), "RabbitMQ 3.9.29 is too old. Upgrade to 3.10 or later."),
        (ServerVersion("Redis", "6.2.14"), "Redis 6.2.14 is too old. Upgrade to 7.0 or later."),
        (store_version(_info(_VALKEY_7)), "Valkey 7.2.5 is too old. Upgrade to 8.0 or later."),
    ],
)
def test_an_older_version_is_a_problem(server: ServerVersion, problem: str) -> None:
    assert server.problem == problem


def test_the_readme_lists_the_oldest_supported_versions() -> None:
    listed = re.findall(r"^\| (\w+) \| (\d+)\.(\d+) \|", _README, re.MULTILINE)
    assert {name: (int(major), int(minor)) for name, major, minor in listed} == dict(OLDEST_SUPPORTED)
