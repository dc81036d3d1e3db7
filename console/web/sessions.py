"""Logging in and out: a cookie for a key, patience asked of who tries many keys, an end to a cookie that every console heeds."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict, deque

from aiohttp import web

from console.page import render
from console.page.models import LoginPage
from console.web.access import COOKIE, SESSION_S, Keys, is_local_path, read_form
from console.web.client_address import Proxies
from console.web.problems import html
from shared.runtime.audit import Action, Audit
from shared.state.store import Store

_REFUSALS_A_MINUTE = 30
_MINUTE_S = 60
_CLIENTS_KEPT = 10_000


class Attempts:
    """Wrong keys of the last minute, by client: who tries many waits, and nobody else for him."""

    def __init__(self) -> None:
        self._refused: OrderedDict[str, deque[float]] = OrderedDict()

    def are_too_many(self, client: str) -> bool:
        refused = self._refused.get(client, deque[float]())
        return len(refused) == _REFUSALS_A_MINUTE and time.monotonic() - refused[0] < _MINUTE_S

    def add(self, client: str) -> None:
        self._refused.setdefault(client, deque(maxlen=_REFUSALS_A_MINUTE)).append(time.monotonic())
        self._refused.move_to_end(client)
        while len(self._refused) > _CLIENTS_KEPT:
            self._refused.popitem(last=False)


class Ended:
    """Sessions that were logged out: noted in Redis for as long as their cookies would be good."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, cookie: str) -> None:
        """End a session.

        Raises:
            StoreUnavailableError: it goes on.
        """
        await self._store.flags.set(_name(cookie), expires_in_s=SESSION_S)

    async def has(self, cookie: str) -> bool:
        """Tell whether a session was ended.

        Raises:
            StoreUnavailableError: it cannot be told.
        """
        return await self._store.flags.is_set(_name(cookie))


def _name(cookie: str) -> str:
    return f"session/{hashlib.sha256(cookie.encode('utf-8', 'surrogateescape')).hexdigest()}"


class Sessions:
    """The log-in form, what it gives, and what takes it back."""

    def __init__(self, keys: Keys, ended: Ended, audit: Audit, proxies: Proxies) -> None:
        self._keys = keys
        self._ended = ended
        self._audit = audit
        self._proxies = proxies
        self._attempts = Attempts()

    async def login(self, request: web.Request) -> web.Response:
        following = request.query.get("next", "/")
        if not self._keys.are_asked_for:
            raise web.HTTPSeeOther("/")
        return html(render.login_page(LoginPage(following if is_local_path(following) else "/")))

    async def log_in(self, request: web.Request) -> web.Response:
        """Give a cookie for a key."""
        form, client = await read_form(request), self._proxies.client(request)
        following = str(form.get("next", "/"))
        following = following if is_local_path(following) else "/"
        if self._attempts.are_too_many(client):
            answer = html(render.login_page(LoginPage(following, "Too many wrong keys: wait a minute.")), status=429)
            answer.headers["Retry-After"] = str(_MINUTE_S)
            return answer
        key = self._keys.by_secret(str(form.get("key", "")))
        if key is None:
            self._attempts.add(client)
            await self._audit.record(Action.LOG_IN_REFUSED, client)
            return html(render.login_page(LoginPage(following, "This key is not known here.")), status=401)
        await self._audit.record(Action.LOG_IN, key.who, role=key.role)
        answer = web.Response(status=303, headers={"Location": following})
        is_secure = request.secure or request.headers.get("X-Forwarded-Proto") == "https"
        answer.set_cookie(
            COOKIE, self._keys.open_session(key), max_age=SESSION_S, httponly=True, samesite="Strict", secure=is_secure, path="/"
        )
        return answer

    async def log_out(self, request: web.Request) -> web.Response:
        """End the session: its cookie, copies of it included, is good for nothing from then on."""
        cookie = request.cookies.get(COOKIE)
        if cookie:
            await self._ended.add(cookie)
        answer = web.Response(status=303, headers={"Location": "/login"})
        answer.del_cookie(COOKIE, path="/")
        return answer
