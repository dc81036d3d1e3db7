"""`callfold broker`: definitions for RabbitMQ, and the declaration of queues."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import orjson
from yarl import URL

from shared.amqp.definitions import policies
from shared.amqp.roles import NOTHING, ROLES, USER_PREFIX, Role, operator, subscriber, users
from shared.amqp.server_check import check_server
from shared.amqp.topology import CALLS, ECHO_QUEUE_PREFIX
from shared.config.settings import Settings
from shared.domain.ids import SourceName
from shared.errors import ConfigError
from shared.runtime.broker import broker_address, whole_topology

_PASSWORD_BYTES = 24
_ALL = "*"
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
        taken = roles.keys() | _taken(settings)
        roles |= {_new_name(name, taken): operator(name) for name in operators}
        printed = {**users(roles, _passwords(directory, roles), vhost=vhost), **printed}
    sys.stdout.write(orjson.dumps(printed, option=orjson.OPT_INDENT_2).decode() + "\n")
    return 0


def virtual_host(settings: Settings) -> str:
    """Return the virtual host of the first address."""
    return unquote(URL(settings.amqp_urls[0]).raw_path.lstrip("/")) or "/"


def subscriber_commands(settings: Settings, named: str, *, is_leaving: bool) -> int:
    """Print the commands that create the user of one subscriber, or those that delete it with its queues.

    Raises:
        ConfigError: the subscriber is misspelled or of an unknown source.
    """
    ((name, role),) = _subscribers(settings, [named]).items()
    user, at = f"{USER_PREFIX}{name}", ("-p", virtual_host(settings))
    if is_leaving:
        listed = shlex.join(("rabbitmqctl", "list_queues", *at, "-q", "--no-table-headers", "name"))
        delete = shlex.join(("rabbitmqctl", "delete_queue", *at))
        lines = [
            shlex.join(("rabbitmqctl", "delete_user", user)),
            f"{listed} | grep {shlex.quote(role.configure)} | xargs -r -n 1 {delete}",
        ]
    else:
        rights = ("rabbitmqctl", "set_permissions", *at, user, role.configure, role.write, role.read)
        lines = [shlex.join(("rabbitmqctl", "add_user", user)), shlex.join(rights)]
        if role.topic is not None:
            lines.append(shlex.join(("rabbitmqctl", "set_topic_permissions", *at, user, CALLS, NOTHING, role.topic)))
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def _subscribers(settings: Settings, named: Sequence[str]) -> Mapping[str, Role]:
    sources = settings.load_sources()
    roles: dict[str, Role] = {}
    for each in named:
        name, separator, source = each.partition("=")
        if not separator or not _NAME.fullmatch(name) or name in _taken(settings):
            raise ConfigError(
                f"Invalid subscriber {each!r}. Expected NAME=SOURCE, e.g. billing=acme, or billing=* for all sources."
            )
        if source != _ALL and SourceName(source) not in sources:
            raise ConfigError(
                f"Unknown source {source!r} of a subscriber. Configured: {', '.join(sources)}. Check CALLFOLD_SOURCES."
            )
        roles[name] = subscriber(name, None if source == _ALL else source)
    return roles


def _taken(settings: Settings) -> AbstractSet[str]:
    """Return the names that no subscriber may have: a queue of Callfold begins with one and a dot, or a process has it."""
    topology = whole_topology(settings)
    names = [ECHO_QUEUE_PREFIX, *(queue.name for queue in topology.queues), *(exchange.name for exchange in topology.exchanges)]
    return {*ROLES, *(name.partition(".")[0] for name in names)}


def _new_name(name: str, taken: AbstractSet[str]) -> str:
    if not _NAME.fullmatch(name) or name in taken:
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
