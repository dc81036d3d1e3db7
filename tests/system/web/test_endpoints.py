"""Webhooks over HTTP: added, changed, tested and removed at any console; secrets go in and never come out."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from standardwebhooks.webhooks import Webhook

from console.local.ports import free_port
from shared.webhooks.signing import new_secret
from tests.helpers.console import AS_VIEWER, AUTHORIZED, KEY, VIEWER_KEY, World, world
from tests.helpers.servers import Servers

FILE_SECRET = new_secret()
_FILE = f'[endpoints.bi]\nurl = "https://bi.example.com/in?token=hunter2"\nsecret = "{FILE_SECRET}"\n'


class Receiver:
    """A receiver of webhooks that keeps what it got."""

    def __init__(self) -> None:
        self.port = free_port()
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status = 204
        self.text = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?key=hunter2"

    async def _receive(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        return web.Response(status=self.status, text=self.text)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_post("/hook", self._receive)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self.port).start()
            yield
        finally:
            await runner.cleanup()


@pytest_asyncio.fixture(scope="module")
async def here(shared_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    file = tmp_path_factory.mktemp("endpoints") / "endpoints.toml"
    Path(file).write_text(_FILE, "utf-8")
    more = {"CALLFOLD_CONSOLE_KEY": KEY, "CALLFOLD_CONSOLE_VIEWER_KEYS": VIEWER_KEY, "CALLFOLD_ENDPOINTS": str(file)}
    async with world(shared_servers, "[sources.acme]\n", "console", **more) as made:
        made.add_console("other", **more)
        await made.roles["other"].start()
        yield made


async def _do(here: World, method: str, path: str, body: object = None, **more: Any) -> tuple[int, Any]:  # noqa: ANN401
    headers = {**AUTHORIZED, **more.pop("headers", {})}
    given: dict[str, Any] = {} if body is None else {"json": body}
    status, told, _ = await here.ask(method, f"/endpoints{path}", headers=headers, **given, **more)
    return status, told


async def test_an_endpoint_lives_from_add_to_remove_on_every_console(here: World) -> None:
    given = {"name": "crm", "url": "https://crm.example.com/in?token=hunter2", "headers": {"X-Key": "hunter3"}}
    status, told = await _do(here, "POST", "", given)
    secret = told["new_secret"]
    assert (status, secret[:6], told["endpoint"]["settings"]["headers"]) == (201, "whsec_", {"X-Key": None})
    assert (await _do(here, "POST", "", given, console="other"))[0] == 409
    for headers, url in ((AUTHORIZED, given["url"]), (AS_VIEWER, "https://crm.example.com")):
        status, seen, _ = await here.get("/endpoints/crm", console="other", headers=headers)
        assert (status, seen["settings"]["url"], seen["origin"], seen["is_active"]) == (200, url, "api", True)
        assert not {secret, "hunter3"} & set(str(seen).replace("'", " ").split())
    # What was read can be sent back, and keeps secret and header.
    changed = {**told["endpoint"]["settings"], "filter": ["call.completed.#"], "max_in_flight": 2}
    status, seen = await _do(here, "PUT", "/crm", changed, console="other")
    assert (status, seen["settings"]["filter"], seen["secret"]) == (200, ["call.completed.#"], told["endpoint"]["secret"])
    status, seen = await _do(here, "POST", "/crm/secret", {})
    assert (status, seen["endpoint"]["previous_secrets"]) == (200, [told["endpoint"]["secret"]])
    assert (await _do(here, "DELETE", "/crm/previous-secrets"))[1]["previous_secrets"] == []
    assert (await _do(here, "POST", "/crm/disable"))[1]["is_active"] is False
    assert (await _do(here, "POST", "/crm/enable"))[1]["is_active"] is True
    assert (await _do(here, "DELETE", "/crm"))[0] == 204
    assert (await _do(here, "GET", "/crm", console="other"))[0] == 404


async def test_a_viewer_changes_and_tests_nothing(here: World) -> None:
    for method, path in (("POST", ""), ("PUT", "/bi"), ("DELETE", "/bi"), ("POST", "/bi/test"), ("POST", "/bi/secret")):
        status, _, _ = await here.ask(method, f"/endpoints{path}", headers=AS_VIEWER, json={})
        assert status == 403


async def test_an_endpoint_of_the_file_is_shown_and_changed_there(here: World) -> None:
    (told,) = (await _do(here, "GET", ""))[1]["endpoints"]
    assert (told["name"], told["origin"], told["file"].rpartition("/")[2]) == ("bi", "file", "endpoints.toml")
    assert FILE_SECRET not in str(told)
    for method, path, body in (("DELETE", "", None), ("POST", "/disable", None), ("PUT", "", {"url": "https://x.example.com"})):
        status, problem = await _do(here, method, f"/bi{path}", body)
        assert (status, "endpoints.toml" in problem["title"]) == (409, True)


@pytest.mark.parametrize(
    ("given", "parameter"),
    [
        ({"name": "Bad!", "url": "https://a.example.com"}, "name"),
        ({"name": "dead", "url": "https://a.example.com"}, "name"),
        ({"name": "a", "url": "http://a.example.com"}, "url"),
        ({"name": "a", "url": "ftp://a.example.com"}, "url"),
        ({"name": "a", "url": "https://u:p@a.example.com"}, "url"),
        ({"name": "a", "url": "https://a.example.com", "secret": "short"}, "secret"),
        ({"name": "a", "url": "https://a.example.com", "headers": {"Host": "b"}}, "headers"),
        ({"name": "a", "url": "https://a.example.com", "headers": {"X": None}}, "headers"),
        ({"name": "a", "url": "https://a.example.com", "networks": ["10.0.0.0/33"]}, "networks"),
        ({"name": "a", "url": "https://a.example.com", "filter": ["a b"]}, "filter"),
        ({"name": "a", "url": "https://a.example.com", "timeout_s": 0}, "timeout_s"),
        ({"name": "a", "url": "https://a.example.com", "nonsense": 1}, "nonsense"),
    ],
)
async def test_an_invalid_setting_is_named(here: World, given: dict[str, object], parameter: str) -> None:
    status, problem = await _do(here, "POST", "", given)
    assert (status, problem["parameter"]) == (400, parameter), problem
    assert "hunter" not in str(problem)


async def test_of_changes_at_two_consoles_none_is_lost_and_a_stale_one_is_refused(here: World) -> None:
    names = [f"n{number}" for number in range(6)]
    adding = [
        _do(here, "POST", "", {"name": name, "url": "https://a.example.com"}, console=("console", "other")[number % 2])
        for number, name in enumerate(names)
    ]
    assert {status for status, _ in await asyncio.gather(*adding)} == {201}
    listed = {each["name"] for each in (await _do(here, "GET", ""))[1]["endpoints"]}
    assert set(names) <= listed
    _, _, headers = await here.get("/endpoints/n0", headers=AUTHORIZED)
    matching = {"headers": {"If-Match": headers["ETag"]}}
    assert (await _do(here, "POST", "/n0/secret", {}, **matching))[0] == 200
    status, problem = await _do(here, "POST", "/n0/secret", {}, **matching)
    assert (status, problem["parameter"]) == (412, "If-Match")
    for name in names:
        assert (await _do(here, "DELETE", f"/{name}"))[0] == 204


async def test_a_test_event_is_signed_and_its_result_is_returned(here: World) -> None:
    receiver, secret = Receiver(), new_secret()
    await _do(here, "POST", "", {"name": "own", "url": receiver.url, "secret": secret, "headers": {"X-Key": "k"}})
    status, told = await _do(here, "POST", "/own/test")
    assert (status, told["delivered"], told["status"], "connection failed" in told["error"]) == (200, False, None, True)
    async with receiver.running():
        receiver.status, receiver.text = 503, "busy, password=hunter2"
        _, told = await _do(here, "POST", "/own/test")
        assert (told["delivered"], told["status"], told["answer"]) == (False, 503, "busy, password=***")
        receiver.status = 200
        _, told = await _do(here, "POST", "/own/test")
        assert (told["delivered"], told["status"], told["error"]) == (True, 200, None)
    headers, body = receiver.got[-1]
    Webhook(secret).verify(body.decode(), {name.lower(): value for name, value in headers.items()})
    assert (headers["X-Key"], headers["webhook-id"]) == ("k", told["webhook_id"])
    await _do(here, "POST", "", {"name": "inward", "url": "https://localhost.example.invalid/"})
    _, told = await _do(here, "POST", "/inward/test")
    assert (told["delivered"], "name of the host is unknown" in told["error"]) == (False, True)
    for name in ("own", "inward"):
        await _do(here, "DELETE", f"/{name}")


async def test_without_a_history_attempts_are_unavailable_and_the_rest_works(here: World) -> None:
    status, problem = await _do(here, "GET", "/bi/attempts")
    assert (status, "CALLFOLD_HISTORY_URL" in problem["title"]) == (404, True)


async def _post(here: World, path: str, **form: str) -> tuple[int, str, str]:
    answered, body, headers = await here.ask("POST", path, headers={**AUTHORIZED, "Accept": "text/html"}, data=form)
    return answered, body.decode(), headers.get("Location", "")


async def test_the_page_adds_changes_tests_and_removes_a_webhook(here: World) -> None:
    receiver = Receiver()
    status, page, _ = await _post(here, "/webhooks", name="page", url="http://pub.example.com/", headers="X-Key: hunter3")
    assert (status, "must begin with https://" in page) == (400, True)
    given = {"name": "page", "url": receiver.url, "headers": "X-Key: hunter3", "filter": "call.#\nrecording.#"}
    status, page, _ = await _post(here, "/webhooks", **given)
    assert (status, "whsec_" in page, "hunter3" in page) == (200, True, False)
    status, _, address = await _post(here, "/webhooks/page", **given | {"headers": "X-Key: ***", "max_in_flight": "3"})
    assert (status, address) == (303, "/webhooks/page?done=saved")
    async with receiver.running():
        receiver.text = "<script>alert(1)</script>"
        receiver.status = 200
        status, page, _ = await _post(here, "/webhooks/page", action="test")
    assert (status, "was delivered" in page, "<script>alert" in page) == (200, True, False)
    assert receiver.got[-1][0]["X-Key"] == "hunter3"
    for action in ("disable", "enable", "rotate", "finish"):
        status, page, address = await _post(here, "/webhooks/page", action=action)
        assert status == (200 if action == "rotate" else 303), page
    for path in ("/webhooks", "/webhooks/page", "/webhooks/bi"):
        status, body, _ = await here.get(path, headers={**AS_VIEWER, "Accept": "text/html"})
        assert (status, b"hunter2" in body, b'name="action"' in body) == (200, False, False)
    stale = {"etag": '"of an earlier page"', "headers": "X-Key: ***"}
    status, page, _ = await _post(here, "/webhooks/page", **given | stale)
    assert (status, "has changed since you read it" in page) == (400, True)
    (fresh,) = re.findall(r'name="etag" value="(.*?)"', page)
    assert (await _post(here, "/webhooks/page", **given | stale | {"etag": html.unescape(fresh)}))[0] == 303
    assert (await _post(here, "/webhooks/page", action="remove", confirm="other"))[0] == 400
    assert (await _post(here, "/webhooks/page", action="remove", confirm="page"))[2] == "/webhooks?done=removed"
    assert (await here.get("/webhooks/page", headers=AUTHORIZED))[0] == 404
