"""Every call ends: by its events, or by a timer that says so, once, and never early. What comes later amends it."""

from __future__ import annotations

import signal
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial

import aio_pika
import pytest

from console.local.child_process import ProcessFailedError
from console.local.processes import Fleet
from shared.clock import utc_now
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.lost_callbacks import Losses
from shared.domain.raw_event import CallbackEvent, encode, join
from shared.domain.recording import RecordingJob
from shared.domain.times import rfc3339
from shared.state.store import Store
from tests.helpers.pace import PACE, paced
from tests.helpers.servers import (
    UNMEASURED,
    Event,
    Servers,
    eventually,
    eventually_as_many,
    exit_code,
    lines_of,
    next_new,
    settled,
    waiting_events,
    worker_at_work,
)
from tests.helpers.volume import sizes

QUICK = {
    "CALLFOLD_SETTLE_SECONDS": paced(2),
    "CALLFOLD_LEG_GRACE_SECONDS": paced(3),
    "CALLFOLD_MAX_CALL_SECONDS": paced(5),
    "CALLFOLD_TIMER_LEASE_SECONDS": paced(1),
    "CALLFOLD_TIMER_HOLD_OFF_SECONDS": "0",
}
PICKUP, FAR_PICKUP, FAR_HANGUP, HANGUP = range(4)


@asynccontextmanager
async def _running(servers: Servers, *, workers: int = 1, **more: str) -> AsyncIterator[Fleet]:
    async with servers.fleet(**QUICK, **more) as fleet:
        for number in range(workers):
            fleet.add(f"worker-{number}", "worker", {})
        await fleet.start_all()
        yield fleet


async def _send(servers: Servers, lines: Sequence[str]) -> None:
    """Send callbacks in one message: whatever is slow, no timer comes between them."""
    async with servers.queue("callbacks.fold") as queue:
        exchange = await queue.channel.get_exchange("callbacks", ensure=False)
        body = join(encode(CallbackEvent(SourceName("default"), utc_now(), line)) for line in lines)
        await exchange.publish(aio_pika.Message(body, message_id=uuid.uuid4().hex, delivery_mode=2), "")


LOST = (
    ([PICKUP, HANGUP], "agent_hung_up", "settled"),
    ([HANGUP], "agent_missed", "settled"),
    ([FAR_PICKUP, FAR_HANGUP, HANGUP], "answered", "hangup"),
    ([PICKUP, FAR_HANGUP, HANGUP], "dialed_missed", "settled"),
    ([PICKUP, FAR_PICKUP, FAR_HANGUP], "answered", "timeout"),
    ([PICKUP, FAR_PICKUP, HANGUP], "answered", "timeout"),
    ([FAR_PICKUP, FAR_HANGUP], "answered", "timeout"),
    ([PICKUP], "unknown", "timeout"),
    ([PICKUP, FAR_PICKUP], "answered", "timeout"),
)


async def test_calls_that_lost_callbacks_end_by_a_timer_once(servers: Servers) -> None:
    expected = {}
    async with servers.subscribed("call.#") as events, _running(servers, workers=2):
        for call, (sent, outcome, reason) in enumerate(LOST, start=513):
            await _send(servers, [lines_of(call)[number] for number in sent])
            expected[f"default/{call}/1"] = (f"call.completed.default.{outcome}", reason, reason != "timeout")
        published = await next_new(events, len(LOST))
        ends = {event.message_id: (event.routing_key, *_closing(event)) for event in published}
        assert ends == expected
        await settled(servers, *(CallKey(SourceName("default"), CallRef(str(call))) for call in range(513, 513 + len(LOST))))
        assert [event for event in await waiting_events(events) if event not in published] == []
        await eventually(partial(_are_counted, servers, len(LOST), Losses(expected=19, lost=8)))


async def _are_counted(servers: Servers, calls: int, losses: Losses) -> bool:
    """Return whether the workers have stored what these calls show of their PBX, and judged its silence."""
    async with aclosing(Store(servers.stack.redis_url)) as store:
        now_ms = round((await store.now()).timestamp() * 1000)
        (report,) = await store.pbx_watch.reports([SourceName("default")], now_ms)
    return (report.calls, report.losses, report.silence is not None) == (calls, losses, True)


def _closing(event: Event) -> tuple[str, bool]:
    data = event.body["data"]
    return data["close_reason"], data["complete"]


async def _quiet(servers: Servers, events: aio_pika.abc.AbstractQueue, *known: Event) -> None:
    """Nothing new is published of the call, and no timer is left that could lead to it."""
    await settled(servers, CallKey(SourceName("default"), CallRef("513")))
    assert [event for event in await waiting_events(events) if event not in known] == []


