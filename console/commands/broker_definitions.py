"""`callfold broker`: definitions for RabbitMQ, and the declaration of queues."""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import orjson
from yarl import URL

from shared.amqp.definitions import policies
from shared.amqp.roles import ROLES, Role, operator, subscriber, users
from shared.amqp.server_check import check_server
from shared.config.settings import Settings
from shared.domain.ids import SourceName
from shared.errors import ConfigError
from shared.runtime.broker import broker_address, whole_topology

_PASSWORD_BYTES = 24
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}", re.ASCII)


def definitions(settings: Settings, directory: Path | None, subscribers: Sequence[str], operators: Sequence[str]) -> int:
    """Print the policies, and with a directory of passwords the users too.

    Raises:
        ConfigError: a subscriber is misspelled or of an unknown source, or the directory cannot be used.
    """
    vhost = virtual_host(settings)
    printed: Mapping[str, object] = {"policies": policies(whole_topology(settings), vhost=vhost)}
    if (subscribers or operators) and directory is None:
        option = "--subscriber" if subscribers else "--operator"
        raise ConfigError(f"{option} needs --users, the directory of passwords.")
    if directory is not None:
        roles = {**ROLES, **_subscribers(settings, subscribers)}
        roles |= {_new_name(name, roles): operator(name) for name in operators}
        printed = {**users(roles, _passwords(directory, roles), vhost=vhost), **printed}
    sys.stdout.write(orjson.dumps(printed, option=orjson.OPT_INDENT_2).decode() + "\n")
    return 0


def virtual_host(settings: Settings) -> str:
    """Return the virtual host of the first address."""
    return unquote(URL(settings.amqp_urls[0]).raw_path.lstrip("/")) or "/"


def _subscribers(settings: Settings, named: Sequence[str]) -> Mapping[str, Role]:
    sources = settings.load_sources()
    roles: dict[str, Role] = {}
    for each in named:
        name, separator, source = each.partition("=")
        if not separator or not _NAME.fullmatch(name) or name in ROLES:
            raise ConfigError(f"Invalid --subscriber {each!r}. Expected NAME=SOURCE, e.g. billing=acme.")
        if SourceName(source) not in sources:
            raise ConfigError(
                f"Unknown source {source!r} in --subscriber. Configured: {', '.join(sources)}. Check CALLFOLD_SOURCES."
            )
        roles[name] = subscriber(name, source)
    return roles


def _new_name(name: str, roles: Mapping[str, Role]) -> str:
    if not _NAME.fullmatch(name) or name in roles:
        raise ConfigError(f"Invalid --operator {name!r}. Expected a new name of lower-case letters and digits, e.g. noc.")
    return name


def _passwords(directory: Path, roles: Mapping[str, Role]) -> Mapping[str, str]:
    """Read the password of each user from its file, and create what is missing. Only its owner can read a file."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return {name: _password(directory / name) for name in roles}
    except OSError as error:
        raise ConfigError(f"Cannot use {error.filename}: {error.strerror}.") from error


def _password(path: Path) -> str:
    if path.exists():
        return path.read_text("utf-8").strip()
    password = secrets.token_hex(_PASSWORD_BYTES)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f"{password}\n")
    return password


async def declare(settings: Settings) -> int:
    """Declare queues, exchanges and bindings, whatever `CALLFOLD_AMQP_DECLARE` says.

    Raises:
        BrokerUnavailableError: no server answers, or the user may not declare.
        ConfigError: a queue or exchange exists with other arguments.
    """
    topology = whole_topology(settings)
    server = await check_server(replace(broker_address(settings, "setup"), topology=topology))
    names = ", ".join(queue.name for queue in topology.queues)
    sys.stdout.write(f"Declared at {server.location}: {names}\n")
    return 0
