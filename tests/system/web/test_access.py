"""Who is let in: keys, cookies, requests that a browser was led to make; what every answer carries; what is told of it."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio

from console.history.queries import AuditLine
from console.history.store import History
from console.web.keys import SESSION_S
from shared.errors import ConfigError
from tests.helpers.console import AS_VIEWER, AUTHORIZED, KEY, VIEWER_KEY, World, redis_of, world
from tests.helpers.dead_letters import bury
from tests.helpers.pace import LIMIT_S
from tests.helpers.raw_http import connected_to, post
from tests.helpers.servers import Servers, connected, eventually

_SOURCES = '[sources.acme]\nsecret = "adapter-secret"\ndial_url = "http://127.0.0.1:{port}/dial?agent={agent}&number={number}"\n'


@pytest_asyncio.fixture(scope="module")
async def here(shared_servers: Servers) -> AsyncIterator[World]:
    history = f"sqlite:///{shared_servers.directory / 'history.sqlite'}"
    more = {"CALLFOLD_HISTORY_URL": history, "CALLFOLD_CONSOLE_VIEWER_KEYS": VIEWER_KEY}
    async with world(shared_servers, _SOURCES, "history", **more) as made:
        made.add_console("console", CALLFOLD_CONSOLE_KEY=KEY)
        made.add_console("open", CALLFOLD_CONSOLE_KEY="", CALLFOLD_CONSOLE_VIEWER_KEYS=" ")
        await asyncio.gather(*(made.roles[name].start() for name in ("console", "open")))
        await connected(made.roles["console"])  # before that an audit line does not reach the history
        yield made


async def test_a_body_that_cannot_be_read_is_refused_in_plain_words(here: World) -> None:
    port = int(here.console.rpartition(":")[2])
    gzipped, chunked = "Content-Encoding: gzip", "Transfer-Encoding: chunked"
    bomb = gzip.compress(b"key=" + b"a" * (64 << 20))
    dial = post("/dial", chunked, f"Authorization: Bearer {KEY}", body=b"1\r\n{\r\n").replace(b"x-www-form-urlencoded", b"json")
    bodies = {
        "junk": (post("/login", gzipped, body=b"junk"), b"", 415),
        "bomb": (post("/login", gzipped, body=bomb[:60_000], length=len(bomb)), b"", 415),
        "chunks": (post("/login", chunked, body=b"3\r\nkey\r\n"), b"zz\r\n", 400),
        "chunks of a dial": (dial, b"zz\r\n", 400),
        "large": (post("/login", body=b"a" * (64 * 1024 + 1)), b"", 413),
    }
    statuses = {}
    for name, (first, second, _) in bodies.items():
        async with connected_to(port) as connection:
            await connection.send(first, second)
            statuses[name], body = await connection.response()
            assert orjson.loads(body)["title"]
    assert statuses == {name: status for name, (*_, status) in bodies.items()}
    assert b"Traceback" not in here.roles["console"].log_path.read_bytes()


_DIAL = {"source": "acme", "agent": "1001", "number": "112"}


async def _log_in(here: World, key: str = KEY, **headers: str) -> tuple[int, str, Mapping[str, str]]:
    """Send the log-in form; returns the status, the cookie (`name=value`), and the headers."""
    status, _, answered = await here.ask("POST", "/login", headers=headers, data={"key": key, "next": "/ui/calls"})
    return status, answered.get("Set-Cookie", "").partition(";")[0], answered


async def _page(here: World, cookie: str, path: str = "/ui/adapter") -> tuple[int, str]:
    status, body, _ = await here.get(path, headers={"Cookie": cookie, "Accept": "text/html"})
    return status, body.decode()


def _token(page: str) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', page)
    assert found
    return found[1]


async def test_without_keys_everybody_on_this_machine_is_let_in_under_its_names_only(here: World) -> None:
    assert (await here.get("/calls", console="open"))[0] == 200
    assert (await here.ask("POST", "/dial", console="open", json=_DIAL))[0] == 201
    port = here.consoles["open"].rpartition(":")[2]
    for name, expected in (
        (f"localhost:{port}", 200),
        ("[::1]", 200),
        ("127.0.0.1", 200),
        (f"rebound.example:{port}", 403),
        ("127.0.0.1.rebound.example", 403),
        ("[::1", 403),
        ("", 403),
    ):
        for path in ("/calls", "/", "/openapi.json"):
            status, *_ = await here.get(path, console="open", headers={"Host": name})
            assert status == expected, (name, path)


async def test_an_empty_key_opens_nothing(here: World) -> None:
    assert (await _log_in(here, ""))[0] == 401
    for headers in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer "}, {"Cookie": "callfold_session=.9999999999."}):
        assert (await here.get("/calls", headers=headers))[0] == 401


_SECRETS = ("x", KEY[:-1], KEY + "x", KEY.upper(), VIEWER_KEY[:-1], "adapter-secret", "\u00ff")


@pytest.mark.parametrize("secret", _SECRETS)
@pytest.mark.parametrize("scheme", ["Bearer", "Basic", "bearer "])
async def test_a_wrong_key_is_refused(here: World, secret: str, scheme: str) -> None:
    status, told, headers = await _knock(here, Authorization=f"{scheme} {secret}", come_from="127.0.0.9")
    assert (status, told["status"], headers["WWW-Authenticate"]) == (401, 401, "Bearer")


async def _knock(
    here: World, path: str = "/calls", *, console: str = "console", come_from: str = "127.0.0.1", **headers: str
) -> tuple[int, Any, Mapping[str, str]]:
    """Ask from an address."""
    connector = aiohttp.TCPConnector(local_addr=(come_from, 0))
    url = here.consoles[console] + path
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as session,
        session.get(url, allow_redirects=False) as response,
    ):
        body = await response.read()
        return response.status, orjson.loads(body) if "json" in response.content_type else body, response.headers


async def _raw(here: World, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(here.console.rpartition(":")[2]))
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), LIMIT_S)
    finally:
        writer.close()


async def test_bytes_that_are_no_text_are_a_wrong_key(here: World) -> None:
    for head in (b"Authorization: Bearer \xff\xfe", b"Cookie: callfold_session=\xff.1.\xfe", b"Cookie: callfold_session=a.b"):
        answer = await _raw(here, b"GET /calls HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + head + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 401"), head


async def test_what_is_no_http_request_is_a_problem_and_its_key_is_in_no_log(here: World) -> None:
    key, host = KEY.encode(), b"\r\nHost: x\r\n"
    requests = [b"GET /calls?text=" + b"a" * 9000 + b" HTTP/1.1" + host, b"GET /calls?key=" + key + b" HTTP/9.9" + host]
    keys = (b"Bearer " + key + b"\x01", b"Bearer\x00 " + key, key * 400)
    requests += [b"GET /calls HTTP/1.1" + host + b"Authorization: " + value + b"\r\n" for value in keys]
    expected = {b"Content-Type: application/problem+json", b"X-Frame-Options: DENY", b"Server: callfold"}
    for request, code in zip(requests, (b"414", b"400", b"400", b"400", b"431"), strict=True):
        head, _, body = (await _raw(here, request + b"\r\n")).partition(b"\r\n\r\n")
        status, *headers = head.split(b"\r\n")
        assert status.split()[1] == code
        assert expected <= set(headers)
        assert (" bytes" in orjson.loads(body)["title"]) is (code != b"400")
        assert key not in head + body
    log = here.roles["console"].log_path.read_text("utf-8", "replace")
    assert log.count("http_request_rejected") == len(requests)
    assert KEY not in log


async def test_a_viewer_reads_and_changes_nothing(here: World) -> None:
    for path in ("/calls", "/dead-letters", "/", "/ui/dead-letters"):
        assert (await here.get(path, headers=AS_VIEWER))[0] == 200
    for path, body in (("/dial", _DIAL), ("/dead-letters", {"action": "drop", "ids": ["abcd"]})):
        status, told, _ = await here.ask("POST", path, headers=AS_VIEWER, json=body)
        assert (status, "viewer" in told["title"]) == (403, True)
    assert here.dialing.asked["viewer"] == []
    link = {"link": "https://h/callbacks/acme?CallType={{CallTypeName}}"}
    assert (await here.ask("POST", "/ui/adapter", headers=AS_VIEWER, data=link))[0] == 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "OWN", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "OWN", "Sec-Fetch-Site": "same-origin"}, 201),
        ({"Sec-Fetch-Site": "none"}, 201),
        ({}, 201),
    ],
)
@pytest.mark.parametrize("console", ["console", "open"])
async def test_a_post_that_another_site_led_to_is_refused(
    here: World, headers: dict[str, str], expected: int, console: str
) -> None:
    sent = {name: here.consoles[console] if value == "OWN" else value for name, value in headers.items()}
    status, *_ = await here.ask("POST", "/dial", console=console, headers=AUTHORIZED | sent, json=_DIAL)
    assert status == expected
    if expected == 403:
        assert (await here.ask("POST", "/login", console=console, headers=sent, data={"key": KEY}))[0] == 403


async def test_a_log_in_gives_a_cookie_that_only_this_site_sends_and_no_script_reads(here: World) -> None:
    status, cookie, headers = await _log_in(here)
    assert (status, headers["Location"]) == (303, "/ui/calls")
    attributes = {part.strip().lower() for part in headers["Set-Cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= attributes
    assert "secure" not in attributes
    assert KEY not in cookie
    assert (await _page(here, cookie))[0] == 200
    _, _, headers = await _log_in(here, **{"X-Forwarded-Proto": "https"})
    assert "; secure" in headers["Set-Cookie"].lower()


async def test_a_cookie_that_is_not_ours_or_over_is_none(here: World) -> None:
    _, cookie, _ = await _log_in(here)
    name, _, value = cookie.partition("=")
    who, until, _, signature = value.split(".")
    over = f"{who}.{int(time.time()) - 1}"
    signed = hmac.new(KEY.encode(), f"session {over}".encode(), "sha256").hexdigest()
    still = f"{who}.{int(time.time()) + 60}"
    still_signed = hmac.new(KEY.encode(), f"session {still}".encode(), "sha256").hexdigest()
    assert (await _page(here, f"{name}={still}.{still_signed}"))[0] == 200  # so the next ones fail for what they are
    viewer = hashlib.sha256(VIEWER_KEY.encode()).hexdigest()[:12]
    for forged in (
        f"{over}.{signed}",
        f"{who}.{int(until) + 1}.{signature}",
        f"{viewer}.{until}.{signature}",
        f"{who}.{until}.{signature[:-1]}0" if signature[-1] != "0" else f"{who}.{until}.{signature[:-1]}1",
        f"{who}.{until}.",
        f"{who}.{until}",
        "..",
        "",
    ):
        status, _, headers = await here.get("/ui/adapter", headers={"Cookie": f"{name}={forged}"})
        assert (status, headers["Location"]) == (303, "/login?next=/ui/adapter"), forged


async def test_a_change_with_a_cookie_needs_the_token_of_a_page(here: World) -> None:
    _, cookie, _ = await _log_in(here)
    _, page = await _page(here, cookie)
    token = _token(page)
    _, other_cookie, _ = await _log_in(here, VIEWER_KEY)
    other = _token((await _page(here, other_cookie))[1])
    for given in ("", "x", token[:-1], other):
        sent = {"Cookie": cookie} | ({"X-CSRF-Token": given} if given else {})
        assert (await here.ask("POST", "/dial", headers=sent, json=_DIAL))[0] == 403
    assert (await here.ask("POST", "/dial", headers={"Cookie": cookie, "X-CSRF-Token": token}, json=_DIAL))[0] == 201
    form = {"which": "callbacks", "id": "abcd"}
    assert (await here.ask("POST", "/ui/dead-letters/redrive", headers={"Cookie": cookie}, data=form))[0] == 403
    status, _, headers = await here.ask(
        "POST", "/ui/dead-letters/redrive", headers={"Cookie": cookie}, data=form | {"csrf": token}
    )
    assert (status, headers["Location"]) == (
        303,
        "/ui/dead-letters?which=callbacks&action=redrive&done=0&skipped=0&not_folded=0&unknown=0&is_minimum=0",
    )


async def test_a_log_out_takes_the_cookie_away_and_ends_every_copy_of_it_at_every_console(here: World) -> None:
    _, cookie, _ = await _log_in(here)
    _, another, _ = await _log_in(here)
    await here.add_console("beside", CALLFOLD_CONSOLE_KEY=KEY).start()
    token = _token((await _page(here, cookie))[1])
    assert (await here.ask("POST", "/logout", headers={"Cookie": cookie}))[0] == 403
    status, _, headers = await here.ask("POST", "/logout", headers={"Cookie": cookie}, data={"csrf": token})
    assert (status, headers["Location"]) == (303, "/login")
    assert re.match(r'callfold_session="?"?;', headers["Set-Cookie"])
    assert "Max-Age=0" in headers["Set-Cookie"]
    for console in ("console", "beside"):
        for path, expected in (("/ui/adapter", 303), ("/calls", 401)):
            assert (await here.get(path, console=console, headers={"Cookie": cookie}))[0] == expected
            assert (await here.get(path, console=console, headers={"Cookie": another}))[0] == 200
        sent = {"Cookie": cookie, "X-CSRF-Token": token}
        assert (await here.ask("POST", "/dial", console=console, headers=sent, json=_DIAL))[0] == 401
    async with redis_of(here.servers) as redis:
        (note,) = await redis.keys("callfold:note:session/*")
        assert 0 < await redis.ttl(note) <= SESSION_S


@pytest.mark.parametrize(
    "following",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "/\r\nX: y",
        "",
    ],
)
async def test_nobody_is_led_away_by_a_log_in(here: World, following: str) -> None:
    status, _, headers = await here.ask("POST", "/login", data={"key": KEY, "next": following})
    assert (status, headers["Location"]) == (303, "/")
    status, page, _ = await here.get("/login", params={"next": following})
    assert status == 200
    assert b"evil" not in page


async def test_a_form_in_an_unknown_character_set_is_refused(here: World) -> None:
    for charset in ("nonsense", "utf-16"):
        headers = {"Content-Type": f"application/x-www-form-urlencoded; charset={charset}"}
        status, *_ = await here.ask("POST", "/login", headers=headers, data=b"key=%d8x")
        assert status in {400, 401}


async def test_a_key_that_is_taken_out_of_the_settings_logs_its_holders_out(here: World) -> None:
    _, cookie, _ = await _log_in(here, VIEWER_KEY)
    assert (await _page(here, cookie))[0] == 200
    await here.add_console("later", CALLFOLD_CONSOLE_KEY=KEY, CALLFOLD_CONSOLE_VIEWER_KEYS="another").start()
    assert (await here.get("/ui/adapter", console="later", headers={"Cookie": cookie}))[0] == 303
    _, cookie, _ = await _log_in(here)
    assert (await here.get("/ui/adapter", console="later", headers={"Cookie": cookie}))[0] == 200


@pytest.mark.parametrize("key", ["", " "])
async def test_beyond_loopback_the_console_wants_a_key(here: World, key: str) -> None:
    bare = here.add_console("bare", CALLFOLD_CONSOLE_HOST="0.0.0.0", CALLFOLD_CONSOLE_KEY=key)  # noqa: S104 - it must refuse to
    with pytest.raises(ConfigError, match="CALLFOLD_CONSOLE_KEY is not set"):
        await bare.start()
    assert bare.returncode == 2


_EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/login"),
        ("GET", "/calls"),
        ("GET", "/calls?limit=0"),
        ("GET", "/calls/acme/1"),
        ("GET", "/none"),
        ("PUT", "/calls"),
        ("POST", "/dial"),
        ("GET", "/openapi.json"),
        ("GET", "/recordings/acme/x"),
        ("GET", "/static/none.css"),
        ("GET", "/ui/find?q=513"),
        ("GET", "/%00"),
    ],
)
@pytest.mark.parametrize("who", [{}, AUTHORIZED], ids=["nobody", "operator"])
async def test_every_answer_is_hardened(here: World, method: str, path: str, who: dict[str, str]) -> None:
    status, _, headers = await here.ask(method, path, headers=who)
    assert {name: headers.get(name) for name in _EVERYWHERE} == _EVERYWHERE, status
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert "Server" not in headers
    assert status < 500


async def test_an_error_is_a_page_for_a_browser_and_problem_details_for_a_program(here: World) -> None:
    status, told, headers = await here.get("/none", headers=AUTHORIZED)
    assert (status, told["status"], headers["Content-Type"]) == (404, 404, "application/problem+json")
    status, page, headers = await here.get("/none", headers=AUTHORIZED | {"Accept": "text/html,*/*"})
    assert (status, headers["Content-Type"], b"<html" in page) == (404, "text/html; charset=utf-8", True)
    status, _, headers = await here.ask("DELETE", "/calls", headers=AUTHORIZED)
    assert (status, headers["Allow"]) == (405, "GET,HEAD")


async def _audit(here: World, action: str) -> list[AuditLine]:
    async with aclosing(History(here.roles["console"].environment["CALLFOLD_HISTORY_URL"])) as history:
        return [line for line in await history.audit(limit=1000) if line.action == action]


async def test_what_people_do_is_told_in_the_log_and_the_history_without_their_keys(here: World) -> None:
    number = "+4599887766"
    status, told, _ = await here.ask("POST", "/dial", headers=AUTHORIZED, json=_DIAL | {"number": number, "agent": "1099"})
    assert status == 201
    await bury(here.servers, "acme", "a=1", "invalid_callback")
    _, letters, _ = await here.get("/dead-letters", headers=AUTHORIZED)
    ids = [letter["id"] for letter in letters["letters"]]
    await here.ask("POST", "/dead-letters", headers=AUTHORIZED, json={"action": "redrive", "ids": ids})
    await _log_in(here)
    await _log_in(here, "a-wrong-key-that-somebody-tried")

    async def dialed() -> Any:  # noqa: ANN401
        return [line for line in await _audit(here, "dial") if line.detail.get("agent") == "1099"]

    (line,) = await eventually(dialed)
    assert line.detail["repeated"] is False
    assert (line.source, line.call, line.detail["status"]) == ("acme", str(told["request_id"]), 201)
    assert line.who == hashlib.sha256(KEY.encode()).hexdigest()[:12]
    assert number not in str(line)

    async def redriven() -> list[Any]:
        lines = [line for line in await _audit(here, "redrive") if line.detail["wanted"]["ids"] == ids]
        return sorted(lines, key=lambda line: line.at) if len(lines) > 1 else []

    begun, ended = await eventually(redriven)
    assert [(line.detail["stage"], line.detail.get("letters"), line.who) for line in (begun, ended)] == [
        ("begun", None, line.who),
        ("ended", len(ids), line.who),
    ]
    for action in ("log_in", "log_in_refused"):
        await eventually(partial(_audit, here, action))
    log = here.roles["console"].log_path.read_text("utf-8")
    logged = [orjson.loads(text) for text in log.splitlines() if text.startswith("{")]
    assert {"dial", "redrive", "log_in", "log_in_refused"} <= {line.get("action") for line in logged}
    for secret in (KEY, VIEWER_KEY, number, "a-wrong-key-that-somebody-tried", "adapter-secret"):
        assert secret not in log


async def test_a_repeat_of_a_dial_is_told_as_one(here: World) -> None:
    headers = AUTHORIZED | {"Idempotency-Key": here.idempotency_key("repeated-1")}
    answers = [await here.ask("POST", "/dial", headers=headers, json=_DIAL | {"agent": "1098"}) for _ in range(3)]
    request_id = str(answers[0][1]["request_id"])

    async def dialed() -> Any:  # noqa: ANN401
        lines = [line for line in await _audit(here, "dial") if line.detail.get("agent") == "1098"]
        return lines if len(lines) == len(answers) else None

    lines = sorted(await eventually(dialed), key=lambda line: line.at)
    assert [(line.detail["repeated"], line.call) for line in lines] == [(n > 0, request_id) for n in range(3)]


async def test_after_many_wrong_keys_a_log_in_has_to_wait_and_bearer_keys_have_not(here: World) -> None:
    await here.add_console("tried", CALLFOLD_CONSOLE_KEY=KEY).start()
    address = here.consoles["tried"]
    statuses = [(await here.ask("POST", f"{address}/login", data={"key": str(number)}))[0] for number in range(31)]
    assert statuses == [401] * 30 + [429]
    status, page, headers = await here.ask("POST", f"{address}/login", data={"key": KEY})
    assert (status, b"Wait a minute" in page, headers["Retry-After"]) == (429, True, "60")
    assert (await _try(f"{address}/login", KEY, forwarded="10.0.0.1"))[0] == 429, "anybody can say so"
    assert (await _try(f"{address}/login", KEY, come_from="127.0.0.2"))[0] == 303, "others do not wait for it"
    assert (await here.get("/calls", console="tried", headers=AUTHORIZED))[0] == 200


async def test_after_many_wrong_keys_an_address_is_refused_and_a_right_key_from_it_is_not(here: World) -> None:
    await here.add_console("guessed", CALLFOLD_CONSOLE_KEY=KEY).start()
    ask = partial(_knock, here, console="guessed", come_from="127.0.0.4")
    statuses = [(await ask(Authorization=f"Bearer {number}"))[0] for number in range(31)]
    assert statuses == [401] * 30 + [429]
    status, problem, headers = await ask(Authorization="Bearer 31")
    assert (status, problem["status"], headers["Retry-After"]) == (429, 429, "60")
    assert (await ask(**AUTHORIZED))[0] == 200, "a colleague behind the same proxy"
    assert (await ask())[0] == 401, "without a key nothing is guessed"
    assert (await ask("/login"))[0] == 200
    assert (await _try(f"{here.consoles['guessed']}/login", KEY, come_from="127.0.0.4"))[0] == 303
    assert (await ask(console="guessed", come_from="127.0.0.5", Authorization="Bearer x"))[0] == 401, (
        "others have their own limit"
    )

    async def lines() -> Any:  # noqa: ANN401
        return [line for line in await _audit(here, "log_in_refused") if line.who == "127.0.0.4"]

    assert len(await eventually(lines)) <= 30


async def test_forged_cookies_are_wrong_keys_and_those_of_a_removed_key_are_not(here: World) -> None:
    await here.add_console("forged", CALLFOLD_CONSOLE_KEY=KEY, CALLFOLD_CONSOLE_VIEWER_KEYS="another").start()
    ask = partial(_knock, here, console="forged", come_from="127.0.0.6")
    _, cookie, _ = await _log_in(here)
    _, removed, _ = await _log_in(here, VIEWER_KEY)
    session = cookie.rpartition(".")[0]
    for _ in range(31):
        assert (await ask("/ui/adapter", Cookie=removed))[0] == 303
    statuses = [(await ask("/ui/adapter", Cookie=f"{session}.{number:064}"))[0] for number in range(32)]
    assert statuses == [303] * 30 + [429] * 2
    assert (await ask("/ui/adapter", Cookie=cookie))[0] == 200


async def _try(url: str, key: str, *, come_from: str = "127.0.0.1", forwarded: str | None = None) -> tuple[int, bytes]:
    connector = aiohttp.TCPConnector(local_addr=(come_from, 0))
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(url, data={"key": key}, headers=headers, allow_redirects=False) as response,
    ):
        return response.status, await response.read()


async def test_behind_a_proxy_that_is_named_each_of_its_clients_has_tries_of_his_own(here: World) -> None:
    more = {"CALLFOLD_CONSOLE_KEY": KEY, "CALLFOLD_CONSOLE_PROXIES": "127.0.0.1, 10.9.0.0/16"}
    await here.add_console("proxied", **more).start()
    url = f"{here.consoles['proxied']}/login"
    for _ in range(30):
        assert (await _try(url, "wrong", forwarded="203.0.113.7"))[0] == 401
    for forwarded, expected in (
        ("203.0.113.7", 429),
        ("198.51.100.1, 203.0.113.7", 429),  # the first is what the client says of itself
        ("203.0.113.7, 10.9.1.2", 429),  # two proxies
        ("203.0.113.8", 303),
        ("203.0.113.7, 203.0.113.8", 303),
    ):
        assert (await _try(url, KEY, forwarded=forwarded))[0] == expected, forwarded
