"""Name and version of a server, and the oldest supported version of each kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# The first two numbers of the oldest supported version. The README lists the same ones.
OLDEST_SUPPORTED: Mapping[str, tuple[int, int]] = {"RabbitMQ": (3, 10), "Redis": (7, 0), "Valkey": (8, 0)}
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ServerVersion:
    """A server that answered. `name` is its product, as in `OLDEST_SUPPORTED`."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def problem(self) -> str | None:
        """Why the version is not supported, and what to do; None for a supported or an unknown version."""
        oldest, known = OLDEST_SUPPORTED.get(self.name), _numbers(self.version)
        if oldest is None or not known or known >= oldest:
            return None
        return f"{self} is too old. Upgrade to {'.'.join(map(str, oldest))} or later."


def store_version(info: Mapping[str, object]) -> ServerVersion:
    """Read a server from its `INFO server`. For old clients, Valkey reports itself as Redis 7.2.4 too."""
    if info.get("server_name") == "valkey":
        return ServerVersion("Valkey", str(info.get("valkey_version", _UNKNOWN)))
    return ServerVersion("Redis", str(info.get("redis_version", _UNKNOWN)))


def broker_version(properties: Mapping[str, object]) -> ServerVersion:
    """Read a server from the properties it sent when it was connected to by AMQP."""
    return ServerVersion(str(properties.get("product", "RabbitMQ")), str(properties.get("version", _UNKNOWN)))


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:2]
    return tuple(map(int, parts)) if all(part.isascii() and part.isdigit() for part in parts) else ()
