"""The audit trail: what people did, as a log line and as an event in the stream `audit.journal`, which the history stores."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum

import orjson

from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import AUDIT_JOURNAL
from shared.clock import utc_now
from shared.domain.cloud_event import CLOUDEVENT, JSON, SPEC_VERSION, dataschema_of
from shared.domain.event_types import AuditEvent
from shared.errors import BrokerUnavailableError
from shared.log import get_logger
from shared.masking import MASK, is_credential, mask_credentials

log = get_logger(__name__)


class Action(StrEnum):
    """The actions that are audited."""

    DIAL = "dial"
    ANNOTATE = "annotate"
    REDRIVE = "redrive"
    DROP = "drop"
    DOWNLOAD = "download"
    LOG_IN = "log_in"
    LOG_IN_REFUSED = "log_in_refused"
    DELETION = "deletion"
    HOLD = "hold"
    RELEASE = "release"
    ACCEPT = "accept"
    ENDPOINT_ADDED = "endpoint_added"
    ENDPOINT_CHANGED = "endpoint_changed"
    ENDPOINT_REMOVED = "endpoint_removed"
    ENDPOINT_TESTED = "endpoint_tested"


class Audit:
    """Records actions. `detail` holds JSON values; credentials in it are masked."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def record(
        self, action: Action, who: str, *, source: str | None = None, call: str | None = None, **detail: object
    ) -> None:
        """Record an action that is done. If RabbitMQ is down, only the log has it."""
        try:
            await self.record_or_raise(action, who, source=source, call=call, **detail)
        except BrokerUnavailableError as error:
            # The whole entry: the command line logs errors only, so the line `action_audited` may be missing.
            entry = {"who": who, "source": source, "call": call, "detail": _masked_all(detail)}
            log.error("audit_not_in_history", action=action, error=str(error), **entry)  # noqa: TRY400 - the error's text says it

    async def record_or_raise(
        self, action: Action, who: str, *, source: str | None = None, call: str | None = None, **detail: object
    ) -> None:
        """Record an action that must not be done unrecorded. Call this first.

        Raises:
            BrokerUnavailableError: only the log has it.
        """
        at, event_id, masked = utc_now(), str(uuid.uuid4()), _masked_all(detail)
        log.info("action_audited", action=action, who=who, source=source, call=call, detail=masked, id=event_id)
        kind = f"callfold.audit.{action}.v1"
        body: AuditEvent = {
            "specversion": SPEC_VERSION,
            "id": event_id,
            "source": f"/callfold/{source}" if source else "/callfold",
            "type": kind,
            "time": at,
            "datacontenttype": JSON,
            "dataschema": dataschema_of(kind),
            "data": {"who": mask_credentials(who), "action": action, "source": source, "call": call, "detail": masked},
        }
        if call:
            body["subject"] = call
        await self._publisher.publish(Message("", AUDIT_JOURNAL, orjson.dumps(body), event_id, CLOUDEVENT))

    @asynccontextmanager
    async def record_run(
        self, action: Action, who: str, results: Callable[[], Mapping[str, object]], *, source: str | None, **detail: object
    ) -> AsyncIterator[None]:
        """Record the begin of the block and, even if the block fails, its end with its results.

        Raises:
            BrokerUnavailableError: the begin cannot be recorded, so the block does not run.
        """
        run = uuid.uuid4().hex
        await self.record_or_raise(action, who, source=source, call=None, run=run, stage="begun", **detail)
        try:
            yield
        finally:
            await self.record(action, who, source=source, call=None, run=run, stage="ended", **detail, **results())


def _masked_all(values: Mapping[str, object]) -> dict[str, object]:
    return {name: MASK if value and is_credential(name) else _masked(value) for name, value in values.items()}


def _masked(value: object) -> object:
    match value:
        case str():
            return mask_credentials(value)
        case dict():
            return _masked_all({str(name): part for name, part in value.items()})
        case list() | tuple():
            return [_masked(part) for part in value]
        case None | bool() | int() | float():
            return value
        case _:
            return mask_credentials(str(value))
