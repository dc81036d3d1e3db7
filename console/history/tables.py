"""The history's tables, the same in SQLite and PostgreSQL.

Text is compared byte by byte on both, whatever the database's own collation, so that both give calls in one order.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, MetaData, Table, Text, TextClause, text

VERSION = 2
"""Of these tables. Who changes them counts it up, and says in the changelog how to get there."""

_metadata = MetaData()
TEXT = Text().with_variant(Text(collation="C"), "postgresql")

VERSIONS = Table(
    "callfold_schema",
    _metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
)

EVENTS = Table(
    "events",
    _metadata,
    Column("id", TEXT, primary_key=True),
    Column("type", TEXT, nullable=False),
    Column("time", TEXT, nullable=False),
    Column("source", TEXT, nullable=False),
    Column("call", TEXT, nullable=False),
    Column("body", TEXT, nullable=False),  # JSON, as published
    Column("reason", TEXT),  # of `unreadable`: what was wrong with it
    Index("events_call", "source", "call"),
)

CALLS = Table(
    "calls",
    _metadata,
    Column("source", TEXT, primary_key=True),
    Column("call", TEXT, primary_key=True),
    Column("name", TEXT, nullable=False),  # source/call: calls that started together are in the order of this
    Column("request_id", BigInteger),
    Column("revision", Integer, nullable=False),
    Column("outcome", TEXT),
    Column("complete", Boolean),
    Column("close_reason", TEXT),
    Column("reference", TEXT),
    Column("agent", TEXT),
    Column("number", TEXT),
    Column("recorded", Boolean, nullable=False),
    Column("started_at", TEXT, nullable=False),
    Column("answered_at", TEXT),
    Column("ended_at", TEXT),
    Column("ring_seconds", Double),
    Column("talk_seconds", Double),
    # Every agent and number of the call, folded in case, each between line ends: LIKE finds it whole.
    Column("agents", TEXT, nullable=False),
    Column("numbers", TEXT, nullable=False),
    Column("record", TEXT, nullable=False),  # JSON: the `data` of its last revision
    Index("calls_started", "started_at", "name"),
    Index("calls_source", "source", "started_at", "name"),
    Index("calls_outcome", "outcome", "started_at", "name"),
    Index("calls_reference", "reference"),
)

RECORDINGS = Table(
    "recordings",
    _metadata,
    Column("id", TEXT, primary_key=True),  # acme/513/recording/<name>; with /<8 digits> for a further one of the same leg
    Column("leg_id", TEXT, nullable=False),  # the same without the digits
    Column("source", TEXT, nullable=False),
    Column("call", TEXT, nullable=False),
    Column("call_id", TEXT, nullable=False),
    Column("guid", TEXT),
    Column("leg", TEXT, nullable=False),
    Column("state", TEXT, nullable=False),  # stored, absent, failed, expired
    Column("at", TEXT, nullable=False),
    Column("event", TEXT, nullable=False),  # id of the event that told it
    Column("uri", TEXT),
    Column("bytes", BigInteger),
    Column("sha256", TEXT),
    Column("seconds", Double),
    Column("channels", Integer),
    Column("sample_rate", Integer),
    Column("encryption", TEXT),  # JSON: scheme, recipient
    Column("attempts", Integer),
    Column("reason", TEXT),
    Index("recordings_call", "source", "call"),
    Index("recordings_guid", "source", "guid"),
    Index("recordings_leg", "leg_id"),
)

AUDIT = Table(
    "audit",
    _metadata,
    Column("id", TEXT, primary_key=True),
    Column("at", TEXT, nullable=False),
    Column("who", TEXT, nullable=False),
    Column("action", TEXT, nullable=False),
    Column("source", TEXT),
    Column("call", TEXT),
    Column("detail", TEXT, nullable=False),  # JSON
    Index("audit_at", "at", "id"),
)

OFFSETS = Table(
    "offsets",
    _metadata,
    Column("stream", TEXT, primary_key=True),
    Column("offset", BigInteger, nullable=False),  # of the last event that was written
    Column("fingerprint", TEXT, nullable=False),  # of that event: a stream that was made anew has another there
)

ALL = _metadata


def serializer(dialect: str) -> TextClause | None:
    """Give the statement that makes processes take turns at creating the tables; in SQLite the transaction does."""
    return text("SELECT pg_advisory_xact_lock(5130513)") if dialect == "postgresql" else None
