"""The hard cap of a source, over HTTP: what is refused gets 429 and a text, and the callbacks of another source are accepted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import orjson
import pytest

from ingress.callbacks import CallbackHandler
from ingress.fair_shares import TICK_S, FairShares, Load, Route
from ingress.fold_depth import FoldDepth
from ingress.group_commit import GroupCommit
from ingress.intake import Intake
from ingress.outgoing_message import OutgoingMessage
from ingress.probes import Probes
from ingress.server import LIMITS, serving
from ingress.waiting import Waiting
from shared.amqp.echo import EchoQueue, echo
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import ECHO_ID
from shared.clock import utc_now
from shared.config.live_sources import LiveSources
from shared.config.sources import Sources, load_sources
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent, decode, encode
from shared.errors import BrokerUnavailableError
from shared.runtime.process import background
from tests.helpers.intake import counted
from tests.helpers.pace import LIMIT_S
from tests.helpers.raw_http import Connection, connected_to, get, post
from tests.helpers.servers import eventually

DAY = "it has used up CALLFOLD_SOURCE_BYTES_PER_DAY"
WAITING = "its waiting callbacks have used up its part of CALLFOLD_SPOOL_MAX_BYTES"
MIB = 1 << 20
ACME, OTHER = SourceName("acme"), SourceName("other")
LINE = "CallType=API&Event=pickup&CallID=77&RequestID=513"
LONG = f"{LINE}&Note={'a' * 4000}"


class _Broker:
    """Refuses everything, or confirms and echoes it."""

    name = "callbacks.echo.test"

    def __init__(self) -> None:
        self.folded: list[str] = []
        self.is_refusing = True
        self.probes = Probes(cast("EchoQueue", self))

    async def wait_until_up(self) -> None:
        return

    async def reopen_gate(self) -> bool:
        return True

    async def publish(self, message: Message) -> None:
        if self.is_refusing:
            raise BrokerUnavailableError("refused")
        self.folded += [event.query for event in decode(message.body) if isinstance(event, CallbackEvent)]
        if answer := echo(message.headers):
            self.probes._lag.answer(cast("int", answer.headers[ECHO_ID]), asyncio.get_running_loop().time())


@dataclass(slots=True)
class _Site:
    """An ingress in this process, and what it has published and dead-lettered."""

    connection: Connection
    intake: Intake
    published: list[bytes] = field(default_factory=list)
    dead: list[OutgoingMessage] = field(default_factory=list)

    async def answer(self, source: SourceName, query: str) -> tuple[int, bytes]:
        await self.connection.send(get(f"/callbacks/{source}?{query}"))
        return await self.connection.response()

    async def status(self, source: SourceName, query: str = LINE) -> int:
        return (await self.answer(source, query))[0]


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    (tmp_path / "sources.toml").write_text("[sources.acme]\n[sources.other]\n")
    return load_sources(tmp_path / "sources.toml")


@asynccontextmanager
async def _serving(sources: Sources, intake_of: Callable[[GroupCommit], Intake]) -> AsyncIterator[_Site]:
    async def write(events: Sequence[bytes]) -> None:
        site.published.extend(events)

    async def send(message: OutgoingMessage) -> None:
        site.dead.append(message)

    commit = GroupCommit(write)
    site = _Site(cast("Connection", None), intake_of(commit))
    handler = CallbackHandler(sources, site.intake, send, counted())
    serves = serving(handler, "127.0.0.1", 0, shutdown_timeout_s=10, max_connections=16, limits=LIMITS)
    async with background(commit.run()), serves as port, connected_to(port) as site.connection:
        yield site


def _with_allowance(sources: Sources, bytes_per_day: int) -> tuple[FairShares, Callable[[GroupCommit], Intake]]:
    """Build an intake whose routes change when the test updates the shares."""
    shares = FairShares(sources, bytes_per_day=bytes_per_day, max_waiting_bytes=MIB)
    return shares, lambda commit: Intake(shares, commit, cast("Waiting", None), cast("Probes", None))


async def _assert_refused(site: _Site, source: SourceName, limit: str) -> None:
    for request in (get(f"/callbacks/{source}?{LINE}"), post(f"/callbacks/{source}", body=LINE.encode())):
        await site.connection.send(request)
        status, body = await site.connection.response()
        assert status == 429
        assert orjson.loads(body) == {
            "type": "about:blank",
            "title": "Too Many Requests",
            "status": 429,
            "detail": f"Source {source} is refused: {limit}. Retry later.",
        }


async def test_beyond_its_bytes_per_day_a_source_gets_429_and_another_does_not(sources: Sources) -> None:
    shares, intake_of = _with_allowance(sources, 86_400)  # refills by a byte a second
    async with _serving(sources, intake_of) as site:
        while shares.of(ACME).route is Route.PUBLISH:
            assert await site.status(ACME, LONG) == 200
            shares.update(TICK_S, Load())
        published = len(site.published)
        assert published * len(LONG) > 80_000
        await _assert_refused(site, ACME, DAY)
        assert await site.status(ACME, "CallType=nonsense") == 429, "an invalid one is refused too, and not kept"
        assert (len(site.published), site.dead) == (published, [])
        assert await site.status(OTHER) == 200
        shares.update(86_400, Load())
        assert await site.status(ACME) == 200


@pytest.mark.parametrize("invalid", ["CallType=nonsense", f"{LINE}&{'a' * 300}=1"], ids=["small", "name too long"])
async def test_dead_letters_of_a_source_use_up_its_bytes_per_day(sources: Sources, invalid: str) -> None:
    """A small one counts with more than its bytes, so that they are about as few as callbacks of the usual size."""
    shares, intake_of = _with_allowance(sources, 86_400)
    async with _serving(sources, intake_of) as site:
        for _ in range(100):
            status = await site.status(ACME, invalid)
            shares.update(TICK_S, Load())
            if status == 429:
                break
            assert status == 400
        await _assert_refused(site, ACME, DAY)
        dead = len(site.dead)
        assert 0 < dead < 100
        assert await site.status(ACME, invalid) == 429
        assert len(site.dead) == dead
        assert await site.status(OTHER, invalid) == 400


async def test_a_refused_client_is_asked_to_come_back_once_the_allowance_has_refilled(sources: Sources) -> None:
    shares, intake_of = _with_allowance(sources, 86_400)
    async with _serving(sources, intake_of) as site:
        shares.of(ACME).take(86_400 + 50)
        shares.update(TICK_S, Load())
        assert await _retry_after_s(site) == 60, "50 s until it is no longer negative, and 10 s more"


async def _retry_after_s(site: _Site) -> int:
    await site.connection.send(get(f"/callbacks/{ACME}?{LINE}"))
    head = await site.connection.reader.readuntil(b"\r\n\r\n")
    await site.connection.reader.readexactly(int(head.partition(b"Content-Length: ")[2].split()[0]))
    assert b"429" in head.splitlines()[0]
    return int(head.partition(b"Retry-After: ")[2].split()[0])


async def test_beyond_its_part_of_the_waiting_callbacks_a_source_gets_429_until_they_are_drained(
    sources: Sources, tmp_path: Path
) -> None:
    """The file is measured while RabbitMQ refuses messages too, so that nothing is drained."""
    broker = _Broker()
    publisher = cast("Publisher", broker)
    shares = FairShares(sources, bytes_per_day=1 << 40, max_waiting_bytes=MIB)
    async with (
        Waiting(tmp_path, publisher, FoldDepth(publisher, 1 << 30), broker.probes, max_bytes=64 * MIB) as waiting,
        _serving(sources, lambda commit: Intake(shares, commit, waiting, broker.probes)) as site,
        background(waiting.run(), site.intake.run(LiveSources(sources))),
    ):
        await waiting.add(ACME, encode(CallbackEvent(ACME, utc_now(), "from before")))

        async def is_waiting() -> bool:
            return shares.of(ACME).route is Route.WAIT

        await eventually(is_waiting)
        sent = await _send_until_refused(site)
        assert sent * len(LONG) > MIB // 4
        await _assert_refused(site, ACME, WAITING)
        assert await _retry_after_s(site) == 10
        assert site.intake.problems() == [f"callbacks of source acme are refused with 429: {WAITING}"]
        assert site.published == [], "what was accepted waits"
        assert await site.status(OTHER) == 200
        broker.is_refusing = False

        async def is_drained() -> bool:
            return shares.of(ACME).route is Route.PUBLISH

        await eventually(is_drained)
        assert await site.status(ACME) == 200
        assert len(broker.folded) == sent + 1, "each that was answered 200, and no other"


async def _send_until_refused(site: _Site) -> int:
    """Send callbacks of `acme` that wait; returns how many were accepted before the first was refused."""
    accepted = 0
    async with asyncio.timeout(LIMIT_S):
        while (status := await site.status(ACME, LONG)) == 200:
            accepted += 1
    assert status == 429
    return accepted
