"""Events as workers publish them, and what lies in a history's tables."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from sqlalchemy import Engine, select, text

from console.call_query import CallQuery, CallRow, row_of
from console.history.batch import Batch, StreamMessage
from console.history.engine import open_engine
from console.history.store import History
from console.history.tables import METADATA
from shared.domain.call import Status
from shared.domain.cloud_event import dataschema_of
from shared.domain.recording_info import RECORDING_EVENT_FIELDS

AT = "2026-11-23T07:44:00.123456Z"
Event = dict[str, Any]


def leg(call_id: int, *, recorded: bool = False) -> Event:
    unknown = ("extension", "name", "user_id", "number", "number_e164", "guid", "ring_seconds")
    times = {"started_at": None, "picked_up_at": None, "missed_at": None, "hung_up_at": AT}
    state = {"call_type": "API", "state": "ended", "inferred": False, "recorded": recorded, "fields": {}}
    return {"call_id": str(call_id), **dict.fromkeys(unknown), **state, **times}


def call_event(request_id: int, *, source: str = "acme", revision: int = 1, recorded: bool = False, **record: Any) -> Event:  # noqa: ANN401
    """Write the event of a call; `agent`, `number` and `reference` are those of its dial request."""
    agent, number = record.pop("agent", "1001"), record.pop("number", "+4512345678")
    data = {
        "source": source,
        "request_id": request_id,
        "revision": revision,
        "outcome": "answered",
        "complete": True,
        "close_reason": "hangup",
        "reference": None,
        "metadata": {},
        "dial": {"agent": agent, "number": number},
        "started_at": AT,
        "answered_at": None,
        "ended_at": AT,
        "ring_seconds": None,
        "talk_seconds": 1.25,
        "call_type": "API",
        "queue": None,
        "ended_by": None,
        "agent": leg(request_id * 10, recorded=recorded),
        "dialed": None,
        "other_legs": [],
        "fields": {},
        "ignored": [],
        **record,
    }
    kind = "completed" if revision == 1 else "amended"
    return cloudevent((source, str(request_id)), f"call.{kind}", f"{source}/{request_id}/{revision}", AT, data)


def recording_event(request_id: int, result: str, *, at: str = AT, suffix: str = "", **data: Any) -> Event:  # noqa: ANN401
    name = data.pop("name", "guid-1")
    whose = {"source": "acme", "request_id": request_id, "call_id": "17", "guid": name, "leg": "dialed"}
    told = dict.fromkeys(RECORDING_EVENT_FIELDS) | whose | data
    event_id = f"acme/{request_id}/recording/{name}/{result}{suffix}"
    return cloudevent(("acme", str(request_id)), f"recording.{result}", event_id, at, told)


def cloudevent(call: tuple[str, str], kind: str, event_id: str, at: str, data: Mapping[str, Any]) -> Event:
    sequence = {"sequence": str(data["revision"])} if "revision" in data else {}
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": f"/callfold/{call[0]}",
        "subject": call[1],
        "type": f"callfold.{kind}.v1",
        "time": at,
        "datacontenttype": "application/json",
        "dataschema": dataschema_of(f"callfold.{kind}.v1"),
        **sequence,
        "partitionkey": "/".join(call),
        "data": dict(data),
    }


def batch_of(events: Iterable[Event | bytes], *, first: int = 0, stream: str = "calls.journal") -> Batch:
    bodies = [event if isinstance(event, bytes) else orjson.dumps(event) for event in events]
    return Batch.of(stream, [StreamMessage(offset, body) for offset, body in enumerate(bodies, start=first)])


def row(event: Event) -> CallRow:
    return row_of(event["data"], event["subject"], Status.COMPLETE)


def expected(rows: Iterable[CallRow], query: CallQuery) -> list[CallRow]:
    """Answer a question as the vocabulary has it: newest start first, then by name."""
    newest = sorted(rows, key=lambda found: found.position, reverse=True)
    return [found for found in newest if query.matches(found)]


async def found(history: History, query: CallQuery) -> list[CallRow]:
    return [row async for _, row in history.newest(query, None) if row is not None]


async def refuse_call(history: History, name: str) -> None:
    """Have the database refuse the row of a call, as it would one that it cannot hold."""
    if history.name.startswith("sqlite"):
        refusal = f"CREATE TRIGGER no BEFORE INSERT ON calls WHEN NEW.call = '{name}' BEGIN SELECT RAISE(ABORT, 'no'); END"
    else:
        refusal = f"ALTER TABLE calls ADD CONSTRAINT no CHECK (call <> '{name}')"
    await history._do(lambda connection: connection.execute(text(refusal)))


async def refuse_text(history: History, part: str) -> None:
    """Have the database refuse an event whose text holds something, in whatever row."""
    if history.name.startswith("sqlite"):
        when = f"WHEN instr(NEW.body, '{part}') BEGIN SELECT RAISE(ABORT, 'no'); END"
        refusal = f"CREATE TRIGGER no_text BEFORE INSERT ON events {when}"
    else:
        refusal = f"ALTER TABLE events ADD CONSTRAINT no_text CHECK (position('{part}' in body) = 0)"
    await history._do(lambda connection: connection.execute(text(refusal)))


async def allow_text(history: History) -> None:
    """Take back what `refuse_text` did."""
    is_lite = history.name.startswith("sqlite")
    again = "DROP TRIGGER no_text" if is_lite else "ALTER TABLE events DROP CONSTRAINT no_text"
    await history._do(lambda connection: connection.execute(text(again)))


def tables_of(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    """Read every row of every table."""
    with engine.connect() as connection:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
            for table in METADATA.sorted_tables
        }


async def all_tables(url: str) -> dict[str, list[tuple[object, ...]]]:
    engine = open_engine(url, is_writer=False)
    try:
        return await asyncio.to_thread(tables_of, engine)
    finally:
        engine.dispose()
