"""The file in which a subscriber writes what it has finished, for the auditor."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

READY = "ready"
"""The line that a subscriber writes when its queue exists."""


class ReceivedLog:
    """A line for each finished event, on disk when `add` returns: the process may be killed at any time."""

    def __init__(self, directory: Path, name: str) -> None:
        self._file = (directory / f"received-{name}.jsonl").open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    @staticmethod
    def ready() -> None:
        sys.stdout.write(f"{READY}\n")
        sys.stdout.flush()

    def add(self, body: bytes) -> None:
        event = orjson.loads(body)
        line = {
            "id": event["id"],
            "sha256": hashlib.sha256(body).hexdigest(),
            "call": f"{event['data']['source']}/{event['subject']}",
            "revision": event["data"].get("revision"),
        }
        self._file.write(orjson.dumps(line) + b"\n")

    def object(self, problem: str) -> None:
        """Write an event that was never published, to which the auditor objects by name."""
        self._file.write(orjson.dumps({"id": problem, "sha256": "", "call": "", "revision": None}) + b"\n")
