"""Adds an annotation to a call: checks that the call can take it, and publishes it as a raw event, which the fold merges.

The id of an annotation follows from the call and the `Idempotency-Key`. So a repeat, on any console and after any restart, is the
same fact, which the fold merges once. Redis only remembers for a day what was sent under a key.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

import orjson

from console.annotations.bodies import NewAnnotation
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLBACKS, SENT_AT, SENT_BY
from shared.clock import utc_now
from shared.config.live_sources import LiveSources
from shared.config.sources import unknown_source_message
from shared.domain.annotation import MAX_BODY_BYTES, Annotation, annotation_id, body_text, digest_of, read_annotations
from shared.domain.ids import CallKey
from shared.domain.raw_event import AnnotationEvent, encode, join
from shared.runtime.audit import Action, Audit
from shared.state.bounds import MAX_ANNOTATION_BYTES, MAX_ANNOTATIONS
from shared.state.keys import partition
from shared.state.store import Store

KEY_HEADER = "Idempotency-Key"
TOO_LARGE = f"An annotation may have {MAX_BODY_BYTES >> 10} KiB. Shorten it, or split it into several."
_DAY_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class AnnotationAnswer:
    """The answer to a request: the annotation if it is accepted, else a sentence in `title`."""

    status: HTTPStatus
    title: str = ""
    parameter: str | None = None
    annotation: dict[str, str] | None = None


class Annotations:
    """Accepts annotations. Every method raises UnavailableError if Redis or RabbitMQ is not available; all can be repeated."""

    def __init__(
        self, store: Store, publisher: Publisher, sources: LiveSources, is_past: Callable[[CallKey], Awaitable[bool]]
    ) -> None:
        """`is_past` returns whether the history has a call that Redis does not have."""
        self._store = store
        self._publisher = publisher
        self._sources = sources
        self._is_past = is_past

    async def add(self, key: CallKey, new: NewAnnotation, who: str, idempotency_key: str = "") -> AnnotationAnswer:
        """Accept an annotation, durably, or say why not. A repeat with the same key gets the same answer.

        Raises:
            UnavailableError: Redis or RabbitMQ is not available. A repeat with the same key is safe.
        """
        try:
            text = body_text(dict(new.body))
        except ValueError:
            return AnnotationAnswer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TOO_LARGE, "body")
        name = annotation_id(key.source, key.call, idempotency_key) if idempotency_key else uuid.uuid4().hex
        by = new.by or who
        digest = digest_of({"id": name, "type": new.type, "by": by, "body": orjson.loads(text)})
        sent_now = Annotation(name, utc_now(), new.type, by, digest, len(text.encode()))
        earlier, refusal = await self._look(key, sent_now)
        if refusal is not None:
            return refusal
        if earlier is None:
            earlier = await self._first(sent_now)
        if earlier.digest != digest:
            title = f"This {KEY_HEADER} was used for another annotation of {key}. Send a new key."
            return AnnotationAnswer(HTTPStatus.UNPROCESSABLE_ENTITY, title, KEY_HEADER)
        if earlier.size:  # the fold has merged it
            return _accepted(key, earlier)
        await self._publish(AnnotationEvent(key.source, earlier.at, key.call, name, new.type, by, text))
        return _accepted(key, Annotation(name, earlier.at, new.type, by, digest, sent_now.size))

    async def _look(self, key: CallKey, sent_now: Annotation) -> tuple[Annotation | None, AnnotationAnswer | None]:
        """Return the annotation of this id if the call has it, and why the call cannot take it."""
        if key.source not in self._sources.current:
            return None, AnnotationAnswer(HTTPStatus.NOT_FOUND, unknown_source_message(key.source, self._sources.current))
        if partition(key) in await self._store.partitions.waiting():
            title = f"Redis has lost state, and {key} is being rebuilt. Try again later."
            return None, AnnotationAnswer(HTTPStatus.SERVICE_UNAVAILABLE, title)
        state = await self._store.read(key)
        if state is None:
            return None, await self._refuse_absent(key)
        known = {each.id: each for each in read_annotations(state.facts)}
        if sent_now.id in known:
            return known[sent_now.id], None
        size = sum(each.size for each in known.values()) + sent_now.size
        if len(known) < MAX_ANNOTATIONS and size <= MAX_ANNOTATION_BYTES:
            return None, None
        title = (
            f"{key} has {len(known)} annotations, and this one would make {size} bytes. A call may have {MAX_ANNOTATIONS} "
            f"annotations with {MAX_ANNOTATION_BYTES >> 10} KiB together."
        )
        return None, AnnotationAnswer(HTTPStatus.CONFLICT, title)

    async def _refuse_absent(self, key: CallKey) -> AnnotationAnswer:
        revision = (await self._store.publications([key]))[key][0]
        if revision or await self._is_past(key):
            title = (
                f"{key} was published, and its facts have expired from Redis (CALLFOLD_RETAIN_SECONDS). "
                "So its record cannot be amended."
            )
            return AnnotationAnswer(HTTPStatus.GONE, title)
        return AnnotationAnswer(HTTPStatus.NOT_FOUND, f"Unknown call {key}: it was never received, or is no longer retained.")

    async def _first(self, sent_now: Annotation) -> Annotation:
        """Return what was first sent under this id today, without its size."""
        mine = orjson.dumps({"at": sent_now.at, "digest": sent_now.digest})
        first = orjson.loads(await self._store.flags.set_first(f"annotation/{sent_now.id}", mine, expires_in_s=_DAY_S))
        return Annotation(sent_now.id, first["at"], sent_now.type, sent_now.by, first["digest"], 0)

    async def _publish(self, event: AnnotationEvent) -> None:
        sent = {SENT_AT: utc_now(), SENT_BY: os.uname().nodename}
        await self._publisher.publish(Message(CALLBACKS, "", join([encode(event)]), uuid.uuid4().hex, headers=sent))


async def audited_annotation(  # noqa: PLR0917 - what `add` takes, and the audit
    annotations: Annotations, audit: Audit, call: CallKey, new: NewAnnotation, who: str, key: str
) -> AnnotationAnswer:
    """Add an annotation, and audit the answer without the body."""
    answer = await annotations.add(call, new, who, key)
    name = answer.annotation["id"] if answer.annotation else None
    await audit.record(Action.ANNOTATE, who, source=call.source, call=call.call, type=new.type, id=name, status=answer.status)
    return answer


def _accepted(key: CallKey, annotation: Annotation) -> AnnotationAnswer:
    named = {"id": annotation.id, "source": key.source, "call": key.call, "type": annotation.type, "at": annotation.at}
    return AnnotationAnswer(HTTPStatus.ACCEPTED, annotation=named | {"by": annotation.by})
