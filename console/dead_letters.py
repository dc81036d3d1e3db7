"""`callfold dead-letters`: what could not be understood or done - see it, put it back, or drop it."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import cast

import orjson

from console.journal import ago
from shared.adapter import mask_credentials
from shared.broker import BrokerAddress, Delivery, Message, Publisher
from shared.errors import CallfoldError
from shared.facts import rfc3339
from shared.getter import Getter
from shared.process import background, instance_name
from shared.settings import Settings
from shared.topology import CALLBACKS, CALLBACKS_DEAD, RECORDINGS, RECORDINGS_DEAD, topology

_ID_CHARACTERS = 12
_CONNECT_S = 15
_PROGRESS_EVERY = 500


class Which(StrEnum):
    """The two queues of dead letters."""

    CALLBACKS = "callbacks"
    RECORDINGS = "recordings"

    @property
    def queue(self) -> str:
        return CALLBACKS_DEAD if self is Which.CALLBACKS else RECORDINGS_DEAD


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant: all that agree with everything that is given."""

    ids: tuple[str, ...] = ()
    reason: str | None = None
    source: str | None = None
    since: str | None = None

    def matcher(self) -> Callable[[Letter], bool]:
        earliest = rfc3339(ago(self.since)) if self.since else None

        def matches(letter: Letter) -> bool:
            return (
                (not self.ids or any(letter.id.startswith(given) for given in self.ids))
                and self.reason in (None, letter.reason)
                and (self.source is None or self.source in letter.sources)
                and (earliest is None or letter.first_seen >= earliest)
            )

        return matches


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter: the original body and why it is here."""

    id: str
    reason: str
    detail: str
    first_seen: str
    delivery: Delivery

    @property
    def sources(self) -> set[str]:
        """Name the sources of what is in it."""
        try:
            body = orjson.loads(self.delivery.body)
        except orjson.JSONDecodeError:
            return set()
        elements = body if isinstance(body, list) else [body]
        return {str(element["source"]) for element in elements if isinstance(element, dict) and "source" in element}

    def told(self, *, with_body: bool = False) -> dict[str, object]:
        """Describe it for a person or a program; credentials are masked."""
        told: dict[str, object] = {
            "id": self.id,
            "reason": self.reason,
            "detail": mask_credentials(self.detail),
            "first_seen": self.first_seen,
            "sources": sorted(self.sources),
        }
        return told | {"body": mask_credentials(self.delivery.body.decode("utf-8", "replace"))} if with_body else told


_Act = Callable[[Letter, Publisher], Awaitable[None]]


async def show(settings: Settings, which: Which, wanted: Filter, *, as_json: bool, with_body: bool) -> int:
    """Print the letters that match; returns the exit code: 1 where ids were given and none was found."""
    matches, found = wanted.matcher(), 0
    async with _opened(settings, which) as (letters, _):
        async for letter in letters:
            if matches(letter):
                found += 1
                told = letter.told(with_body=with_body)
                sys.stdout.write(orjson.dumps(told).decode() + "\n" if as_json else _text(told))
    if not as_json:
        sys.stderr.write(f"{found} dead letters in {which.queue}\n")
    return 1 if wanted.ids and not found else 0


async def redrive(settings: Settings, which: Which, wanted: Filter, *, dry_run: bool) -> int:
    """Put letters back where they came from; each is removed only once the broker has confirmed it there."""
    exchange, routing_key = (CALLBACKS, "") if which is Which.CALLBACKS else (RECORDINGS, RECORDINGS)

    async def put_back(letter: Letter, publisher: Publisher) -> None:
        await publisher.publish(Message(exchange, routing_key, letter.delivery.body, uuid.uuid4().hex))

    return await _settle(settings, which, wanted, "redriven", None if dry_run else put_back)


async def drop(settings: Settings, which: Which, wanted: Filter, *, dry_run: bool) -> int:
    """Remove letters for good."""

    async def nothing(_letter: Letter, _publisher: Publisher) -> None:
        return

    return await _settle(settings, which, wanted, "dropped", None if dry_run else nothing)


async def _settle(settings: Settings, which: Which, wanted: Filter, done: str, act: _Act | None) -> int:
    matches, settled = wanted.matcher(), 0
    async with _opened(settings, which) as (letters, publisher):
        async for letter in letters:
            if not matches(letter):
                continue
            if act is not None:
                await act(letter, publisher)
                await letter.delivery.ack()
            settled += 1
            if settled % _PROGRESS_EVERY == 0:
                sys.stderr.write(f"{settled} {done}\n")
    sys.stdout.write(f"{settled} {'would be ' if act is None else ''}{done}\n")
    return 1 if wanted.ids and not settled else 0


@asynccontextmanager
async def _opened(settings: Settings, which: Which) -> AsyncIterator[tuple[AsyncIterator[Letter], Publisher]]:
    address = BrokerAddress(settings.amqp_urls, topology(settings.recording_retry_seconds), instance_name("dead-letters"))
    getter, publisher = Getter(address, which.queue), Publisher(address, timeout_s=settings.publish_timeout_seconds)

    async def letters() -> AsyncIterator[Letter]:
        # Those that are there now: what dies while we look is for the next look.
        for _ in range(await getter.count()):
            delivery = await getter.get()
            if delivery is None:
                return
            yield _letter(delivery)

    async with background(getter.run(), publisher.run()):
        try:
            async with asyncio.timeout(_CONNECT_S):
                await getter.wait_up()
                await publisher.wait_up()
        except TimeoutError:
            raise CallfoldError("RabbitMQ cannot be reached: see CALLFOLD_AMQP_URL, or run `callfold doctor`.") from None
        yield letters(), publisher


def _letter(delivery: Delivery) -> Letter:
    """Read a letter of ours, or one that the broker itself gave up after too many deliveries."""
    headers = delivery.headers
    died = cast("list[Mapping[str, object]]", headers.get("x-death") or [{}])[0]
    at = died.get("time")
    return Letter(
        id=str(headers["message_id"])[:_ID_CHARACTERS] or "?",
        reason=str(headers.get("reason") or died.get("reason") or "unknown"),
        detail=str(headers.get("detail") or f"given up by the broker: {died.get('reason', 'no reason told')}"),
        first_seen=str(headers.get("first_seen") or (rfc3339(at.astimezone(UTC)) if isinstance(at, datetime) else "")),
        delivery=delivery,
    )


def _text(told: Mapping[str, object]) -> str:
    line = f"{told['id']}  {told['first_seen']:<27}  {told['reason']:<20}  {told['detail']}\n"
    return line + f"    {told['body']}\n" if "body" in told else line
