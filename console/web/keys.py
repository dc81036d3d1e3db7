"""The console's keys and log-in cookies, and the identity behind a request.

The operator key may do everything; a viewer key may only read. A client sends its key as `Authorization: Bearer` or logs in with
it and gets a cookie. The cookie names the key, its expiry and the session, and is signed with the key. Removing a key from the
settings therefore ends its sessions. Keys and signatures are compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from aiohttp import web

from shared.config.settings import Settings

COOKIE = "callfold_session"
SESSION_S = 12 * 3600
_NAME_CHARACTERS = 12
_SESSION_BYTES = 16
_NO_ADDRESS = "unknown"


class Role(StrEnum):
    OPERATOR = "operator"
    VIEWER = "viewer"


class Key(NamedTuple):
    """One key. `name` identifies it in logs without disclosing it: the first characters of its SHA-256."""

    name: str
    role: Role
    secret: bytes


@dataclass(frozen=True, slots=True)
class Identity:
    """The key and role behind a request.

    Attributes:
        name: the name of the key, or the address of the client if the console has no keys.
        csrf: the token that a form must send to change something; empty if the request carries the key itself.
        is_session: whether the identity comes from a cookie, which a browser sends by itself.
    """

    name: str
    role: Role
    csrf: str = ""
    is_session: bool = False

    @property
    def may_change(self) -> bool:
        return self.role is Role.OPERATOR


IDENTITY = web.RequestKey("identity", Identity)


class Keys:
    """The configured keys. Without any, which is allowed on loopback only, every client is an operator."""

    def __init__(self, settings: Settings) -> None:
        self._keys: list[Key] = []
        if settings.console_key is not None:
            self._keys.append(_key(Role.OPERATOR, settings.console_key.get_secret_value()))
        self._keys += [_key(Role.VIEWER, key) for key in settings.viewer_keys]

    @property
    def are_required(self) -> bool:
        return bool(self._keys)

    def by_secret(self, secret: str) -> Key | None:
        """Find the key with this secret. All keys are compared, so that the duration discloses nothing."""
        digest = hashlib.sha256(to_bytes(secret)).digest()
        matching = [key for key in self._keys if hmac.compare_digest(hashlib.sha256(key.secret).digest(), digest)]
        return matching[0] if matching else None

    def open_session(self, key: Key) -> str:
        """Create the cookie of a log-in."""
        session = f"{key.name}.{int(time.time()) + SESSION_S}.{secrets.token_hex(_SESSION_BYTES)}"
        return f"{session}.{_sign(key, 'session', session)}"

    def by_session(self, cookie: str) -> Key | None:
        """Find the key of a cookie; None if its signature is wrong or it has expired."""
        session, _, signature = cookie.rpartition(".")
        key = self._named(session)
        if key is None or not _is_signed(key, session, signature):
            return None
        return key if int(session.split(".")[1]) > time.time() else None

    def identify(self, request: web.Request) -> Identity | None:
        """Identify the client of a request; None if it has no valid key or cookie."""
        if not self._keys:
            return Identity(f"address {request.remote or _NO_ADDRESS}", Role.OPERATOR)
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if secret:
            key = self.by_secret(secret.strip()) if scheme.lower() == "bearer" else None
            return Identity(key.name, key.role) if key else None
        cookie = request.cookies.get(COOKIE, "")
        key = self.by_session(cookie)
        return Identity(key.name, key.role, _sign(key, "csrf", cookie), is_session=True) if key else None

    def is_guess(self, request: web.Request) -> bool:
        """Return whether a request without identity carries a wrong key, or a wrong signature in the name of a key.

        An expired cookie, or one of a key that was removed, is not a guess: browsers keep sending it.
        """
        if request.headers.get("Authorization", "").partition(" ")[2]:
            return True
        session, _, signature = request.cookies.get(COOKIE, "").rpartition(".")
        key = self._named(session)
        return key is not None and not _is_signed(key, session, signature)

    def _named(self, session: str) -> Key | None:
        """Find the key that a session names."""
        name = session.partition(".")[0]
        return next((key for key in self._keys if key.name == name), None)


def _key(role: Role, text: str) -> Key:
    return Key(hashlib.sha256(text.encode()).hexdigest()[:_NAME_CHARACTERS], role, text.encode())


def _sign(key: Key, purpose: str, text: str) -> str:
    return hmac.new(key.secret, to_bytes(f"{purpose} {text}"), "sha256").hexdigest()


def _is_signed(key: Key, session: str, signature: str) -> bool:
    return hmac.compare_digest(_sign(key, "session", session).encode(), to_bytes(signature))


def to_bytes(header: str) -> bytes:
    """Return the bytes that a header arrived as, valid UTF-8 or not."""
    return header.encode("utf-8", "surrogateescape")
