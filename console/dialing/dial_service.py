"""Dial requests: each `Idempotency-Key` dials once, and each accepted dial is recorded in the journal.

A request with an idempotency key is recorded in Redis before anything is dialed. Every repeat within a day, concurrent ones
included, gets the first request's answer. If certainly no phone rang, the key is released and a repeat dials.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from dataclasses import dataclass, replace
from typing import NoReturn, Self

import orjson

from console.dialing.dial_journal import DialJournal
from console.dialing.dial_keys import DialKeys
from console.dialing.focalscope import Dialer, DialError, DialRequest, DialState, check_request
from shared import metrics
from shared.amqp.publisher import Publisher
from shared.clock import utc_now
from shared.config.live_sources import LiveSources
from shared.config.settings import Settings
from shared.config.sources import Source
from shared.domain.raw_event import DialEvent, encode
from shared.errors import StoreUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.partial_values import mask
from shared.runtime.audit import Action, Audit
from shared.state.dials import DAY_S, MINUTE_S, DialStore, until_next

log = get_logger(__name__)
_RELEASES = Outage(log, "dial_key_release_delayed", "dial_keys_released")

_BEYOND_DIAL_S = 5
_POLL_S = 0.05
_RETRY_S = 5
_MAX_UNRELEASED = 10_000
_NOTHING_DIALED = "The first request with this Idempotency-Key was refused and nothing was dialed. Send the request again."
_NO_REDIS = "Redis is unavailable, so nothing was dialed. Try again later."


@dataclass(frozen=True, slots=True)
class DialAnswer:
    """The answer to a dial request. `is_repeated` is True if an earlier request with the same key produced it."""

    status: int
    body: dict[str, object]
    is_repeated: bool = False
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Dial requests allowed per API key, and the seconds a repeat waits for the first request's answer."""

    per_minute: int
    per_day: int
    wait_s: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Take the limits from the settings. A repeat waits a little longer than a dial request can take."""
        return cls(settings.dials_per_minute, settings.dials_per_day, settings.dial_timeout_seconds + _BEYOND_DIAL_S)


class DialService:
    """Handles dial requests. Errors are answers too; their `dial_state` says whether a phone may be ringing."""

    def __init__(
        self,
        dialer: Dialer,
        store: DialStore,
        publisher: Publisher,
        sources: LiveSources,
        limits: Limits,
        *,
        keys: DialKeys | None = None,
    ) -> None:
        """Take what dials; without `keys`, Redis alone knows which keys were used."""
        self._keys = keys
        self._dialer = dialer
        self._store = store
        self._sources = sources
        self._limits = limits
        self.journal = DialJournal(store, publisher)
        self._unreleased: dict[str, set[bytes]] = {}  # by key: entries of refused requests that Redis may still have

    async def dial(self, request: DialRequest, who: str, key: str = "") -> DialAnswer:
        """Dial, or return the answer to the first request with this key."""
        answer = await (self._dial_once(request, who, key) if key else self._dial(request, who))
        if not answer.is_repeated and request.source in self._sources.known:  # a client can send any name
            metrics.DIALS.labels(request.source, answer.body["dial_state"]).inc()
        return answer

    async def _dial_once(self, request: DialRequest, who: str, key: str) -> DialAnswer:
        digest = hashlib.sha256(orjson.dumps(request.model_dump(), option=orjson.OPT_SORT_KEYS)).hexdigest()
        name = hashlib.sha256(f"{who}/{key}".encode("utf-8", "surrogateescape")).hexdigest()
        by = uuid.uuid4().hex
        pending = orjson.dumps({"digest": digest, "by": by})
        try:
            await self._release(name)
            earlier = await self._store.begin(name, pending)
        except StoreUnavailableError:
            self._remember_to_release(name, pending)  # Redis may have stored it despite the error
            return _refusal(503, _NO_REDIS, None)
        earlier = earlier or await self._forgotten(name, by, pending)
        if earlier is not None:
            return replace(await self._repeat(name, digest, earlier), is_repeated=True)
        answer = await self._dial(request, who)
        try:
            if answer.body.get("dial_state") == DialState.REFUSED:
                if self._keys is not None:
                    await self._keys.release(name, by)
                self._remember_to_release(name, pending)
                await self._release(name)
            else:
                result = orjson.dumps({"digest": digest, "status": answer.status, "body": answer.body})
                if self._keys is not None:
                    await self._keys.finish(name, by, result)
                await self._store.finish(name, result)
        except StoreUnavailableError as error:
            # The client gets its answer. A repeat gets it from the stream. A refused key is released later.
            log.warning("dial_answer_not_stored", detail=str(error))
        return answer

    async def _forgotten(self, name: str, by: str, pending: bytes) -> bytes | None:
        """Return the entry of an earlier request with this key that Redis has lost, and store it again."""
        earlier = None if self._keys is None else await self._keys.claim(name, by, pending)
        if earlier is not None:
            log.warning("dial_key_restored", detail="Redis had lost an Idempotency-Key. No phone rings again.")
            try:
                await self._store.restore(name, pending, earlier)
            except StoreUnavailableError as error:
                log.warning("dial_answer_not_stored", detail=str(error))
        return earlier

    def _remember_to_release(self, name: str, pending: bytes) -> None:
        """Remember that a request dialed nothing. Beyond the limit the oldest keys stay taken, which is the safe side."""
        self._unreleased.setdefault(name, set()).add(pending)
        while len(self._unreleased) > _MAX_UNRELEASED:
            del self._unreleased[next(iter(self._unreleased))]

    async def _release(self, name: str) -> None:
        """Delete the entries of requests under a key that dialed nothing, but not the entry of a later request."""
        waiting = self._unreleased.get(name, set())
        for pending in tuple(waiting):
            await self._store.forget(name, pending)
            waiting.discard(pending)
        if not waiting and self._unreleased.get(name) is waiting:  # a concurrent request may have replaced the set
            del self._unreleased[name]

    async def _repeat(self, name: str, digest: str, entry: bytes) -> DialAnswer:
        """Wait for the answer to the first request with this key."""
        is_lost = False
        try:
            async with asyncio.timeout(self._limits.wait_s):
                while True:
                    first = orjson.loads(entry)
                    if first["digest"] != digest:
                        title = "This Idempotency-Key was used for a request with another body. Send a new key."
                        return _refusal(422, title, "Idempotency-Key")
                    if "status" in first:
                        return DialAnswer(first["status"], first["body"])
                    await asyncio.sleep(_POLL_S)
                    latest = await self._latest(name)
                    if latest is None and await self._store.is_forgotten(entry):
                        return _refusal(409, _NOTHING_DIALED, "Idempotency-Key")
                    if latest is None:  # it expired, or Redis has lost it and the stream is still to deliver it
                        is_lost = True
                    elif is_lost and _is_of_another(latest, entry):
                        return _unknown()
                    else:
                        entry = latest
        except (TimeoutError, StoreUnavailableError):
            return _unknown()

    async def _latest(self, name: str) -> bytes | None:
        """Return the answer to the first request from Redis or the stream; without one, the state of that request."""
        stored = await self._store.answer(name)
        recorded = None if self._keys is None else self._keys.entry(name)
        if recorded is not None and "status" in orjson.loads(recorded):
            return recorded
        if stored is None and recorded is not None and await self._store.is_forgotten(recorded):
            return None  # it was refused, which the stream does not know yet
        return stored or recorded

    async def _dial(self, request: DialRequest, who: str) -> DialAnswer:
        try:
            source = check_request(self._sources.current, request)
            excess = await self._excess(source, who)
            if excess is not None:
                return excess
            request_id = await self._dialer.dial(source, request)
        except StoreUnavailableError:  # the request could not be counted, so it was not sent
            return _refusal(503, _NO_REDIS, None)
        except DialError as error:
            return DialAnswer(error.status, _problem(error.status, error.title, error.state, error.parameter))
        event = encode(DialEvent(source.name, utc_now(), request_id, request.fields()))
        await self.journal.record(f"{source.name}/{request_id}", event)
        return DialAnswer(201, {"request_id": request_id, "source": source.name, "dial_state": "accepted"})

    async def _excess(self, source: Source, who: str) -> DialAnswer | None:
        """Count a request; returns the answer if it exceeds a limit. What one limit refuses does not count for the next one."""
        limits = (
            (f"{who}", MINUTE_S, self._limits.per_minute, "in this minute. Wait for the next minute"),
            (f"{who}", DAY_S, self._limits.per_day, "of this API key today (UTC). See CALLFOLD_DIALS_PER_DAY"),
            (f"source/{source.name}", DAY_S, source.dials_per_day, "of this source today (UTC). See its dials_per_day"),
        )
        for counted, period_s, most, text in limits:
            if most is not None and await self._store.count(counted, period_s) > most:
                return replace(_refusal(429, f"More than {most} dial requests {text}.", None), retry_after_s=until_next(period_s))
        return None

    async def run(self) -> NoReturn:
        """Retry delayed releases of keys and delayed publishes. Run it as a task."""
        while True:
            await asyncio.sleep(_RETRY_S)
            await self._release_delayed()
            await self.journal.publish_pending()
            if self._keys is not None:
                await self._keys.record_delayed()

    async def _release_delayed(self) -> None:
        try:
            for name in tuple(self._unreleased):
                await self._release(name)
        except StoreUnavailableError as error:
            _RELEASES.failed(str(error))
        else:
            _RELEASES.succeeded()


async def audited_dial(dials: DialService, audit: Audit, request: DialRequest, who: str, key: str) -> DialAnswer:
    """Dial, and audit the answer with the number masked."""
    answer = await dials.dial(request, who, key)
    request_id = answer.body.get("request_id")
    await audit.record(
        Action.DIAL,
        who,
        source=request.source,
        call=None if request_id is None else str(request_id),
        agent=request.agent,
        number=mask(request.number),
        status=answer.status,
        repeated=answer.is_repeated,
    )
    return answer


def _is_of_another(latest: bytes, entry: bytes) -> bool:
    """Return whether an entry is not of the request that wrote the other one, as far as it says: an answer names no request."""
    one, other = orjson.loads(latest), orjson.loads(entry)
    return one["digest"] != other["digest"] or ("by" in one and one["by"] != other.get("by"))


def _refusal(status: int, title: str, parameter: str | None) -> DialAnswer:
    return DialAnswer(status, _problem(status, title, DialState.REFUSED, parameter))


def _unknown() -> DialAnswer:
    title = "The result of the first request with this Idempotency-Key is unknown. Check for a call before you dial again."
    return DialAnswer(504, _problem(504, title, DialState.UNKNOWN, None))


def _problem(status: int, title: str, state: DialState, parameter: str | None) -> dict[str, object]:
    members: dict[str, object] = {"type": "about:blank", "status": status, "title": title, "dial_state": state}
    return members | ({"parameter": parameter} if parameter else {})
