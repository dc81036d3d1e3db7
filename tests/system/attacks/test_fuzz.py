"""Mutated requests over raw sockets: nothing fails or hangs, and what ingress has accepted is kept byte for byte.

Each request follows from a seed and its number. `FUZZ_REQUESTS=1000000` sends that many, `FUZZ_SEED=7` others than usual.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context

import orjson
import pytest

from shared.domain.quarantined import QuarantinedCallback, Refusal, RefusalCounts, decode_quarantined
from shared.domain.times import rfc3339
from shared.streams.journal import journal_until_now
from tests.helpers import fuzz, fuzz_client
from tests.helpers.attacks import resident_bytes, within_bounds
from tests.helpers.console import KEY, VIEWER_KEY, World, world
from tests.helpers.servers import VENDOR_LINES, Servers, connected, eventually
from tests.helpers.settings import settings_here

SEED = int(os.environ.get("FUZZ_SEED", "1"))
REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "0"))
SECONDS = float("inf") if REQUESTS else 4.0
CONNECTIONS = 300 if REQUESTS else 32
Attack = tuple[int, Callable[[int], fuzz.FuzzRequest], Iterable[int], float, int]


def _numbers(attackers: int) -> list[range]:
    """Share the numbers among processes; without an end they are more than fit into the time."""
    share = -(-REQUESTS // attackers) if REQUESTS else 10**6
    return [range(at * share, (at + 1) * share) for at in range(attackers)]


async def _attacked(world: World, role: str, make: partial[fuzz.FuzzRequest], port: int) -> dict[int, list[str]]:
    """Send mutated requests to a process; returns the statuses of each request."""
    process = world.roles[role]
    before = resident_bytes(process)
    attackers = 2 if REQUESTS else 1
    arguments: list[Attack] = [(port, make, numbers, SECONDS, CONNECTIONS // attackers) for numbers in _numbers(attackers)]
    async with within_bounds(*world.roles.values()):
        outcomes = await _outcomes(arguments)
    statuses = {number: found for outcome in outcomes for number, found in outcome.statuses.items()}
    grown = resident_bytes(process) - before
    counts = Counter(status for found in statuses.values() for status in found or ["nothing"])
    rate = len(statuses) / max(outcome.seconds for outcome in outcomes)
    sys.stderr.write(f"{role}: {len(statuses)} requests, {rate:.0f}/s, resident memory {grown >> 20:+} MiB; {dict(counts)}\n")
    allowed = {"503"} if role == "console" else frozenset()  # a busy console refuses to read more dead letters
    failed = [number for number, found in statuses.items() if any(s.startswith("5") and s not in allowed for s in found)]
    hung = [number for outcome in outcomes for number in outcome.hangs]
    assert not failed, _described(make, {number: statuses[number] for number in failed})
    assert not hung, _described(make, dict.fromkeys(hung, "no answer, and the connection did not end"))
    assert len(statuses) >= (REQUESTS or 50), "the attack did almost nothing"
    return statuses


async def _outcomes(arguments: list[Attack]) -> list[fuzz_client.Outcome]:
    """Attack from this process, or with very many requests from others."""
    if not REQUESTS:
        return [await fuzz_client.attack(*each) for each in arguments]
    with ProcessPoolExecutor(len(arguments), get_context("spawn")) as pool:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(pool, fuzz_client.attack_here, *each) for each in arguments))


def _described(make: partial[fuzz.FuzzRequest], found: Mapping[int, object]) -> str:
    lines = [f"number {number}: {why}; sent {make(number).raw!r}" for number, why in list(found.items())[:3]]
    return f"{len(found)} with FUZZ_SEED={SEED}: " + "; ".join(lines)


async def _kept(servers: Servers, monkeypatch: pytest.MonkeyPatch, since: datetime) -> dict[int, list[str]]:
    """Read the queries in the journal, by the request that each came from."""
    kept: dict[int, list[str]] = defaultdict(list)
    settings = settings_here(monkeypatch, servers.environment())
    async with journal_until_now(settings, since, stream="callbacks.journal") as deliveries:
        async for delivery in deliveries:
            _add(kept, delivery.body)
    return kept


async def _dead(servers: Servers) -> dict[int, list[str]]:
    """Read the dead letters of ingress. Those of the worker are accepted callbacks, beyond the legs that a call can have."""
    kept: dict[int, list[str]] = defaultdict(list)
    async with servers.queue("callbacks.dead") as queue:
        await queue.channel.set_qos(prefetch_count=500)
        left = (await queue.channel.declare_queue(queue.name, passive=True)).declaration_result.message_count
        if left:
            async with queue.iterator(no_ack=True) as messages:
                async for message in messages:
                    reason = message.headers["reason"]
                    assert reason in {"invalid_callback", "unreadable_body", "too_many_legs"}
                    if reason != "too_many_legs":
                        _add(kept, message.body)
                    left -= 1
                    if not left:
                        break
    return kept


def _add(kept: dict[int, list[str]], body: bytes) -> None:
    for event in orjson.loads(body):
        number = fuzz.number_of(event.get("query", ""))
        if number is not None:
            kept[number].append(event["query"])


def _lost(
    make: partial[fuzz.FuzzRequest], statuses: dict[int, list[str]], is_answer: Callable[[str], bool], kept: dict[int, list[str]]
) -> dict[int, object]:
    """Compare what was kept with what was answered, byte for byte; returns the differences by request."""
    lost: dict[int, object] = {}
    for number, found in statuses.items():
        answered, there = sum(map(is_answer, found)), kept.get(number, [])
        is_unknown = "-" in found or "left" in found  # it may have been kept, and its answer not have arrived
        if not answered and not there:
            continue
        wanted = fuzz.queries_to_keep(make(number).raw)
        if len(there) < answered or (there and not answered and not is_unknown) or any(query not in wanted for query in there):
            lost[number] = f"answered {found}, kept {there}, expected {wanted!r}"
    return lost


async def test_ingress_keeps_what_it_accepts_and_answers_everything(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    since = datetime.now(UTC) - timedelta(seconds=1)
    async with world(servers, fuzz.SOURCES, "ingress", "worker") as running:
        await connected(*running.roles.values())
        make = partial(fuzz.ingress_request, SEED)
        statuses = await _attacked(running, "ingress", make, running.ingress_port)
        assert "200" in {status for found in statuses.values() for status in found}

        async def is_folded() -> bool:
            async with servers.queue("callbacks.fold") as queue:
                return (await queue.channel.declare_queue(queue.name, passive=True)).declaration_result.message_count == 0

        await eventually(is_folded)
    kept, dead = await _kept(servers, monkeypatch, since), await _dead(servers)
    lost = _lost(make, statuses, "200".__eq__, kept) | _lost(make, statuses, lambda status: status.endswith(" kept"), dead)
    assert not lost, _described(make, lost)
    refused: dict[int, object] = {
        number: found for number, found in statuses.items() if make(number).is_good and not {*found} <= {"200", "-", "left"}
    }
    assert not refused, _described(make, refused)
    await _assert_quarantined(servers, monkeypatch, since, statuses)


async def _assert_quarantined(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, since: datetime, statuses: dict[int, list[str]]
) -> None:
    """Check that every refusal for a secret or name was counted, and that each copy is of such a request and has no secret."""
    answered = Counter(status for found in statuses.values() for status in found)
    unknown = sum(answered[status] for status in ("-", "left"))
    counted: Counter[str] = Counter()
    settings = settings_here(monkeypatch, servers.environment())
    async with journal_until_now(settings, since, stream="callbacks.quarantine") as deliveries:
        async for delivery in deliveries:
            assert fuzz.SECRET.encode() not in delivery.body
            match decode_quarantined(delivery.body):
                case RefusalCounts(counts=counts) as refusals if refusals.received_at >= rfc3339(since):
                    counted.update({count.reason: count.count for count in counts})
                case QuarantinedCallback() as callback if callback.received_at >= rfc3339(since):
                    number = fuzz.number_of(callback.query)
                    assert number is None or {"401", "404", "-", "left"} & {*statuses[number]}, callback
    for reason, status in ((Refusal.WRONG_SECRET, "401"), (Refusal.UNKNOWN_SOURCE, "404")):
        # Behind each request of unsound bytes goes one for `/nothing`, and what the client left was answered too.
        assert answered[status] <= counted[reason] <= answered[status] + unknown + len(statuses), (counted, answered)


async def test_the_console_answers_everything(servers: Servers) -> None:
    keys = {"CALLFOLD_CONSOLE_KEY": KEY, "CALLFOLD_CONSOLE_VIEWER_KEYS": VIEWER_KEY}
    async with world(servers, fuzz.SOURCES, "ingress", "worker", "console", **keys) as running:
        await running.call_back([f"token={fuzz.SECRET}&{line}" for line in VENDOR_LINES])
        await running.detail("acme/513", status="complete")
        make = partial(fuzz.console_request, SEED, keys=(KEY, VIEWER_KEY, "wrong"))
        statuses = await _attacked(running, "console", make, int(running.console.rpartition(":")[2]))
        assert "200" in {status for found in statuses.values() for status in found}