async def test_what_comes_after_a_timeout_amends_the_record_and_fetches_the_recording_that_was_missing(servers: Servers) -> None:
    lines = lines_of(513)
    async with servers.subscribed("call.#") as events, _running(servers) as fleet:
        await _send(servers, [lines[PICKUP], lines[FAR_PICKUP], lines[FAR_HANGUP]])
        (first,) = await next_new(events, 1)
        assert first.body["data"]["complete"] is False
        await _send(servers, [lines[HANGUP]])
        (second,) = await next_new(events, 1, [first])
        assert second.routing_key == "call.amended.default.answered"
        assert second.message_id == second.body["id"] == "default/513/2"
        assert second.body["type"] == "callfold.call.amended.v1"
        data = second.body["data"]
        assert (data["revision"], data["complete"], data["close_reason"]) == (2, True, "hangup")
        assert data["agent"]["recorded"] is True
        await _send(servers, lines)  # late duplicates
        await _quiet(servers, events, first, second)
        # The dialed leg's job of the first revision and the agent's of the second; the one without recording was a sidecar.
        fetched = {("dialed", 1), ("agent", 2)}
        dead: set[tuple[str, int]] = set()
        await eventually(lambda: _are_dead(servers, fetched, dead))
        await fleet.processes[0].stop()
        assert await _are_dead(servers, fetched, dead)


async def _are_dead(servers: Servers, wanted: set[tuple[str, int]], dead: set[tuple[str, int]]) -> bool:
    """Whether these are the legs, each with the revision, whose jobs are in `recordings.dead`; those found are added to `dead`."""
    jobs = [RecordingJob.decode(letter.body) for letter in await servers.take_all("recordings.dead")]
    dead.update((job.leg, job.revision) for job in jobs)
    return dead == wanted


@pytest.mark.parametrize("point", ["timer.due", "timer.leased", "timer.published", "fold.scheduled"])
async def test_a_worker_that_dies_with_a_timer_delays_the_end_and_no_more(servers: Servers, point: str) -> None:
    lines = lines_of(513)
    async with servers.subscribed("call.#") as events, _running(servers, workers=0) as fleet:
        victim = fleet.add("victim", "worker", {"CALLFOLD_CRASH_AT": point})
        with suppress(ProcessFailedError):  # it may die before it was seen to be ready
            await victim.start()
        if point == "fold.scheduled":
            await worker_at_work(servers)
        await _send(servers, [lines[PICKUP], lines[HANGUP]])
        assert await exit_code(victim) == -signal.SIGKILL
        fleet.processes.remove(victim)
        await fleet.add("heir", "worker", {}).start()
        (event,) = await next_new(events, 1)
        assert (event.message_id, event.routing_key) == ("default/513/1", "call.completed.default.agent_hung_up")
        await _quiet(servers, events, event)


@pytest.mark.parametrize("callbacks", sizes(1_000, 100_000))
async def test_a_long_backlog_of_callbacks_closes_no_call_early(servers: Servers, callbacks: int) -> None:
    """Calls whose last callbacks lie at the end of a backlog, hours old by the clock: their silence is ours."""
    calls = range(1_000_000, 1_000_000 + callbacks // 4)
    then = datetime.now(UTC) - timedelta(hours=1)
    async with servers.subscribed("call.#") as events:
        async with servers.queue("callbacks.fold") as queue:
            for lines, at in ((slice(0, 3), then), (slice(3, 4), then + timedelta(seconds=1))):
                for first in range(calls.start, calls.stop, 10):
                    numbers = range(first, first + 10)
                    told = (line for number in numbers for line in lines_of(number)[lines])
                    body = join(encode(CallbackEvent(SourceName("default"), rfc3339(at), line)) for line in told)
                    message = aio_pika.Message(body, message_id=uuid.uuid4().hex)
                    await queue.channel.default_exchange.publish(message, queue.name)
        # Recordings are not what this is about: one at a time leaves them behind.
        async with _running(servers, workers=2, CALLFOLD_RECORDING_CONCURRENCY="1", **UNMEASURED):
            reasons: dict[str | None, set[str]] = defaultdict(set)

            async def count() -> int:
                for event in await waiting_events(events):
                    reasons[event.message_id].add(event.body["data"]["close_reason"])
                return len(reasons)

            await eventually_as_many(len(calls), count, timeout_s=500 * PACE)
    assert {reason for told in reasons.values() for reason in told} == {"hangup"}
    assert set(reasons) == {f"default/{number}/1" for number in calls}


ALONE = (
    ("Incoming", ("start", "pickup", "hangup"), "answered"),
    ("Incoming", ("start", "hangup", "missed"), "missed"),
    ("Internal", ("pickup", "hangup"), "answered"),
    ("Login", ("start", "hangup"), "missed"),
    ("Conference", ("pickup", "hangup"), "answered"),
    ("Outgoing", ("start", "missed"), "missed"),
)


async def test_calls_without_request_id_are_one_leg_each_named_by_its_call_id(servers: Servers) -> None:
    expected = {}
    async with servers.subscribed("call.#") as events, _running(servers):
        for call, (call_type, sent, outcome) in enumerate(ALONE, start=77):
            await _send(servers, [f"CallType={call_type}&Event={event}&CallID={call}&RequestID=" for event in sent])
            expected[f"default/call-{call}/1"] = (f"call.completed.default.{outcome}", f"call-{call}")
        ended = await next_new(events, len(ALONE))
    assert {event.message_id: (event.routing_key, event.body["subject"]) for event in ended} == expected
    assert [event.body["data"]["request_id"] for event in ended] == [None] * len(ALONE)
