"""What is refused leaves a trace, and a callback with a wrong secret or name can be found again, without any secret."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, cast
from urllib.parse import quote

import pytest
from prometheus_client import REGISTRY

from ingress.callbacks import CallbackHandler
from ingress.forms import Body
from ingress.group_commit import GroupCommit
from ingress.peer_rates import ALL_BURST_BYTES, OVERHEAD_BYTES, PEER_BURST_BYTES, PEER_BYTES_PER_S, PeerRates
from ingress.quarantine import Quarantine, Suspect
from ingress.refusals import Refusals
from ingress.server import serving
from ingress.source_secrets import SourceSecrets
from shared.amqp.publisher import Message, Publisher
from shared.config.live_sources import LiveSources
from shared.config.sources import load_sources
from shared.domain.quarantined import QuarantinedCallback, Refusal, RefusalCounts, decode_quarantined
from shared.errors import BrokerUnavailableError
from shared.metrics import Export, Role
from shared.runtime.client_address import Proxies
from shared.runtime.process import background
from tests.helpers.intake import published_at_once
from tests.helpers.pace import LIMIT_S
from tests.helpers.raw_http import connected_to, get, post
from tests.helpers.servers import eventually
from tests.helpers.site import PATIENT

SECRET, OTHER = "hunter2/hunter2", "other-secret-0123456789"
SOURCES = f'[sources.acme]\nsecret = "{SECRET}"\n[sources.other]\nsecret = "{OTHER}"\n'
LINE = "CallType=API&Event=pickup&CallID=77&RequestID=513"
SPELLED = SECRET.replace("/", "%2F")


@dataclass(slots=True)
class _Broker:
    """Takes messages, or none."""

    is_away: bool = False
    is_up: bool = True
    messages: list[Message] = field(default_factory=list)

    async def run(self) -> NoReturn:
        while True:
            await asyncio.sleep(3600)

    async def wait_until_up(self) -> None:
        await asyncio.sleep(0)

    async def publish(self, *messages: Message) -> None:
        if self.is_away:
            raise BrokerUnavailableError("away")
        self.messages += messages

    def callbacks(self) -> list[QuarantinedCallback]:
        return [each for each in map(self._decoded, self.messages) if isinstance(each, QuarantinedCallback)]

    def counts(self) -> dict[str, int]:
        told = [each for each in map(self._decoded, self.messages) if isinstance(each, RefusalCounts)]
        return {count.reason: count.count for counts in told for count in counts.counts}

    @staticmethod
    def _decoded(message: Message) -> QuarantinedCallback | RefusalCounts | None:
        assert (message.exchange, message.routing_key) == ("", "callbacks.quarantine")
        assert SECRET.encode() not in message.body
        return decode_quarantined(message.body)

    async def has(self, count: int) -> bool:
        return len(self.callbacks()) >= count


class _SilentBroker(_Broker):
    """Confirms nothing of the first batch."""

    is_asked: asyncio.Event

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = asyncio.Event()

    async def publish(self, *messages: Message) -> None:
        if not self.is_asked.is_set():
            self.is_asked.set()
            await asyncio.Event().wait()
        await super().publish(*messages)


@asynccontextmanager
async def _serving(directory: Path, broker: _Broker) -> AsyncIterator[int]:
    (directory / "sources.toml").write_text(SOURCES)
    sources = load_sources(directory / "sources.toml")

    async def no_more(*_: object) -> None:
        pass

    quarantine = Quarantine(cast("Publisher", broker), LiveSources(sources).derive(SourceSecrets))
    commit = GroupCommit(no_more)
    refusals = Refusals(Proxies("127.0.0.1", setting="x"), quarantine)
    handler = CallbackHandler(sources, published_at_once(sources, commit), no_more, refusals)
    serves = serving(handler, "127.0.0.1", 0, shutdown_timeout_s=10, max_connections=16, limits=PATIENT)
    async with background(quarantine.run(), commit.run()), serves as port:
        yield port


async def _status(port: int, raw: bytes) -> int:
    async with connected_to(port) as connection:
        await connection.send(raw)
        return await connection.status()


JSON = "Content-Type: application/json"
KEPT = {
    "wrong token": (get(f"/callbacks/acme?token=wrong&{LINE}"), "wrong_secret", "acme", LINE, ""),
    "no token": (get(f"/callbacks/acme?{LINE}"), "wrong_secret", "acme", LINE, ""),
    "token of another source": (get(f"/callbacks/acme?token={OTHER}&{LINE}"), "wrong_secret", "acme", LINE, "other"),
    "token under another name": (get(f"/callbacks/acme?key={SPELLED}&{LINE}"), "wrong_secret", "acme", f"key=***&{LINE}", ""),
    "token in other case": (get(f"/callbacks/acme?Token={SPELLED}&{LINE}"), "wrong_secret", "acme", LINE, ""),
    "long": (get(f"/callbacks/acme?token=x&{LINE}&a={'b' * 2000}"), "wrong_secret", "acme", f"{LINE}&a={'b' * 2000}", ""),
    "unknown": (get(f"/callbacks/acmee?token={SPELLED}&{LINE}"), "unknown_source", "acmee", LINE, "acme"),
    "no name": (get(f"/callbacks/?token={SPELLED}&{LINE}"), "unknown_source", "", LINE, "acme"),
    "another path": (get(f"/callback/acme?token={SPELLED}&{LINE}"), "unknown_source", "", LINE, "acme"),
    "secret as name": (get(f"/callbacks/{OTHER}?{LINE}"), "unknown_source", "", LINE, ""),
    "token within a value": (get(f"/callbacks/acme?a=x{SPELLED}y&{LINE}"), "wrong_secret", "acme", f"a=x***y&{LINE}", ""),
    "form": (post("/callbacks/acme", body=f"token=wrong&{LINE}".encode()), "wrong_secret", "acme", LINE, ""),
    "encoded twice": (get(f"/callbacks/acme?a={quote(SPELLED)}x&{LINE}"), "wrong_secret", "acme", f"a=***x&{LINE}", ""),
    "a letter encoded": (get(f"/callbacks/acme?a=%68{SECRET[1:]}&{LINE}"), "wrong_secret", "acme", f"a=***&{LINE}", ""),
    "token with an encoded name": (get(f"/callbacks/acme?%54oken=wrong&{LINE}"), "wrong_secret", "acme", LINE, ""),
    "semicolons": (
        get(f"/callbacks/acme?token=wrong;{LINE.replace('&', ';')}"),
        "wrong_secret",
        "acme",
        LINE.replace("&", ";"),
        "",
    ),
    "semicolons of another source": (get(f"/callbacks/acme?token={OTHER};{LINE}"), "wrong_secret", "acme", LINE, "other"),
    "secret within the name": (get(f"/callbacks/x{OTHER}-y?{LINE}"), "unknown_source", "", LINE, ""),
    "json": (
        post("/callbacks/acmee", JSON, body=b'{"token": "hunter2\\/hunter2", "a": 1}'),
        "unknown_source",
        "acmee",
        "a=1",
        "acme",
    ),
}


@pytest.mark.parametrize("name", KEPT)
async def test_a_callback_with_a_wrong_secret_or_source_is_kept_without_any_secret(tmp_path: Path, name: str) -> None:
    raw, reason, source, query, secret_of = KEPT[name]
    broker = _Broker()
    async with _serving(tmp_path, broker) as port:
        assert await _status(port, raw) in {401, 404}
        await eventually(lambda: broker.has(1))
    (kept,) = broker.callbacks()
    assert (kept.reason, kept.source, kept.query, kept.secret_of) == (reason, source, query, secret_of)
    assert kept.peer == "127.0.0.1"
    assert broker.counts() == {reason: 1}


async def test_a_body_that_cannot_be_read_is_kept_as_it_is_without_any_secret(tmp_path: Path) -> None:
    broker = _Broker()
    async with _serving(tmp_path, broker) as port:
        raw = post("/callbacks/acmee", "Content-Type: text/xml", body=f"<a b='{OTHER}'/>\xff".encode("latin-1"))
        assert await _status(port, raw) == 404
        await eventually(lambda: broker.has(1))
    (kept,) = broker.callbacks()
    assert (kept.body, kept.content_type, kept.query) == (b"<a b='***'/>\xff", "text/xml", "")


async def test_the_sender_is_named_as_the_load_balancer_names_it(tmp_path: Path) -> None:
    broker = _Broker()
    async with _serving(tmp_path, broker) as port:
        await _status(port, get("/callbacks/acmee?a=b", "X-Forwarded-For: 192.0.2.1, 192.0.2.7"))
        await eventually(lambda: broker.has(1))
    assert broker.callbacks()[0].peer == "192.0.2.7"


async def test_a_broker_that_is_away_costs_callbacks_of_strangers_and_no_count(tmp_path: Path) -> None:
    broker = _Broker(is_away=True)

    async def is_counted() -> bool:
        return broker.counts().get("unknown_source") == 3

    lost = _metric("callfold_callbacks_quarantined_total", result="lost")

    async def is_lost() -> bool:
        return _metric("callfold_callbacks_quarantined_total", result="lost") == lost + 3

    async with _serving(tmp_path, broker) as port:
        for _ in range(3):
            assert await _status(port, get("/callbacks/acmee?a=b")) == 404
        await eventually(is_lost)
        broker.is_away = False
        await eventually(is_counted)
    assert broker.callbacks() == []


async def test_what_still_waits_is_published_at_the_end(tmp_path: Path) -> None:
    broker = _Broker()
    async with _serving(tmp_path, broker) as port:
        await _status(port, get("/callbacks/acmee?a=b"))
        await eventually(lambda: broker.has(1))
        for _ in range(3):
            await _status(port, get("/callbacks/acme?a=b"))
    assert len(broker.callbacks()) == 4
    assert broker.counts()["wrong_secret"] == 3


def _offered(quarantine: Quarantine, *names: str) -> None:
    for name in names:
        quarantine.count(Refusal.UNKNOWN_SOURCE, "", "192.0.2.7")
        quarantine.offer(Suspect(Refusal.UNKNOWN_SOURCE, name, "192.0.2.7", "2026-11-23T07:44:00.000000Z", "a=b", Body()))


async def test_a_copy_that_fails_counts_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = _Broker()
    quarantine = Quarantine(cast("Publisher", broker), LiveSources({}).derive(SourceSecrets))
    kept, lost = (_metric("callfold_callbacks_quarantined_total", result=result) for result in ("kept", "lost"))
    copy = QuarantinedCallback.encode

    def encode(callback: QuarantinedCallback) -> bytes:
        if callback.source == "bad":
            raise AssertionError("a fault")
        return copy(callback)

    monkeypatch.setattr(QuarantinedCallback, "encode", encode)
    _offered(quarantine, "good", "bad", "better")
    async with background(quarantine.run()):
        await eventually(lambda: broker.has(2))
    assert [each.source for each in broker.callbacks()] == ["good", "better"]
    assert _metric("callfold_callbacks_quarantined_total", result="kept") == kept + 2
    assert _metric("callfold_callbacks_quarantined_total", result="lost") == lost + 1


async def test_a_stop_within_a_publish_loses_nothing() -> None:
    broker = _SilentBroker()
    quarantine = Quarantine(cast("Publisher", broker), LiveSources({}).derive(SourceSecrets))
    _offered(quarantine, "first", "second")
    running = asyncio.create_task(quarantine.run())
    async with asyncio.timeout(LIMIT_S):
        await broker.is_asked.wait()
    _offered(quarantine, "third")
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert [each.source for each in broker.callbacks()] == ["first", "second", "third"]
    assert broker.counts() == {"unknown_source": 3}


async def test_what_is_published_again_has_the_same_id() -> None:
    broker = _Broker()
    quarantine = Quarantine(cast("Publisher", broker), LiveSources({}).derive(SourceSecrets))
    _offered(quarantine, "a")
    (suspect,) = quarantine._waiting
    assert quarantine._without_secret(suspect).id == quarantine._without_secret(suspect).id


async def test_a_stranger_that_sends_too_much_is_limited_and_answered(tmp_path: Path) -> None:
    broker = _Broker()
    limited = _metric("callfold_callbacks_quarantined_total", result="limited")
    many = 2 * PEER_BURST_BYTES // 8000
    async with _serving(tmp_path, broker) as port, connected_to(port) as connection:
        for _ in range(many):
            await connection.send(get(f"/callbacks/acmee?{'a' * 8000}"))
            assert await connection.status() == 404
        await connection.send(get(f"/callbacks/acme?token={SPELLED}&{LINE}"))
        assert await connection.status() == 200
    assert _metric("callfold_callbacks_quarantined_total", result="limited") > limited


def test_a_sender_has_a_rate_and_all_have_one_too() -> None:
    rates, large = PeerRates(0), PEER_BURST_BYTES - OVERHEAD_BYTES
    assert rates.take("a", large, 0)
    assert not rates.take("a", 1, 0)
    assert rates.take("b", large, 0)
    assert rates.take("a", PEER_BYTES_PER_S // 2, 1)
    assert not rates.take("a", PEER_BYTES_PER_S, 1)
    taken = sum(rates.take(str(number), large, 1) for number in range(100))
    assert taken < ALL_BURST_BYTES // PEER_BURST_BYTES
    assert sum(rates.take(f"{number}x", 0, 2) for number in range(10_000)) < 10_000
    assert len(rates._peers) <= 4096


def _metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_every_reason_has_a_series_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "sources.toml").write_text("[sources.fresh]\n")
    Refusals(Proxies(""))
    Export(Role.INGRESS).add_sources(load_sources(tmp_path / "sources.toml"))
    for reason in Refusal:
        assert REGISTRY.get_sample_value("callfold_callbacks_refused_total", {"reason": reason}) is not None
    for result in ("accepted", "invalid", "wrong_secret", "limited", "unavailable"):
        assert REGISTRY.get_sample_value("callfold_callbacks_total", {"source": "fresh", "result": result}) == 0


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"kind":"quarantined"}', b'{"kind":"other","received_at":"x"}', b"\xff", b"null"]
)
def test_a_message_of_another_program_is_none(body: bytes) -> None:
    assert decode_quarantined(body) is None
