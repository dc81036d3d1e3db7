"""What people did: a line in the log at once, and an event to the stream `audit.journal`, from where the history keeps it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum

import orjson

from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import AUDIT_JOURNAL
from shared.clock import utc_now
from shared.domain.call_event import CLOUDEVENT, JSON
from shared.errors import BrokerUnavailableError
from shared.log import get_logger
from shared.masking import MASK, is_credential, mask_credentials

log = get_logger(__name__)


class Action(StrEnum):
    """Everything that is worth a line."""

    DIAL = "dial"
    REDRIVE = "redrive"
    DROP = "drop"
    DOWNLOAD = "download"
    LOG_IN = "log_in"
    LOG_IN_REFUSED = "log_in_refused"
    DELETION = "deletion"
    HOLD = "hold"
    RELEASE = "release"


class Audit:
    """Tells what people did. Nothing fails for want of it."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def tell(
        self, action: Action, who: str, *, source: str | None = None, call: str | None = None, **detail: object
    ) -> None:
        """Tell what somebody did; `detail` is of JSON's types, credentials in it are masked."""
        try:
            await self.tell_first(action, who, source=source, call=call, **detail)
        except BrokerUnavailableError as error:
            # All of it: a command line logs errors alone.
            told = {"who": who, "source": source, "call": call, "detail": _masked(detail)}
            log.error("audit_not_in_history", action=action, error=str(error), **told)  # noqa: TRY400 - the error's text says it

    async def tell_first(
        self, action: Action, who: str, *, source: str | None = None, call: str | None = None, **detail: object
    ) -> None:
        """Tell what somebody is about to do, which is not to be done untold.

        Raises:
            BrokerUnavailableError: only the log has it.
        """
        at, event_id, masked = utc_now(), str(uuid.uuid4()), _masked(detail)
        log.info("audit", action=action, who=who, source=source, call=call, detail=masked, id=event_id)
        body = {
            "specversion": "1.0",
            "id": event_id,
            "source": f"/callfold/{source}" if source else "/callfold",
            "type": f"callfold.audit.{action}.v1",
            "time": at,
            "datacontenttype": JSON,
            "data": {"who": mask_credentials(who), "action": action, "source": source, "call": call, "detail": masked},
        }
        if call:
            body["subject"] = call
        await self._publisher.publish(Message("", AUDIT_JOURNAL, orjson.dumps(body), event_id, CLOUDEVENT))

    @asynccontextmanager
    async def around(
        self, action: Action, who: str, done: Callable[[], Mapping[str, object]], *, source: str | None, **detail: object
    ) -> AsyncIterator[None]:
        """Tell of work before it begins, and what was `done` when it ends, also where it is cut off.

        Raises:
            BrokerUnavailableError: it cannot be told, so nothing is to be done.
        """
        run = uuid.uuid4().hex
        await self.tell_first(action, who, source=source, call=None, run=run, stage="begun", **detail)
        try:
            yield
        finally:
            await self.tell(action, who, source=source, call=None, run=run, stage="ended", **detail, **done())


def _masked(told: object) -> object:
    match told:
        case str():
            return mask_credentials(told)
        case dict():
            return {str(name): MASK if value and is_credential(str(name)) else _masked(value) for name, value in told.items()}
        case list() | tuple():
            return [_masked(value) for value in told]
        case None | bool() | int() | float():
            return told
        case _:
            return mask_credentials(str(told))
