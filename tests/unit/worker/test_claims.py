"""A claim is checked again before each retry of its outbox, and once its lease is over: what changed since must not be overlooked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from shared import metrics
from shared.amqp.publisher import Message, Publisher
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.errors import StateMovedError
from shared.state.store import Store
from shared.state.stored_call import Claim, Publication
from worker.folding import claims
from worker.folding.claims import Claims

KEY = CallKey(SourceName("acme"), CallRef("513"))
OUTBOX = orjson.dumps([("calls", "call.completed.acme.answered", "acme/513/1", "application/json", "{}")])
DUE = {KEY: Publication(KEY, 1, OUTBOX, "", "1")}


class World:
    """Redis and RabbitMQ of one claim: `answers` are those to the claims, `confirms` whether each publish is confirmed."""

    claim_lease_s = 10.0

    def __init__(self, answers: Sequence[Claim | Exception], confirms: Sequence[bool]) -> None:
        self.answers, self.confirms = list(answers), list(confirms)
        self.steps: list[str] = []
        self.waits_s = 0.0

    async def claim(self, publications: Mapping[CallKey, Publication], *, holder: str) -> dict[CallKey, tuple[Claim, bytes]]:
        del holder
        self.steps.append("claim")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict.fromkeys(publications, (answer, OUTBOX if answer is Claim.YOURS else b""))

    async def mark(self, published: Mapping[CallKey, int]) -> None:
        del published
        self.steps.append("mark")

    async def publish_once(self, messages: Sequence[Message], *, task: object, may_send: Callable[[], bool]) -> list[Message]:
        del task
        if not messages:
            return []
        if not may_send():
            self.steps.append("not sent")
            return list(messages)
        self.steps.append("publish")
        return [] if self.confirms.pop(0) else list(messages)

    async def run(self) -> list[CallKey]:
        return await Claims(cast("Publisher", self), cast("Store", cast("Any", self)), None, holder="a").publish(DUE, {})


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_RETRY_S", 0)


async def test_an_unconfirmed_outbox_is_claimed_again_before_it_is_sent_again() -> None:
    world = World([Claim.YOURS, Claim.YOURS], [False, True])
    assert await world.run() == []
    assert world.steps == ["claim", "publish", "claim", "publish", "mark"]


async def test_an_outbox_that_another_worker_has_published_since_is_not_sent_again() -> None:
    world = World([Claim.YOURS, Claim.PUBLISHED], [False])
    assert await world.run() == []
    assert world.steps == ["claim", "publish", "claim"]


async def test_an_outbox_whose_state_is_lost_is_not_sent_again() -> None:
    world = World([Claim.YOURS, StateMovedError("lost")], [False])
    with pytest.raises(StateMovedError):
        await world.run()
    assert world.steps == ["claim", "publish", "claim"]


async def test_a_claim_that_is_older_than_its_lease_is_made_again_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([0.0, 11.0, 20.0, 21.0])
    monkeypatch.setattr(claims, "time", SimpleNamespace(monotonic=lambda: next(times)))
    world = World([Claim.YOURS, Claim.YOURS], [True])
    assert await world.run() == []
    assert world.steps == ["claim", "not sent", "claim", "publish", "mark"]


@pytest.mark.parametrize("outbox", [OUTBOX, b""], ids=["its own outbox", "an outbox that it takes over"])
async def test_only_an_outbox_of_its_own_goes_out_with_the_digest_of_its_facts(
    monkeypatch: pytest.MonkeyPatch, outbox: bytes
) -> None:
    world, sent = World([Claim.YOURS], [True]), list[Message]()
    monkeypatch.setattr(world, "publish_once", _recorded(world.publish_once, sent))
    due = {KEY: Publication(KEY, 1, outbox, "summary", "1", "digest")}
    await Claims(cast("Publisher", world), cast("Store", cast("Any", world)), None, holder="a").publish(due, {})
    [event] = sent
    assert dict(event.headers) == ({"callfold-facts": "digest", "callfold-summary": "summary"} if outbox else {})


def _recorded(publish: Callable[..., Any], sent: list[Message]) -> Callable[..., Any]:
    async def publish_once(messages: Sequence[Message], **options: object) -> list[Message]:
        sent.extend(messages)
        result: list[Message] = await publish(messages, **options)
        return result

    return publish_once


@pytest.mark.parametrize(
    ("received", "observed"), [({KEY: "2026-11-23T07:44:00.000000Z"}, [2.5]), ({}, [])], ids=["a callback", "a timer"]
)
async def test_the_delay_of_an_event_counts_from_its_last_callback_and_not_if_a_timer_closed_the_call(
    monkeypatch: pytest.MonkeyPatch, received: dict[CallKey, str], observed: list[float]
) -> None:
    seen: list[float] = []
    monkeypatch.setattr(metrics, "observe", lambda _of, value, _trace_id=None: seen.append(value))
    world = World([Claim.YOURS, Claim.YOURS], [False, True])
    vars(world)["clock"] = SimpleNamespace(now=lambda: datetime(2026, 11, 23, 7, 44, 2, 500_000, UTC))
    await Claims(cast("Publisher", world), cast("Store", cast("Any", world)), None, holder="a").publish(DUE, received)
    assert seen == observed, "once, at the confirm"
