"""The history's tables, the same in SQLite and PostgreSQL.

Both compare text byte by byte, whatever the database's collation, so both return calls in the same order.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TextClause,
    inspect,
    text,
)

VERSION = 2
"""The version of these tables. Programs with another version refuse them: only a migration that breaks the last release sets it.

A migration that adds tables, indexes or columns that may be null keeps the version: the last release works on without them.
"""

FIRST_REVISION, REVISION = "0001", "0003"
"""Revisions in `migrations/versions`: that of tables without a recorded one, and the newest, which is that of these tables."""

METADATA = MetaData()
TEXT = Text().with_variant(Text(collation="C"), "postgresql")

VERSIONS = Table(
    "callfold_schema",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
)

# Alembic keeps it: the revision of the last migration.
REVISIONS = Table("alembic_version", MetaData(), Column("version_num", Text, primary_key=True))

EVENTS = Table(
    "events",
    METADATA,
    Column("id", TEXT, primary_key=True),
    Column("type", TEXT, nullable=False),
    Column("time", TEXT, nullable=False),
    Column("source", TEXT, nullable=False),
    Column("call", TEXT, nullable=False),
    Column("body", TEXT, nullable=False),  # JSON, as published
    Column("reason", TEXT),  # why an `unreadable` event could not be read
    Index("events_call", "source", "call"),
)

CALLS = Table(
    "calls",
    METADATA,
    Column("source", TEXT, primary_key=True),
    Column("call", TEXT, primary_key=True),
    Column("name", TEXT, nullable=False),  # source/call: the order of calls that started at the same time
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
    # Null in rows that the first release has written.
    Column("call_type", TEXT),
    Column("queue", TEXT),
    Column("agent_name", TEXT),
    Column("ended_by", TEXT),
    # Every agent and number of the call, case-folded, each between line ends, so that LIKE matches whole values.
    Column("agents", TEXT, nullable=False),
    Column("numbers", TEXT, nullable=False),
    Column("record", TEXT, nullable=False),  # JSON: `data` of the last revision, without `annotations`
    Index("calls_started", "started_at", "name"),
    Index("calls_source", "source", "started_at", "name"),
    Index("calls_outcome", "outcome", "started_at", "name"),
    Index("calls_reference", "reference"),
)

RECORDINGS = Table(
    "recordings",
    METADATA,
    Column("id", TEXT, primary_key=True),  # acme/513/recording/<name>, plus /<8 digits> for a second recording of the leg
    Column("leg_id", TEXT, nullable=False),  # the id without the digits
    Column("source", TEXT, nullable=False),
    Column("call", TEXT, nullable=False),
    Column("call_id", TEXT, nullable=False),
    Column("guid", TEXT),
    Column("leg", TEXT, nullable=False),
    Column("state", TEXT, nullable=False),  # stored, absent, failed, expired
    Column("at", TEXT, nullable=False),
    Column("event", TEXT, nullable=False),  # id of the event that set the state
    Column("uri", TEXT),
    Column("bytes", BigInteger),
    Column("sha256", TEXT),
    Column("seconds", Double),
    Column("channels", Integer),
    Column("sample_rate", Integer),
    Column("encryption", TEXT),  # JSON: scheme, recipient
    Column("attempts", Integer),
    Column("reason", TEXT),
    Column("flags", TEXT),  # JSON; null in rows that a previous release has written
    Index("recordings_call", "source", "call"),
    Index("recordings_guid", "source", "guid"),
    Index("recordings_leg", "leg_id"),
)

AUDIT = Table(
    "audit",
    METADATA,
    Column("id", TEXT, primary_key=True),
    Column("at", TEXT, nullable=False),
    Column("who", TEXT, nullable=False),
    Column("action", TEXT, nullable=False),
    Column("source", TEXT),
    Column("call", TEXT),
    Column("detail", TEXT, nullable=False),  # JSON
    Index("audit_at", "at", "id"),
)

ATTEMPTS = Table(
    "webhook_attempts",
    METADATA,
    # The key begins with the event, so that its index also finds the attempts of an event.
    Column("event_id", TEXT, primary_key=True),
    Column("endpoint", TEXT, primary_key=True),
    Column("at", TEXT, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("type", TEXT, nullable=False),
    Column("source", TEXT, nullable=False),  # of the call in the event's id; '' if it names none
    Column("call", TEXT, nullable=False),
    Column("status", Integer),  # of HTTP; null if there was no answer
    Column("error", TEXT),
    Column("seconds", Double, nullable=False),
    Column("answer", TEXT, nullable=False),  # its first bytes, masked
    Column("next_at", TEXT),
    Column("result", TEXT, nullable=False),  # delivered, retry, dead, disabled
    Index("webhook_attempts_endpoint", "endpoint", "at"),
    Index("webhook_attempts_call", "source", "call", "at"),
    Index("webhook_attempts_at", "at"),
)

OFFSETS = Table(
    "offsets",
    METADATA,
    Column("stream", TEXT, primary_key=True),
    Column("offset", BigInteger, nullable=False),  # of the last event written
    Column("fingerprint", TEXT, nullable=False),  # of that event; a recreated stream has another event at this offset
)


def migration_lock(dialect: str) -> TextClause | None:
    """Return the statement that lets one process at a time migrate. SQLite's transaction does so by itself.

    Releases before there were migrations take the same lock when they create the tables.
    """
    return text("SELECT pg_advisory_xact_lock(5130513)") if dialect == "postgresql" else None


def column_names(connection: Connection, table: Table) -> set[str]:
    """Read which columns of a table the database has."""
    return {present["name"] for present in inspect(connection).get_columns(table.name)}


def has_column(connection: Connection, column: Column[Any]) -> bool:
    """Return whether the database has a column. A release before this one may have created its table.

    A column stays, so what a connection has found is not read again. Another process can add one that is missing.
    """
    known: dict[str, set[str]] = connection.info.setdefault("callfold_columns", {})
    table = column.table
    if column.name not in known.get(table.name, ()):
        known[table.name] = column_names(connection, table)
    return column.name in known[table.name]


def has_table(connection: Connection, table: Table) -> bool:
    """Return whether the database has a table. Until the history of this release has migrated, it may lack a new one."""
    known: set[str] = connection.info.setdefault("callfold_tables", set())
    if table.name not in known and inspect(connection).has_table(table.name):
        known.add(table.name)
    return table.name in known
