"""Who may do what on the console: keys, log-in cookies, and which requests of a browser are meant.

The operator key may do everything, a viewer key may read. A key comes as `Authorization: Bearer`, or as a cookie that the log-in
form gives for it: who, until when, and which session, signed with the key itself, so that taking a key out of the settings logs
its holders out; a session that was logged out is over for every copy of its cookie.
Keys and signatures are compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from multidict import MultiDictProxy
from yarl import URL

from console.web.problems import problem
from shared.config.settings import LOOPBACK, Settings

COOKIE = "callfold_session"
CSRF_FIELD = "csrf"
CSRF_HEADER = "X-CSRF-Token"
SESSION_S = 12 * 3600
_READING = frozenset({"GET", "HEAD"})
_NAME_CHARACTERS = 12
_SESSION_BYTES = 16
_OPEN = "loopback"


class Role(StrEnum):
    OPERATOR = "operator"
    VIEWER = "viewer"


class Key(NamedTuple):
    """One key; `who` names it without telling it: the beginning of its SHA-256."""

    who: str
    role: Role
    secret: bytes


@dataclass(frozen=True, slots=True)
class Identity:
    """Who makes a request.

    Attributes:
        csrf: what a form must send with it to change something; empty where the key itself was sent.
        is_session: whether a cookie said so, which a browser sends unasked.
    """

    who: str
    role: Role
    csrf: str = ""
    is_session: bool = False

    @property
    def may_change(self) -> bool:
        return self.role is Role.OPERATOR


WHO = web.RequestKey("who", Identity)


class Keys:
    """The keys of the console. Without any, which is accepted on loopback only, everybody is an operator."""

    def __init__(self, settings: Settings) -> None:
        self._keys: list[Key] = []
        if settings.console_key is not None:
            self._keys.append(_key(Role.OPERATOR, settings.console_key.get_secret_value()))
        viewers = settings.console_viewer_keys.get_secret_value() if settings.console_viewer_keys else ""
        self._keys += [_key(Role.VIEWER, text.strip()) for text in viewers.split(",") if text.strip()]

    @property
    def are_asked_for(self) -> bool:
        return bool(self._keys)

    def by_secret(self, given: str) -> Key | None:
        """Find the key that was given; all are compared, so that the time taken tells nothing."""
        digest = hashlib.sha256(_bytes(given)).digest()
        found = [key for key in self._keys if hmac.compare_digest(hashlib.sha256(key.secret).digest(), digest)]
        return found[0] if found else None

    def open_session(self, key: Key) -> str:
        """Write the cookie of a log-in."""
        told = f"{key.who}.{int(time.time()) + SESSION_S}.{secrets.token_hex(_SESSION_BYTES)}"
        return f"{told}.{_sign(key, 'session', told)}"

    def by_session(self, cookie: str) -> Key | None:
        """Find the key of a cookie that is ours and not over."""
        told, _, signature = cookie.rpartition(".")
        who, _, rest = told.partition(".")
        key = next((key for key in self._keys if key.who == who), None)
        if key is None or not hmac.compare_digest(_sign(key, "session", told).encode(), _bytes(signature)):
            return None
        return key if int(rest.partition(".")[0]) > time.time() else None

    def identify(self, request: web.Request) -> Identity | None:
        """Tell who makes a request; None where no key of ours speaks for it."""
        if not self._keys:
            return Identity(_OPEN, Role.OPERATOR)
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if given:
            key = self.by_secret(given.strip()) if scheme.lower() == "bearer" else None
            return Identity(key.who, key.role) if key else None
        cookie = request.cookies.get(COOKIE, "")
        key = self.by_session(cookie)
        return Identity(key.who, key.role, _sign(key, "csrf", cookie), is_session=True) if key else None


def _key(role: Role, text: str) -> Key:
    return Key(hashlib.sha256(text.encode()).hexdigest()[:_NAME_CHARACTERS], role, text.encode())


def _sign(key: Key, purpose: str, told: str) -> str:
    return hmac.new(key.secret, _bytes(f"{purpose} {told}"), "sha256").hexdigest()


def _bytes(header: str) -> bytes:
    """Turn what came in a header, of whatever bytes, back into them."""
    return header.encode("utf-8", "surrogateescape")


def is_local_path(path: str) -> bool:
    """Tell whether a path to go on to after log-in stays here."""
    return path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()


@dataclass(frozen=True, slots=True)
class Doors:
    """Route patterns that are let through in their own way.

    Attributes:
        public: need no key.
        pages: who comes to them without a key is sent to the log-in form.
        harmless: change nothing, though they are posted: a viewer may.
    """

    public: frozenset[str]
    pages: frozenset[str]
    harmless: frozenset[str]


def guard(keys: Keys, doors: Doors, is_ended: Callable[[str], Awaitable[bool]]) -> Middleware:
    """Make the middleware that lets requests through; `is_ended` tells of a cookie whether its session was logged out."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        pattern = resource.canonical if resource else ""
        identity = keys.identify(request)
        if identity is not None and identity.is_session and pattern not in doors.public:
            identity = None if await is_ended(request.cookies[COOKIE]) else identity
        refusal = _is_misled(request, is_open=not keys.are_asked_for)
        if refusal is None and identity is None and pattern not in doors.public and resource is not None:
            if pattern in doors.pages:
                raise web.HTTPSeeOther(URL("/login").with_query(next=request.rel_url.path_qs))
            given = "Authorization" in request.headers
            title = "This key is not known here." if given else "A key is needed: Authorization: Bearer <CALLFOLD_CONSOLE_KEY>."
            refusal = problem(401, title, {"WWW-Authenticate": "Bearer"})
        if refusal is None and identity is not None:
            request[WHO] = identity
            if request.method not in _READING and pattern not in doors.public:
                refusal = await _may_post(request, identity, is_harmless=pattern in doors.harmless)
        return refusal or await handler(request)

    return check


