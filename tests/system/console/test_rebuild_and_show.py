"""`callfold rebuild` and `callfold show`, on real servers."""

from __future__ import annotations

import json
import re
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import aio_pika
import pytest
from redis.asyncio import Redis

from console.commands.show import show
from console.history.location import DEFAULT_URL
from console.history.store import History
from console.local.ports import free_port
from shared.amqp.topology import CALLBACKS
from shared.config.settings import load_settings
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent, encode, join
from shared.domain.times import rfc3339
from tests.helpers.history import batch_of, call_event
from tests.helpers.pace import paced
from tests.helpers.servers import (
    Servers,
    call_back,
    callfold,
    connected,
    eventually,
    lines_of,
    next_events,
    no_consumer,
    settled,
    waiting_events,
)
from tests.helpers.settings import settings_here

pytestmark = pytest.mark.usefixtures("fresh_stack")

# The callbacks of a call come within these times.
QUICK = {"CALLFOLD_TIMER_HOLD_OFF_SECONDS": "0", "CALLFOLD_SETTLE_SECONDS": paced(2), "CALLFOLD_LEG_GRACE_SECONDS": paced(4)}


async def _facts(servers: Servers) -> dict[bytes, dict[bytes, bytes]]:
    async with Redis.from_url(servers.stack.redis_url) as redis:
        return {name: await redis.hgetall(name) for name in await redis.keys("*:facts:*")}  # type: ignore[misc]


async def test_an_empty_redis_is_rebuilt_byte_by_byte_and_nothing_is_published_again(servers: Servers) -> None:  # noqa: PLR0915 - one story
    base = 700_000_000
    port = free_port()
    async with servers.subscribed("call.#") as events:
        async with servers.fleet(**QUICK) as fleet:
            fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
            fleet.add("worker", "worker", {})
            await fleet.start_all()
            for number in range(10):
                await call_back(port, lines_of(base + number))
            await call_back(port, lines_of(base + 10)[:3])  # closed by a timer, then amended
            await next_events(events, 11)
            await call_back(port, lines_of(base + 10)[3:])
            await next_events(events, 1)
            await call_back(port, lines_of(base + 11)[:2])  # stays open
            await _receive(servers, base + 13, hours_ago=3)
            await _receive(servers, base + 13, hours_ago=0.2, more_call_id=4)
            assert {event.message_id for event in await next_events(events, 2)} == {
                f"default/{base + 13}{use}/1" for use in ("", ".2")
            }
            await settled(servers)
        before = {name: facts for name, facts in (await _facts(servers)).items() if b"/7000000" in name}
        async with Redis.from_url(servers.stack.redis_url) as redis:
            await redis.flushall()
        environment = servers.environment(**QUICK)
        await no_consumer(servers)
        code, out, err = await callfold("rebuild", "--since", "1h", "--dry-run", **environment)
        assert (code, out) == (0, ""), err
        assert "calls since" in err
        _, out, _ = await callfold("rebuild", "--since", "1h", "--dry-run", "--json", **environment)
        assert json.loads(out)["calls"] >= 12
        assert await _facts(servers) == {}
        code, out, err = await callfold("rebuild", "--since", "1h", **environment)
        assert code == 0, err
        assert "restored as published" in out
        after = await _facts(servers)
        assert {name: after[name] for name in before} == before
        code, out, _ = await callfold("rebuild", "--since", "1h", "--json", **environment)
        assert code == 0, "a second time does no harm"
        assert {"noted_as_published", "to_be_published"}.isdisjoint(json.loads(out))
        await eventually(lambda: _is_shown(base + 10, environment))
        for use, other in (("", ".2"), (".2", "")):
            code, out, err = await callfold("show", "default", f"{base + 13}{use}", "--json", **environment)
            assert (code, json.loads(out)["published_revision"]) == (0, 1), err
            assert json.loads(out)["other_uses"] == [f"default/{base + 13}{other}"]
            assert [row["kind"] for row in json.loads(out)["timeline"] if row["kind"] != "timer"] == ["callback"] * 4
        async with servers.fleet(**QUICK) as fleet:
            fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
            fleet.add("worker", "worker", {})
            await fleet.start_all()
            await call_back(port, lines_of(base))
            await call_back(port, lines_of(base + 11)[2:])
            published: list[str] = []

            async def there() -> bool:
                # The journal also holds calls of other tests: those are not looked at.
                published.extend(event.message_id or "" for event in await waiting_events(events))
                return f"default/{base + 11}/1" in published

            await eventually(there)
            await call_back(port, lines_of(base + 12))
            await eventually(lambda: _is_among(events, published, f"default/{base + 12}/1"))
    assert [name for name in published if name.startswith("default/7000000")] == [f"default/{base + n}/1" for n in (11, 12)]


