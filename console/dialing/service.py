"""Dial requests: one phone rings, however often it is asked for, and the call's record tells who asked.

A request with an idempotency key is noted in Redis before anything is dialed; every repeat, at the same moment or within a day,
gets the first one's answer. Where it is certain that no phone rang, the key is released, and a repeat dials. The event of an
accepted dial lies in Redis until the journal has confirmed it.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from dataclasses import dataclass, replace
from typing import NoReturn

import orjson

from console.dialing.focalscope import Dialer, DialError, DialRequest, DialState, check
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLBACKS
from shared.clock import utc_now
from shared.config.sources import Sources
from shared.crash_points import crash_point
from shared.domain.raw_event import DialEvent, encode, join
from shared.errors import BrokerUnavailableError, StoreUnavailableError
from shared.log import get_logger
from shared.state.dials import DialStore

log = get_logger(__name__)

_POLL_S = 0.05
_REPUBLISH_S = 5
_UNRELEASED_KEPT = 10_000
_REDIS_AWAY = "Redis is away: nothing was dialed."


@dataclass(frozen=True, slots=True)
class Answer:
    """What a dial request is answered, now and when it is repeated; `is_repeated`: it was not the first under its key."""

    status: int
    body: dict[str, object]
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """How many dial requests one key may make a minute; how long a repeat waits for the first one's answer."""

    per_minute: int
    wait_s: float


