"""An ingress whose clock is wrong closes no call early, lets each call end, and dates no call in the future."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import aio_pika
import pytest

from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import CallbackEvent, encode, join
from shared.domain.times import milliseconds, rfc3339
from shared.state.store import Store
from tests.helpers.pace import paced
from tests.helpers.servers import Servers, eventually, lines_of, next_new, waiting_events

SOURCE = SourceName("default")
PICKUP, FAR_PICKUP, FAR_HANGUP, HANGUP = range(4)
QUICK = {"CALLFOLD_TIMER_LEASE_SECONDS": paced(1), "CALLFOLD_TIMER_HOLD_OFF_SECONDS": "0"}
BEHIND, AHEAD, FAR_AHEAD = timedelta(minutes=-10), timedelta(minutes=10), timedelta(days=3)


async def _send(servers: Servers, lines: Sequence[str], wrong: timedelta, *, with_headers: bool = True) -> None:
    """Publish callbacks one after the other, as an ingress does whose clock is wrong by so much."""
    async with servers.queue("callbacks.fold") as queue:
        exchange = await queue.channel.get_exchange("callbacks", ensure=False)
        for line in lines:
            at = rfc3339(datetime.now(UTC) + wrong)
            headers = {"sent_at": at, "sent_by": "ingress-1"} if with_headers else {}
            body = join([encode(CallbackEvent(SOURCE, at, line))])
            message = aio_pika.Message(body, message_id=uuid.uuid4().hex, delivery_mode=2, headers=dict(headers))
            await exchange.publish(message, "")


@pytest.mark.parametrize("wrong", [BEHIND, AHEAD, FAR_AHEAD], ids=["10-min-behind", "10-min-ahead", "3-days-ahead"])
async def test_no_call_is_closed_before_its_wait_is_over_by_true_time(servers: Servers, wrong: timedelta) -> None:
    key = CallKey(SOURCE, CallRef("513"))
    # A leg is over: at once ambiguous, then overdue by each of the waits, by the clock of this ingress.
    patient = {name: paced(60) for name in ("CALLFOLD_SETTLE_SECONDS", "CALLFOLD_LEG_GRACE_SECONDS", "CALLFOLD_MAX_CALL_SECONDS")}
    async with servers.subscribed("call.#") as events, servers.fleet(**QUICK, **patient) as fleet:
        fleet.add("worker", "worker", {})
        await fleet.start_all()
        store = Store(servers.stack.redis_url)
        try:
            await _send(servers, [lines_of(513)[number] for number in (PICKUP, HANGUP)], wrong)

            async def are_folded() -> bool:
                call = await store.read(key)
                return call is not None and any(name.endswith(":hangup") for name in call.facts)

            await eventually(are_folded)
            since_ms = milliseconds(rfc3339(await store.now())) + 2000

            async def timers_have_run_since() -> bool:
                folded = await store.watermarks.folded_until()
                return folded is not None and folded.ms > since_ms

            await eventually(timers_have_run_since)
            assert await waiting_events(events) == []
            before = rfc3339(await store.now())
            await _send(servers, [lines_of(513)[number] for number in (FAR_PICKUP, FAR_HANGUP)], wrong)
            (event,) = await next_new(events, 1)
            record = event.body["data"]
            assert (record["revision"], record["outcome"], record["close_reason"]) == (1, "answered", "hangup")
            if wrong > timedelta():
                assert record["started_at"] < before < record["ended_at"] <= rfc3339(await store.now())
        finally:
            await store.aclose()


@pytest.mark.parametrize(("wrong", "with_headers"), [(BEHIND, False), (FAR_AHEAD, True)], ids=["10-min-behind", "3-days-ahead"])
async def test_a_call_that_lost_callbacks_ends_in_time(servers: Servers, wrong: timedelta, *, with_headers: bool) -> None:
    waits = {name: paced(2) for name in ("CALLFOLD_SETTLE_SECONDS", "CALLFOLD_LEG_GRACE_SECONDS", "CALLFOLD_MAX_CALL_SECONDS")}
    async with servers.subscribed("call.#") as events, servers.fleet(**QUICK, **waits) as fleet:
        worker = fleet.add("worker", "worker", {})
        await fleet.start_all()
        await _send(servers, [lines_of(513)[PICKUP]], wrong, with_headers=with_headers)
        (event,) = await next_new(events, 1)
        assert event.body["data"]["close_reason"] == "timeout"
        assert event.body["data"]["started_at"] <= rfc3339(datetime.now(UTC))
        if with_headers and wrong > timedelta():
            assert '"ingress_clock_differs"' in worker.log_path.read_text("utf-8")
