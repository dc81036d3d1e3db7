"""Hints that are added to the error a command ends with."""

from __future__ import annotations

import os
import re

from shared.errors import BrokerUnavailableError, CallfoldError, HistoryUnavailableError, StoreUnavailableError
from shared.streams.errors import NotConnectedError

_SETTINGS: dict[type[CallfoldError], str] = {
    BrokerUnavailableError: "CALLFOLD_AMQP_URL",
    StoreUnavailableError: "CALLFOLD_REDIS_URL",
    HistoryUnavailableError: "CALLFOLD_HISTORY_URL",
}
_AFTER_RESTART = "If `callfold up` was restarted, its servers have new ports: source its `env` file again."
# `callfold up` runs a single Redis.
_SEVERAL_SERVERS = re.compile(r"rediss?\+")


def with_hint(error: CallfoldError, *, in_doctor: bool = False) -> str:
    """Return the error's sentence. If a server is unavailable, add the setting that names the server."""
    if isinstance(error, NotConnectedError):  # its sentence names the setting already
        return f"{error} {_AFTER_RESTART}"
    setting = _SETTINGS.get(type(error))
    if setting is None:
        return str(error)
    sentence = str(error).rstrip(".")
    if in_doctor:
        return f"{sentence}. Check {setting}.{_after_restart(setting)}"
    return f"{sentence}. Check {setting}, or run `callfold doctor`.{_after_restart(setting)}"


def _after_restart(setting: str) -> str:
    return "" if _SEVERAL_SERVERS.match(os.environ.get(setting, "")) else f" {_AFTER_RESTART}"
