"""Keeps callbacks that were refused in the stream `callbacks.quarantine`, as well as it can, and counts of all refusals.

Strangers cause this work, so it is bounded and delays no answer. What is offered waits in little memory, is published over a
separate connection, and is never spooled. What does not fit is dropped and counted.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from ingress.body_formats import UnreadableBodyError, percent_encoded
from ingress.forms import Body, query_of
from ingress.peer_rates import PeerRates
from ingress.source_secrets import SourceSecrets
from ingress.targets import respelled
from shared import metrics
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLBACKS_QUARANTINE
from shared.clock import utc_now
from shared.config.live_sources import Derived
from shared.domain.adapter_link import SECRET_PARAMETER, find_secret
from shared.domain.callback_values import tidied
from shared.domain.ids import SOURCE_NAME
from shared.domain.quarantined import QuarantinedCallback, Refusal, RefusalCount, encode_counts
from shared.errors import BrokerUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.percent_encoding import bytes_of
from shared.runtime.process import background

log = get_logger(__name__)

_WAITING_BYTES = 2 << 20
_AT_ONCE = 50
_COUNTS_EVERY_S = 5.0
_PAUSE_S = 1.0
_LAST_S = 2.0


@dataclass(frozen=True, slots=True)
class Suspect:
    """A refused callback as it arrived, its secret included; it is in memory only. Its copies have its id."""

    reason: Refusal
    source: str
    peer: str
    received_at: str
    query: str
    body: Body
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def size(self) -> int:
        return len(self.query) + len(self.body.content)


@dataclass(slots=True)
class _Count:
    number: int
    peer: str


class Quarantine:
    """Takes refused callbacks and counts without waiting; `run` publishes them."""

    def __init__(self, publisher: Publisher, secrets: Derived[SourceSecrets]) -> None:
        self._publisher = publisher
        self._secrets = secrets
        self._rates = PeerRates(time.monotonic())
        self._waiting: deque[Suspect] = deque()
        self._waiting_bytes = 0
        self._counts: dict[tuple[str, str], _Count] = {}
        self._counted_at = -_COUNTS_EVERY_S
        self._arrived = asyncio.Event()
        self._lost = Outage(log, "quarantine_not_published", "quarantine_published")
        self._results = {result: metrics.QUARANTINED.labels(result) for result in ("kept", "limited", "lost")}

    def count(self, reason: Refusal, source: str, peer: str, *, times: int = 1) -> None:
        """Count a refusal. `source` is '' or a configured one, so that the counts stay few."""
        count = self._counts.get((reason, source))
        if count is None:
            self._counts[reason, source] = _Count(times, peer)
            self._arrived.set()
        else:
            count.number += times
            count.peer = peer

    def admits(self, peer: str, size: int) -> bool:
        """Return whether a callback of this size may be offered: its sender has not sent too many, and not too many wait."""
        if not self._rates.take(peer, size, time.monotonic()):
            self._results["limited"].inc()
            return False
        if self._waiting_bytes + size > _WAITING_BYTES:
            self._results["lost"].inc()
            return False
        return True

    def offer(self, suspect: Suspect) -> None:
        """Keep a refused callback that was admitted."""
        self._waiting.append(suspect)
        self._waiting_bytes += suspect.size
        self._arrived.set()

    async def run(self) -> None:
        """Publish until cancelled, and then for a moment what still waits. Run it as a task."""
        async with background(self._publisher.run()):
            try:
                while True:
                    await self._wait()
                    await self._publisher.wait_until_up()
                    await self._publish(is_last=False)
            finally:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_S):
                        while self._publisher.is_up and (self._waiting or self._counts):
                            await self._publish(is_last=True)

    async def _publish(self, *, is_last: bool) -> None:
        """Publish some of what waits, and the counts if they are due or the last ones.

        All of it waits until it is confirmed. So a stop in between loses nothing, and the last step publishes it once more.
        """
        is_due = is_last or time.monotonic() - self._counted_at >= _COUNTS_EVERY_S
        counts = [RefusalCount(*key, count.number, count.peer) for key, count in self._counts.items()] if is_due else []
        suspects = list(islice(self._waiting, _AT_ONCE))
        copies = [copy for suspect in suspects if (copy := await self._message(suspect))]
        messages = [*copies, _message_of(encode_counts(utc_now(), counts))] if counts else copies
        is_kept = True
        if counts:
            self._counted_at = time.monotonic()
        if messages:
            is_kept = await self._is_published(messages)
        for suspect in suspects:
            self._waiting.popleft()
            self._waiting_bytes -= suspect.size
        self._results["kept"].inc(len(copies) if is_kept else 0)
        self._results["lost"].inc(len(suspects) - len(copies) if is_kept else len(suspects))
        if is_kept:
            self._subtract(counts)
        else:
            await asyncio.sleep(_PAUSE_S)

    async def _is_published(self, messages: list[Message]) -> bool:
        try:
            await self._publisher.publish(*messages)
        except BrokerUnavailableError as error:
            self._lost.failed(str(error))
            return False
        self._lost.succeeded()
        return True

    def _subtract(self, counts: list[RefusalCount]) -> None:
        """Take published counts out of those that wait. More may have arrived since."""
        for each in counts:
            key = each.reason, each.source
            self._counts[key].number -= each.count
            if not self._counts[key].number:
                del self._counts[key]

    async def _wait(self) -> None:
        """Wait for something to publish. Counts are published at most every few seconds."""
        while not self._waiting:
            until_counts_s = max(0.0, self._counted_at + _COUNTS_EVERY_S - time.monotonic()) if self._counts else None
            if until_counts_s == 0:
                return
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(until_counts_s):
                    await self._arrived.wait()

    async def _message(self, suspect: Suspect) -> Message | None:
        await asyncio.sleep(0)  # good callbacks have their turn in between
        try:
            return _message_of(self._without_secret(suspect).encode(), suspect.id)
        except Exception as error:  # noqa: BLE001 - nothing that a stranger sends may end ingress
            log.error("quarantine_copy_failed", error=type(error).__name__)  # noqa: TRY400 - a traceback could quote a secret
            return None

    def _without_secret(self, suspect: Suspect) -> QuarantinedCallback:
        """Remove the secret, whatever it was, and every other value that is a secret of a source, current or previous."""
        known = self._secrets.current
        query, body = percent_encoded(bytes_of(suspect.query)), suspect.body
        content = body.content
        if content and not body.problem:
            try:
                query = "&".join(part for part in (query, query_of(body)) if part)
                content = b""
            except UnreadableBodyError:
                content = known.hide_all_in_body(content)
        secrets = (find_secret(each.encode()) for each in (query, *respelled(query, {})))
        owner = next(filter(None, map(known.owner, secrets)), None)
        kept = known.hide_all(_without_tokens(query))
        is_name = SOURCE_NAME.fullmatch(suspect.source) and not known.is_in_name(suspect.source)
        return QuarantinedCallback(
            id=suspect.id,
            reason=suspect.reason,
            source=suspect.source if is_name else "",
            peer=suspect.peer,
            received_at=suspect.received_at,
            query=kept,
            secret_of=owner or "",
            content_type=known.hide_all(body.content_type) if content else "",
            body=content,
        )


def _without_tokens(query: str) -> str:
    """Remove the parameter `token` in any spelling of its name: a wrong name may carry the right secret.

    Parameters behind a semicolon after it stay, since the semicolon may separate them.
    """
    return "&".join(part for part in map(_without_token, query.split("&")) if part is not None)


def _without_token(part: str) -> str | None:
    if not any(map(_is_token, part.split(";"))):
        return part
    kept = [piece for piece in part.split(";") if "=" in piece and not _is_token(piece)]
    return ";".join(kept) if kept else None


def _is_token(part: str) -> bool:
    return tidied(part.partition("=")[0]).strip("?+").lower() == SECRET_PARAMETER


def _message_of(body: bytes, message_id: str = "") -> Message:
    return Message("", CALLBACKS_QUARANTINE, body, message_id or uuid.uuid4().hex)