async def _receive(servers: Servers, request_id: int, *, hours_ago: float, more_call_id: int = 0) -> None:
    """Publish the callbacks of a call as ingress did hours ago."""
    at = datetime.now(UTC) - timedelta(hours=hours_ago)
    source = SourceName("default")
    lines = [re.sub(r"(?<=CallID=)\d+", lambda match: str(int(match[0]) + more_call_id), line) for line in lines_of(request_id)]
    events = [CallbackEvent(source, rfc3339(at + timedelta(seconds=second)), line) for second, line in enumerate(lines)]
    async with await aio_pika.connect(servers.stack.amqp_url) as connection:
        exchange = await (await connection.channel()).get_exchange(CALLBACKS)
        await exchange.publish(aio_pika.Message(join(map(encode, events)), delivery_mode=2), "")


async def _is_shown(request_id: int, environment: dict[str, str]) -> bool:
    """Show the amended call; say whether the time for reading the journal was enough."""
    code, out, _ = await callfold("show", "default", str(request_id), "--json", **environment)
    shown = json.loads(out)
    assert (code, shown["status"], shown["published_revision"]) == (0, "complete", 2)
    # If a worker pauses for longer than its lease, its timer is published twice.
    kinds = [row["kind"] for row in shown["timeline"]]
    return kinds[:4] == ["callback"] * 3 + ["timer"] and {*kinds[4:]} - {"timer"} == {"callback"}


async def _is_among(events: aio_pika.abc.AbstractQueue, published: list[str], name: str) -> bool:
    published.extend(event.message_id or "" for event in await waiting_events(events))
    return name in published


async def test_what_was_never_published_is_published_when_asked(servers: Servers) -> None:
    base = 710_000_000
    port = free_port()
    async with servers.fleet() as fleet:
        await fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)}).start()
        await connected(*fleet.processes)
        await call_back(port, lines_of(base))
    assert len(await servers.take_all("callbacks.fold")) > 0  # lost with all of Redis, say
    async with servers.subscribed("call.#") as events:
        code, out, err = await callfold("rebuild", "--since", "1h", "--publish", **servers.environment(**QUICK))
        assert code == 0, err
        assert "to be published" in out
        async with servers.fleet(**QUICK) as fleet:
            await fleet.add("worker", "worker", {}).start()

            async def there() -> bool:
                return f"default/{base}/1" in {event.message_id for event in await waiting_events(events)}

            await eventually(there)


async def test_a_call_that_only_the_history_has_is_shown_and_said_to_be_from_there(servers: Servers) -> None:
    url = f"sqlite:///{servers.directory / 'history.sqlite'}"
    await _kept(url)
    environment = servers.environment(CALLFOLD_HISTORY_URL=url)
    code, out, err = await callfold("show", "default", "513", "--json", **environment)
    told = json.loads(out)
    assert (code, told["status"], told["published_revision"], len(told["revisions"])) == (0, "complete", 2, 2)
    assert err == "default/513 has expired from Redis; this is its record in the history.\n"
    code, out, _ = await callfold("show", "default", "513", **environment)
    assert (code, out.splitlines()[0]) == (0, "default/513  complete")
    assert out.splitlines()[1].startswith("answered, by hangup, published as revision 2")
    for call, settings, sentence in (
        ("514", {}, "Unknown call default/514: not in Redis or in the history"),
        (
            "513",
            {"CALLFOLD_HISTORY_URL": f"sqlite:///{servers.directory}/none.sqlite"},
            "the history cannot be read. The history",
        ),
        ("513", {"CALLFOLD_HISTORY_URL": ""}, "Unknown call default/513: not in Redis, which keeps"),
    ):
        code, out, err = await callfold("show", "default", call, **environment | settings)
        assert (code, out, sentence in err) == (1, "", True), err


async def test_the_history_that_is_written_here_by_default_is_asked_without_a_setting(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings_here(monkeypatch, servers.environment())
    monkeypatch.chdir(servers.directory)
    await _kept(DEFAULT_URL)
    capsys.readouterr()  # the history logs that it has made its tables
    assert await show(load_settings(), "default", "513", as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["published_revision"] == 2


async def _kept(url: str) -> None:
    """Write a history that has one call of two revisions."""
    async with aclosing(History(url, is_writer=True)) as history:
        await history.prepare()
        await history.write(batch_of([call_event(513, source="default", revision=number) for number in (1, 2)]))


async def test_an_open_call_tells_what_it_waits_for_and_when_it_closes(servers: Servers) -> None:
    port, base = free_port(), 720_000_000
    long = {"CALLFOLD_LEG_GRACE_SECONDS": "7200"}
    async with servers.fleet(**long) as fleet:
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        fleet.add("worker", "worker", {})
        await fleet.start_all()
        await call_back(port, [*lines_of(base)[:2], lines_of(base)[2] + "&token=hunter2"])

        async def told() -> str:
            code, out, _ = await callfold("show", "default", str(base), **servers.environment(**long))
            return out if code == 0 and "ending" in out and out.count(" callback ") == 3 else ""

        out = await eventually(told)
        assert "waiting for the agent's hangup, closes at 20" in out
        assert "hunter2" not in out
    code, _, err = await callfold("show", "default", "1", **servers.environment())
    assert (code, "Unknown call default/1: not in Redis" in err) == (1, True)
    code, _, err = await callfold("show", "nobody", "1", **servers.environment())
    assert (code, "Unknown source nobody" in err) == (2, True)
