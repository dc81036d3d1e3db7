"""Add what a call list shows of people, queue and kind of call, and the flags of recordings.

Development versions added these columns without a record of it, so each one is added only if it is missing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_COLUMNS = {"calls": ("call_type", "queue", "agent_name", "ended_by"), "recordings": ("flags",)}


def upgrade() -> None:
    inspector = sa.inspect(op.get_bind())
    for table, names in _COLUMNS.items():
        present = {column["name"] for column in inspector.get_columns(table)}
        for name in names:
            if name not in present:
                op.add_column(table, sa.Column(name, _TEXT))
