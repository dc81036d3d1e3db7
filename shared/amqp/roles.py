"""Users of RabbitMQ with the least permissions, one for each kind of process, and one for each subscriber.

With `CALLFOLD_AMQP_DECLARE=false` no process but `callfold broker declare` needs more. RabbitMQ checks the default exchange as
`amq.default`. Who may publish to it may publish to any queue, so these users can write more than they do. They read nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from shared.amqp.topology import (
    AUDIT_JOURNAL,
    CALLBACKS,
    CALLBACKS_DEAD,
    CALLBACKS_FOLD,
    CALLBACKS_JOURNAL,
    CALLBACKS_QUARANTINE,
    CALLS,
    CALLS_JOURNAL,
    DIALS_JOURNAL,
    ECHO_QUEUE_PREFIX,
    ENDPOINTS_JOURNAL,
    FORWARD_DEAD,
    FORWARD_JOURNAL,
    FORWARD_PREFIX,
    OPS,
    OPS_JOURNAL,
    RECORDINGS,
    RECORDINGS_DEAD,
    STATE_JOURNAL,
)

USER_PREFIX = "callfold-"
SETUP = "setup"
_DEFAULT_EXCHANGE = "amq.default"
NOTHING = "^$"
_EVERYTHING = ".*"


@dataclass(frozen=True, slots=True)
class Role:
    """Permissions of a user as regular expressions on names; `topic` limits the routing keys that it may bind to `calls`."""

    configure: str = NOTHING
    write: str = NOTHING
    read: str = NOTHING
    topic: str | None = None


def _any_of(*names: str) -> str:
    return f"^({'|'.join(map(re.escape, names))})$"


_ECHOES = f"^{re.escape(ECHO_QUEUE_PREFIX)}"
_LOCKS = (
    rf"^({re.escape(CALLBACKS_DEAD)}|{re.escape(RECORDINGS_DEAD)}|{re.escape(FORWARD_DEAD)}|{re.escape(ENDPOINTS_JOURNAL)})\."
)
_FORWARD = f"^{re.escape(FORWARD_PREFIX)}"

ROLES: Mapping[str, Role] = {
    # Declares the topology, and is no user of a process.
    SETUP: Role(_EVERYTHING, _EVERYTHING, _EVERYTHING),
    "ingress": Role(_ECHOES, _any_of(CALLBACKS, OPS, _DEFAULT_EXCHANGE), _ECHOES),
    "worker": Role(
        write=_any_of(CALLBACKS, CALLS, OPS, RECORDINGS, _DEFAULT_EXCHANGE),
        read=_any_of(CALLBACKS_FOLD, CALLBACKS_JOURNAL, CALLS_JOURNAL, RECORDINGS, STATE_JOURNAL),
    ),
    # Its locks on dead letters are queues that end with their connection.
    "console": Role(
        _LOCKS,
        _any_of(CALLBACKS, CALLS, RECORDINGS, _DEFAULT_EXCHANGE),
        _any_of(
            *(AUDIT_JOURNAL, CALLBACKS_JOURNAL, CALLBACKS_QUARANTINE, CALLS_JOURNAL, DIALS_JOURNAL),
            *(CALLBACKS_DEAD, OPS_JOURNAL, RECORDINGS_DEAD),
            *(ENDPOINTS_JOURNAL, FORWARD_DEAD, FORWARD_JOURNAL),
        ),
    ),
    "history": Role(read=_any_of(AUDIT_JOURNAL, CALLS_JOURNAL, FORWARD_JOURNAL)),
    # It declares the queues of endpoints, since these change while it runs, and binds them to `calls`.
    "forward": Role(
        _FORWARD,
        f"{_FORWARD}|{_any_of(_DEFAULT_EXCHANGE)}",
        f"{_FORWARD}|{_any_of(CALLS, CALLS_JOURNAL, ENDPOINTS_JOURNAL)}",
    ),
}


def subscriber(name: str, source: str | None) -> Role:
    """Return the permissions of a subscriber to the events of one source, or of all; its queues begin with its name and a dot.

    Only a subscriber to all sources can read the journal, which has the events of all of them.

    A binding is a pattern too. `#` stands for any number of words, so it is allowed as the last word only. Before the source it
    could match events whose outcome has the name of the source.
    """
    own = rf"^{re.escape(name)}\."
    if source is None:
        return Role(own, own, f"{own}|{_any_of(CALLS, CALLS_JOURNAL)}")
    exchange = f"^{re.escape(CALLS)}$"
    source = re.escape(source)
    calls = rf"call\.([a-z]+|\*)\.{source}\.([a-z_]+|\*|#)"
    recordings = rf"recording\.([a-z]+|\*)\.{source}"
    return Role(own, own, f"{own}|{exchange}", topic=f"^({calls}|{recordings})$")


def operator(name: str) -> Role:
    """Return the permissions of a subscriber to operator events; its queues begin with its name and a dot. It reads no calls."""
    own = rf"^{re.escape(name)}\."
    return Role(own, own, f"{own}|^{re.escape(OPS)}$")


def users(roles: Mapping[str, Role], passwords: Mapping[str, str], *, vhost: str) -> Mapping[str, list[Mapping[str, object]]]:
    """Return users, permissions and topic permissions as definitions for RabbitMQ; the passwords are hashed."""
    definitions: dict[str, list[Mapping[str, object]]] = {"users": [], "permissions": [], "topic_permissions": []}
    for name, role in roles.items():
        user = USER_PREFIX + name
        hashed = {"password_hash": password_hash(passwords[name]), "hashing_algorithm": "rabbit_password_hashing_sha256"}
        definitions["users"].append({"name": user, **hashed, "tags": ""})
        of_user = {"user": user, "vhost": vhost}
        definitions["permissions"].append({**of_user, "configure": role.configure, "write": role.write, "read": role.read})
        if role.topic is not None:
            topics = {"exchange": CALLS, "write": NOTHING, "read": role.topic}
            definitions["topic_permissions"].append({**of_user, **topics})
    return definitions


def password_hash(password: str, salt: bytes | None = None) -> str:
    """Hash a password as RabbitMQ stores it: four bytes of salt, then SHA-256 of salt and password."""
    salt = secrets.token_bytes(4) if salt is None else salt
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode("ascii")
