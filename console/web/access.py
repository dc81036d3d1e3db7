"""The middleware that lets requests through: it checks the key, the role, and that a browser meant to send the request."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from yarl import URL

from console.web.keys import COOKIE, IDENTITY, Identity, Keys, to_bytes
from console.web.parameters import read_form
from console.web.problems import problem
from console.web.wrong_keys import MAX_PER_MINUTE, MINUTE_S, WrongKeys
from shared.config.settings import LOOPBACK
from shared.runtime.client_address import Proxies
from shared.runtime.http_protocol import media_type

_CSRF_FIELD = "csrf"
_CSRF_HEADER = "X-CSRF-Token"
_READING = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class AccessRules:
    """Route patterns with special rules.

    Attributes:
        public: need no key.
        pages: redirect a client without a key to the log-in form.
        read_only: change nothing although they use POST, so a viewer may use them.
    """

    public: frozenset[str]
    pages: frozenset[str]
    read_only: frozenset[str]


class Guard:
    """Identifies the client of a request, and limits a client that guesses keys or forges cookies."""

    def __init__(
        self, keys: Keys, is_session_ended: Callable[[str], Awaitable[bool]], wrong_keys: WrongKeys, proxies: Proxies
    ) -> None:
        """`is_session_ended` returns whether the session of a cookie was logged out."""
        self._keys = keys
        self._is_session_ended = is_session_ended
        self._wrong_keys = wrong_keys
        self._proxies = proxies
        self.is_open = not keys.are_required

    async def identify(self, request: web.Request, *, is_public: bool) -> Identity | None:
        """Return the identity behind a request; None if it has no valid key or cookie.

        Raises:
            HTTPTooManyRequests: its key or cookie is wrong, and so were too many of this client. A valid key is always accepted.
        """
        identity = self._keys.identify(request)
        if is_public:
            return identity
        if identity is None:
            if self._keys.is_guess(request):
                await self._refuse_guess(self._proxies.client(request))
        elif identity.is_session and await self._is_session_ended(request.cookies[COOKIE]):
            return None
        return identity

    async def _refuse_guess(self, client: str) -> None:
        is_limited = self._wrong_keys.is_limited(client)
        await self._wrong_keys.add(client)
        if is_limited:
            reason = f"More than {MAX_PER_MINUTE} wrong keys in a minute came from this address. Wait and send a valid key"
            raise web.HTTPTooManyRequests(reason=reason, headers={"Retry-After": str(MINUTE_S)})


def access_middleware(guard: Guard, rules: AccessRules) -> Middleware:
    """Create the middleware."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        pattern = resource.canonical if resource else ""
        identity = await guard.identify(request, is_public=pattern in rules.public)
        refusal = _refuse_foreign(request, is_open=guard.is_open)
        if refusal is None and identity is None and pattern not in rules.public and resource is not None:
            if pattern in rules.pages:
                raise web.HTTPSeeOther(URL("/login").with_query(next=request.rel_url.path_qs))
            refusal = _refuse_unidentified(request)
        if refusal is None and identity is not None:
            request[IDENTITY] = identity
            if request.method not in _READING and pattern not in rules.public:
                refusal = await _refuse_change(request, identity, is_read_only=pattern in rules.read_only)
        return refusal or await handler(request)

    return check


def _refuse_foreign(request: web.Request, *, is_open: bool) -> web.Response | None:
    """Refuse a request that a page of another site made a browser send."""
    if is_open and _host(request.host) not in LOOPBACK:
        # An attacker's host name that resolves to this machine must not read or dial.
        title = "Without CALLFOLD_CONSOLE_KEY the console answers only to localhost, 127.0.0.1 and ::1. Use one of them as host."
        return problem(403, title)
    if request.method not in _READING and not _is_same_origin(request):
        return problem(403, "The request comes from a page of another site. Send it from a page of the console.")
    return None


def _refuse_unidentified(request: web.Request) -> web.Response:
    title = "A key is required. Send Authorization: Bearer <CALLFOLD_CONSOLE_KEY>."
    if "Authorization" in request.headers:
        title = "The key is unknown. Check it against CALLFOLD_CONSOLE_KEY and CALLFOLD_CONSOLE_VIEWER_KEYS."
    return problem(401, title, {"WWW-Authenticate": "Bearer"})


async def _refuse_change(request: web.Request, identity: Identity, *, is_read_only: bool) -> web.Response | None:
    """Refuse a change that the key does not allow, or that lacks the token of the page."""
    if not identity.may_change and not is_read_only:
        return problem(403, "A viewer key may only read. Use the operator key (CALLFOLD_CONSOLE_KEY).")
    if identity.is_session and not await _has_token(request, identity):
        return problem(403, f"The {_CSRF_HEADER} is missing or wrong. Reload the page and try again.")
    return None


def _host(authority: str) -> str:
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:  # half an IPv6 address
        return ""


def _is_same_origin(request: web.Request) -> bool:
    """Return whether a changing request can come from a page of this console, or from no page at all."""
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        return False
    origin = request.headers.get("Origin")
    return origin is None or origin.partition("://")[2] == request.host


async def _has_token(request: web.Request, identity: Identity) -> bool:
    token = request.headers.get(_CSRF_HEADER, "")
    if not token and media_type(request) == "application/x-www-form-urlencoded":
        token = str((await read_form(request)).get(_CSRF_FIELD, ""))
    return hmac.compare_digest(to_bytes(token), identity.csrf.encode())
