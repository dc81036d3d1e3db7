"""Create the tables of the first release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
# What releases before Alembic compare with theirs. It changes when a migration breaks the release before.
_SCHEMA_VERSION = 2


def upgrade() -> None:
    versions = op.create_table(
        "callfold_schema",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.bulk_insert(versions, [{"id": 1, "version": _SCHEMA_VERSION}])
    _create_events()
    _create_calls()
    _create_recordings()
    op.create_table(
        "audit",
        _text("id", primary_key=True),
        _text("at"),
        _text("who"),
        _text("action"),
        _text("source", nullable=True),
        _text("call", nullable=True),
        _text("detail"),
    )
    op.create_index("audit_at", "audit", ["at", "id"])
    op.create_table(
        "offsets", _text("stream", primary_key=True), sa.Column("offset", sa.BigInteger, nullable=False), _text("fingerprint")
    )


def _create_events() -> None:
    op.create_table(
        "events",
        _text("id", primary_key=True),
        _text("type"),
        _text("time"),
        _text("source"),
        _text("call"),
        _text("body"),
        _text("reason", nullable=True),
    )
    op.create_index("events_call", "events", ["source", "call"])


def _create_calls() -> None:
    op.create_table(
        "calls",
        _text("source", primary_key=True),
        _text("call", primary_key=True),
        _text("name"),
        sa.Column("request_id", sa.BigInteger),
        sa.Column("revision", sa.Integer, nullable=False),
        _text("outcome", nullable=True),
        sa.Column("complete", sa.Boolean),
        _text("close_reason", nullable=True),
        _text("reference", nullable=True),
        _text("agent", nullable=True),
        _text("number", nullable=True),
        sa.Column("recorded", sa.Boolean, nullable=False),
        _text("started_at"),
        _text("answered_at", nullable=True),
        _text("ended_at", nullable=True),
        sa.Column("ring_seconds", sa.Double),
        sa.Column("talk_seconds", sa.Double),
        _text("agents"),
        _text("numbers"),
        _text("record"),
    )
    op.create_index("calls_started", "calls", ["started_at", "name"])
    op.create_index("calls_source", "calls", ["source", "started_at", "name"])
    op.create_index("calls_outcome", "calls", ["outcome", "started_at", "name"])
    op.create_index("calls_reference", "calls", ["reference"])


def _create_recordings() -> None:
    op.create_table(
        "recordings",
        _text("id", primary_key=True),
        _text("leg_id"),
        _text("source"),
        _text("call"),
        _text("call_id"),
        _text("guid", nullable=True),
        _text("leg"),
        _text("state"),
        _text("at"),
        _text("event"),
        _text("uri", nullable=True),
        sa.Column("bytes", sa.BigInteger),
        _text("sha256", nullable=True),
        sa.Column("seconds", sa.Double),
        sa.Column("channels", sa.Integer),
        sa.Column("sample_rate", sa.Integer),
        _text("encryption", nullable=True),
        sa.Column("attempts", sa.Integer),
        _text("reason", nullable=True),
    )
    op.create_index("recordings_call", "recordings", ["source", "call"])
    op.create_index("recordings_guid", "recordings", ["source", "guid"])
    op.create_index("recordings_leg", "recordings", ["leg_id"])


def _text(name: str, *, primary_key: bool = False, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, _TEXT, primary_key=primary_key, nullable=nullable)