class Dials:
    """Takes dial requests. Every method returns an answer: what is known of the phones is its `dial_state`."""

    def __init__(self, dialer: Dialer, store: DialStore, publisher: Publisher, sources: Sources, limits: Limits) -> None:
        self._dialer = dialer
        self._store = store
        self._publisher = publisher
        self._sources = sources
        self._limits = limits
        self._unkept: dict[str, bytes] = {}  # events that Redis could not keep
        self._in_flight: set[str] = set()  # dials whose event is on its way
        self._unreleased: dict[str, set[bytes]] = {}  # of refused requests: what Redis may still have noted

    async def dial(self, wanted: DialRequest, who: str, key: str = "") -> Answer:
        """Dial, or find what was answered to the same request before."""
        return await self._once(wanted, who, key) if key else await self._dial(wanted, who)

    async def _once(self, wanted: DialRequest, who: str, key: str) -> Answer:
        digest = hashlib.sha256(orjson.dumps(wanted.model_dump(), option=orjson.OPT_SORT_KEYS)).hexdigest()
        name = hashlib.sha256(f"{who}/{key}".encode("utf-8", "surrogateescape")).hexdigest()
        pending = orjson.dumps({"digest": digest, "by": uuid.uuid4().hex})
        try:
            await self._release(name)
            noted = await self._store.begin(name, pending)
        except StoreUnavailableError:
            self._to_be_released(name, pending)  # it may have been noted all the same
            return _refusal(503, _REDIS_AWAY, None)
        if noted is not None:
            return replace(await self._repeat(name, digest, noted), is_repeated=True)
        answer = await self._dial(wanted, who)
        try:
            if answer.body.get("dial_state") == DialState.REFUSED:
                self._to_be_released(name, pending)
                await self._release(name)
            else:
                told = {"digest": digest, "status": answer.status, "body": answer.body}
                await self._store.finish(name, orjson.dumps(told))
        except StoreUnavailableError as error:
            # The caller gets his answer. A repeat is told that what became of a dial is not known; a refusal is released later.
            log.warning("dial_answer_not_kept", detail=str(error))
        return answer

    def _to_be_released(self, name: str, pending: bytes) -> None:
        """Remember that no phone rang for what may be noted; of too many the oldest stay noted, which is the safe side."""
        self._unreleased.setdefault(name, set()).add(pending)
        while len(self._unreleased) > _UNRELEASED_KEPT:
            del self._unreleased[next(iter(self._unreleased))]

    async def _release(self, name: str) -> None:
        """Forget what is noted of requests under a key that dialed nothing; what another request has noted since stays."""
        waiting = self._unreleased.get(name, set())
        for pending in tuple(waiting):
            await self._store.forget(name, pending)
            waiting.discard(pending)
        if not waiting and self._unreleased.get(name) is waiting:  # another's, of meanwhile, stay
            del self._unreleased[name]

    async def _repeat(self, name: str, digest: str, noted: bytes) -> Answer:
        """Wait for the answer of the first of several equal requests."""
        try:
            async with asyncio.timeout(self._limits.wait_s):
                while True:
                    told = orjson.loads(noted)
                    if told["digest"] != digest:
                        return _refusal(422, "This Idempotency-Key was used for another request.", "Idempotency-Key")
                    if "status" in told:
                        return Answer(told["status"], told["body"])
                    await asyncio.sleep(_POLL_S)
                    found = await self._store.answer(name)
                    if found is None:
                        return await self._vanished(noted)
                    noted = found
        except (TimeoutError, StoreUnavailableError):
            return _unknown()

    async def _vanished(self, noted: bytes) -> Answer:
        """Answer for a request whose key is gone: released, or expired or evicted while its phone may be ringing."""
        if not await self._store.is_forgotten(noted):
            return _unknown()
        title = "The first request with this Idempotency-Key was refused; nothing was dialed."
        return _refusal(409, title, "Idempotency-Key")

    async def _dial(self, wanted: DialRequest, who: str) -> Answer:
        try:
            source = check(self._sources, wanted)
            if await self._store.count(who) > self._limits.per_minute:
                return _refusal(429, f"More than {self._limits.per_minute} dial requests a minute.", None)
            request_id = await self._dialer.dial(source, wanted)
        except StoreUnavailableError:  # it was not counted, so it was not sent
            return _refusal(503, _REDIS_AWAY, None)
        except DialError as error:
            return Answer(error.status, _problem(error.status, error.title, error.state, error.parameter))
        event = encode(DialEvent(source.name, utc_now(), request_id, wanted.fields()))
        await self._journal(f"{source.name}/{request_id}", event)
        return Answer(201, {"request_id": request_id, "source": source.name, "dial_state": "accepted"})

    async def _journal(self, dial_id: str, event: bytes) -> None:
        """Have the event of a dial kept, and published now if the broker takes it. The phone rings: nothing here may fail it."""
        self._in_flight.add(dial_id)
        try:
            await self._keep(dial_id, event)
            crash_point("dial.kept")
            await self._publish(dial_id, event)
        finally:
            self._in_flight.discard(dial_id)

    async def _keep(self, dial_id: str, event: bytes) -> None:
        try:
            await self._store.keep(dial_id, event)
        except StoreUnavailableError as error:
            log.warning("dial_kept_in_memory", dial=dial_id, detail=str(error))
            self._unkept[dial_id] = event

    async def _publish(self, dial_id: str, event: bytes) -> None:
        try:
            await self._publisher.publish(Message(CALLBACKS, "", join([event]), uuid.uuid4().hex))
            self._unkept.pop(dial_id, None)
            await self._store.journaled(dial_id)
        except (BrokerUnavailableError, StoreUnavailableError) as error:
            log.warning("dial_not_journaled_yet", dial=dial_id, detail=str(error))

    async def run(self) -> NoReturn:
        """Release and publish what had to wait, the latter also of a process that died. Run it as a task."""
        while True:
            await asyncio.sleep(_REPUBLISH_S)
            await self.release_refused()
            await self.publish_kept()

    async def release_refused(self) -> None:
        """Release the keys of refused requests that Redis could not release at the time."""
        try:
            for name in tuple(self._unreleased):
                await self._release(name)
        except StoreUnavailableError as error:
            log.warning("dial_keys_wait", detail=str(error))

    async def publish_kept(self) -> None:
        """Publish the events of dials that the journal may not have yet."""
        if not self._publisher.is_up:
            return
        kept, in_flight = dict(self._unkept), set(self._in_flight)
        try:
            kept |= await self._store.unjournaled()
        except StoreUnavailableError as error:
            log.warning("dials_wait", detail=str(error))
        in_flight |= self._in_flight  # a second event of one dial would be shown as a second dial
        for dial_id, event in kept.items():
            if dial_id not in in_flight:
                await self._publish(dial_id, event)


def _refusal(status: int, title: str, parameter: str | None) -> Answer:
    return Answer(status, _problem(status, title, DialState.REFUSED, parameter))


def _unknown() -> Answer:
    title = "What became of the first request with this Idempotency-Key is not known."
    return Answer(504, _problem(504, title, DialState.UNKNOWN, None))


def _problem(status: int, title: str, state: DialState, parameter: str | None) -> dict[str, object]:
    told: dict[str, object] = {"type": "about:blank", "status": status, "title": title, "dial_state": state}
    return told | ({"parameter": parameter} if parameter else {})
