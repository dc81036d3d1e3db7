"""The history of a machine that configures none: the file that `callfold history` writes."""

from __future__ import annotations

DEFAULT_URL = "sqlite:///.callfold/history.sqlite"
