"""Add the attempts to deliver events to webhooks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "webhook_attempts",
        sa.Column("event_id", _TEXT, primary_key=True, nullable=False),
        sa.Column("endpoint", _TEXT, primary_key=True, nullable=False),
        sa.Column("at", _TEXT, primary_key=True, nullable=False),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False, nullable=False),
        sa.Column("type", _TEXT, nullable=False),
        sa.Column("source", _TEXT, nullable=False),
        sa.Column("call", _TEXT, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("error", _TEXT),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("answer", _TEXT, nullable=False),
        sa.Column("next_at", _TEXT),
        sa.Column("result", _TEXT, nullable=False),
    )
    op.create_index("webhook_attempts_endpoint", "webhook_attempts", ["endpoint", "at"])
    op.create_index("webhook_attempts_call", "webhook_attempts", ["source", "call", "at"])
    op.create_index("webhook_attempts_at", "webhook_attempts", ["at"])
