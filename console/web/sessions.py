"""Log-in and log-out: a cookie in exchange for a key, a limit on failed log-ins, and log-outs that every console respects."""

from __future__ import annotations

import hashlib

from aiohttp import web

from console.page import render
from console.page.models import LoginPage
from console.web.keys import COOKIE, SESSION_S, Keys
from console.web.page_responses import html
from console.web.parameters import read_form
from console.web.wrong_keys import MINUTE_S, WrongKeys
from shared.runtime.audit import Action, Audit
from shared.runtime.client_address import Proxies
from shared.state.store import Store


class EndedSessions:
    """Logged-out sessions, kept in Redis until their cookies would have expired."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, cookie: str) -> None:
        """End the session of a cookie.

        Raises:
            StoreUnavailableError: the session stays valid.
        """
        await self._store.flags.set(_name(cookie), expires_in_s=SESSION_S)

    async def contain(self, cookie: str) -> bool:
        """Return whether the session of a cookie has ended.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        return await self._store.flags.is_set(_name(cookie))


def _name(cookie: str) -> str:
    return f"session/{hashlib.sha256(cookie.encode('utf-8', 'surrogateescape')).hexdigest()}"


class Sessions:
    """The log-in form, log-in and log-out."""

    def __init__(self, keys: Keys, ended: EndedSessions, audit: Audit, failures: WrongKeys, proxies: Proxies) -> None:
        self._keys = keys
        self._ended = ended
        self._audit = audit
        self._failures = failures
        self._proxies = proxies

    async def form(self, request: web.Request) -> web.Response:
        if not self._keys.are_required:
            raise web.HTTPSeeOther("/")
        return html(render.login_page(LoginPage(_local_path(request.query.get("next", "/")))))

    async def log_in(self, request: web.Request) -> web.Response:
        """Set a session cookie if the posted key is valid."""
        form, client = await read_form(request), self._proxies.client(request)
        target = _local_path(str(form.get("next", "/")))
        if self._failures.is_limited(client):
            await self._failures.add(client)
            text = "Too many failed log-ins from this address. Wait a minute and try again."
            response = html(render.login_page(LoginPage(target, text)), status=429)
            response.headers["Retry-After"] = str(MINUTE_S)
            return response
        key = self._keys.by_secret(str(form.get("key", "")))
        if key is None:
            await self._failures.add(client)
            return html(render.login_page(LoginPage(target, "Unknown key. Check it and try again.")), status=401)
        await self._audit.record(Action.LOG_IN, key.name, role=key.role)
        response = web.Response(status=303, headers={"Location": target})
        is_secure = request.secure or request.headers.get("X-Forwarded-Proto") == "https"
        response.set_cookie(
            COOKIE, self._keys.open_session(key), max_age=SESSION_S, httponly=True, samesite="Strict", secure=is_secure, path="/"
        )
        return response

    async def log_out(self, request: web.Request) -> web.Response:
        """End the session. From then on no console accepts its cookie or any copy of it."""
        cookie = request.cookies.get(COOKIE)
        if cookie:
            await self._ended.add(cookie)
        response = web.Response(status=303, headers={"Location": "/login"})
        response.del_cookie(COOKIE, path="/")
        return response


def _local_path(target: str) -> str:
    """Return the path to open after log-in; `/` if it could lead to another site."""
    is_local = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if is_local else "/"
