"""The exit codes of every process and command."""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_CONFIG = 2
EXIT_SPOOL_LEFT = 4