def _is_misled(request: web.Request, *, is_open: bool) -> web.Response | None:
    """Refuse what a browser was led to send by a page elsewhere."""
    if is_open and _host(request.host) not in LOOPBACK:
        # A name of somebody's own that leads to this machine must not read or dial.
        return problem(403, "Without CALLFOLD_CONSOLE_KEY the console answers under the names of this machine only.")
    if request.method not in _READING and not _is_from_here(request):
        return problem(403, "This request comes from another site.")
    return None


async def _may_post(request: web.Request, identity: Identity, *, is_harmless: bool) -> web.Response | None:
    """Refuse a change that is not this visitor's to make, or not meant by him."""
    if not identity.may_change and not is_harmless:
        return problem(403, "A viewer key may only read.")
    if identity.is_session and not await _has_token(request, identity):
        return problem(403, f"The {CSRF_HEADER} is missing or wrong: load the page again.")
    return None


def _host(authority: str) -> str:
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:  # half an IPv6 address
        return ""


def _is_from_here(request: web.Request) -> bool:
    """Tell whether a changing request can come from a page of ours, or from no page at all."""
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        return False
    origin = request.headers.get("Origin")
    return origin is None or origin.partition("://")[2] == request.host


async def read_form(request: web.Request) -> MultiDictProxy[str | bytes | bytearray | web.FileField]:
    """Read a posted form.

    Raises:
        HTTPBadRequest: it is not written in a character set that we know, or in that one.
    """
    try:
        return await request.post()
    except (LookupError, ValueError) as error:
        raise web.HTTPBadRequest(reason="The form cannot be read") from error


async def _has_token(request: web.Request, identity: Identity) -> bool:
    given = request.headers.get(CSRF_HEADER, "")
    if not given and request.content_type == "application/x-www-form-urlencoded":
        given = str((await read_form(request)).get(CSRF_FIELD, ""))
    return hmac.compare_digest(_bytes(given), identity.csrf.encode())
