"""Callbacks that were refused are listed, and redriven once each to the source that they belong to now."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import aio_pika
import orjson
import pytest

from console.commands.quarantine import redrive, show
from console.dead_letters.quarantine import QuarantineFilter
from shared.clock import utc_now
from shared.config.settings import Settings
from shared.domain.quarantined import QuarantinedCallback
from shared.errors import ConfigError
from tests.helpers.servers import VENDOR_LINES, Servers
from tests.helpers.settings import settings_here

SOURCES = '[sources.acme]\nsecret = "hunter2-hunter2"\n[sources.open]\n'
OLD = "2020-01-01T00:00:00.000000Z"


@pytest.fixture
def settings(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Settings:
    path = servers.directory / "sources.toml"
    path.write_text(SOURCES)
    return settings_here(monkeypatch, servers.environment(CALLFOLD_SOURCES=str(path)))


@pytest.fixture
def name() -> str:
    """A name in the path that no other test uses: the stream keeps what it has."""
    return f"x{uuid.uuid4().hex[:12]}"


async def _put(servers: Servers, *callbacks: QuarantinedCallback) -> list[str]:
    async with servers.queue("callbacks.quarantine") as queue:
        for callback in callbacks:
            message = aio_pika.Message(callback.encode(), delivery_mode=2)
            await queue.channel.default_exchange.publish(message, queue.name)
        await queue.channel.default_exchange.publish(aio_pika.Message(b"no callback"), queue.name)
    return [callback.id for callback in callbacks]


def _callback(
    source: str, *, reason: str = "unknown_source", secret_of: str = "", query: str = VENDOR_LINES[0]
) -> QuarantinedCallback:
    return QuarantinedCallback(uuid.uuid4().hex, reason, source, "192.0.2.1", utc_now(), query, secret_of)


async def _folded(servers: Servers) -> list[dict[str, str]]:
    return [event for message in await servers.take_all("callbacks.fold") for event in orjson.loads(message.body)]


async def _redrive(
    settings: Settings, capsys: pytest.CaptureFixture[str], query: QuarantineFilter, as_source: str | None = None, **options: bool
) -> dict[str, Any]:
    options = {"unverified": False, "dry_run": False} | options
    await redrive(settings, query, as_source, unverified=options["unverified"], dry_run=options["dry_run"], as_json=True)
    return _objects(capsys.readouterr().out)[-1]


def _objects(out: str) -> list[dict[str, Any]]:
    """Read what a command printed, among the log lines of this process."""
    return [orjson.loads(line) for line in out.splitlines() if line.startswith("{")]


async def test_callbacks_of_a_wrong_name_are_redriven_once_each(
    servers: Servers, settings: Settings, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    callbacks = [_callback(name, secret_of="acme", query=line) for line in VENDOR_LINES]
    await _put(servers, *callbacks, _callback(name))
    query = QuarantineFilter(source=name)
    assert await _redrive(settings, capsys, query) == {
        "redriven": 0,
        "dry_run": False,
        "skipped": {"are of no configured source (`--as` names it)": 5},
    }
    assert (await _redrive(settings, capsys, query, "acme", dry_run=True))["redriven"] == 4
    assert await _folded(servers) == []
    done = await _redrive(settings, capsys, query, "acme")
    assert done["redriven"] == 4
    assert [(event["source"], event["query"], event["received_at"]) for event in await _folded(servers)] == [
        ("acme", callback.query, callback.received_at) for callback in callbacks
    ]
    (unverified,) = [why for why in done["skipped"] if "--unverified" in why]
    again = await _redrive(settings, capsys, query, "acme")
    assert again == {"redriven": 0, "dry_run": False, "skipped": {"were redriven before": 4, unverified: 1}}
    assert await _folded(servers) == []


async def test_callbacks_with_a_wrong_secret_are_redriven_only_if_somebody_says_so(
    servers: Servers, settings: Settings, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    wrong, other = _callback("acme", reason="wrong_secret"), _callback("acme", reason="wrong_secret", secret_of="open")
    ids = await _put(servers, wrong, other)
    query = QuarantineFilter(ids=tuple(ids))
    assert (await _redrive(settings, capsys, query))["redriven"] == 0
    assert (await _redrive(settings, capsys, query, unverified=True))["redriven"] == 2
    assert [event["source"] for event in await _folded(servers)] == ["acme", "acme"]


async def test_what_cannot_be_folded_or_is_too_old_is_not_redriven(
    servers: Servers, settings: Settings, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    old = replace(_callback(name), received_at=OLD)
    unread = replace(_callback(name, query=""), body=b"<a/>", content_type="text/xml")
    ids = await _put(servers, old, unread, _callback(name, query="CallType=API"), _callback(name))
    done = await _redrive(settings, capsys, QuarantineFilter(source=name), "open")
    assert done == {
        "redriven": 1,
        "dry_run": False,
        "skipped": {
            "are so old that Redis may no longer have their calls": 1,
            "cannot be understood as they are": 2,
        },
    }
    with pytest.raises(ConfigError, match="Unknown source nobody"):
        await _redrive(settings, capsys, QuarantineFilter(ids=tuple(ids)), "nobody")


async def test_a_list_shows_the_newest_with_what_is_known_of_them(
    servers: Servers, settings: Settings, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    unread = replace(_callback(name, query=""), body=b"<a password='hunter2'/>", content_type="text/xml")
    hidden = _callback(name, secret_of="acme", query=f"{VENDOR_LINES[0]}&RecordingURL=http%3A%2F%2Fa%2F%3Fsectok%3Dhunter2")
    ids = await _put(servers, _callback(name), hidden, unread)
    await _redrive(settings, capsys, QuarantineFilter(ids=(ids[1],)), "acme")
    assert await show(settings, QuarantineFilter(source=name, since="1h"), 2, as_json=True) == 0
    out, err = capsys.readouterr()
    second, third = _objects(out)
    assert (second["id"], second["source"], second["secret_of"], second["redriven"]) == (ids[1][:12], name, "acme", True)
    assert (third["reason"], third["peer"], third["redriven"]) == ("unknown_source", "192.0.2.1", False)
    assert third["body"] == "<a password='***'/>"
    assert "3 callbacks" in err
    assert "hunter2" not in out
    assert await show(settings, QuarantineFilter(source=name, reason="wrong_secret"), 9, as_json=False) == 0
    assert await show(settings, QuarantineFilter(ids=(ids[1][:8],)), 9, as_json=False) == 0
    out, err = capsys.readouterr()
    assert f"{ids[1][:12]}  " in out
    assert "with the secret of acme, redriven" in out
    assert await show(settings, QuarantineFilter(ids=("nothing",)), 9, as_json=False) == 1
