"""All that the auditor knows: callbacks and their answers, events and who received them, the archive, and dead letters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tests.chaos.audit.model import Callback, read_callback

ACCEPTED = 200


@dataclass(slots=True)
class Sent:
    """One callback on the wire. `answered` is None where no answer came."""

    source: str
    callback: Callback
    sent: float
    answered: float | None = None
    status: int | None = None

    @property
    def is_accepted(self) -> bool:
        return self.status == ACCEPTED


@dataclass(frozen=True, slots=True)
class Published:
    """An event as a subscriber received it, and when."""

    at: float
    body: str
    event: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of the nemesis: when it began and ended, and when the system worked again (None: not within the limit)."""

    kind: str
    target: str
    begin: float
    end: float
    recovered: float | None

    @property
    def until(self) -> float:
        """When the system worked again; if that is unknown, the end of the fault."""
        return self.end if self.recovered is None else self.recovered


@dataclass(frozen=True, slots=True)
class Served:
    """A recording that the simulated PBX serves."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Received:
    """An event that a subscriber finished: its id, the checksum of its bytes, and its call with the revision, if it has one."""

    id: str
    sha256: str
    call: str
    revision: int | None


@dataclass(slots=True)
class Evidence:
    sent: list[Sent] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    served: dict[str, Served] = field(default_factory=dict)
    """Recordings by GUID."""
    archived: dict[str, tuple[str, int]] = field(default_factory=dict)
    """SHA-256 and size of every recording in the archive, by path."""
    dead: list[Mapping[str, Any]] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    """Messages that are left in each queue at the end."""
    received: dict[str, list[Received]] = field(default_factory=dict)
    """What each subscriber received, by its name."""


def read_evidence(directory: Path, archive: Path) -> Evidence:
    """Read the logs of a run, and hash the archive."""
    evidence = Evidence()
    for path in sorted(directory.glob("callbacks-*.jsonl")):
        evidence.sent += _read_sent(path)
    for line in _lines(directory / "events.jsonl"):
        evidence.published.append(Published(line["at"], line["body"], orjson.loads(line["body"])))
    for line in _lines(directory / "recordings.jsonl"):
        evidence.served[line["guid"]] = Served(line["sha256"], line["bytes"])
    for path in sorted(directory.glob("received-*.jsonl")):
        name = path.stem.removeprefix("received-")
        evidence.received[name] = [
            Received(*(line[key] for key in ("id", "sha256", "call", "revision"))) for line in _lines(path)
        ]
    evidence.faults = _read_faults(directory / "faults.jsonl")
    for path in archive.rglob("*.wav") if archive.exists() else ():
        evidence.archived[str(path.relative_to(archive))] = (_sha256(path), path.stat().st_size)
    return evidence


def _read_sent(path: Path) -> list[Sent]:
    sent: dict[int, Sent] = {}
    for line in _lines(path):
        if "sent" in line:
            sent[line["n"]] = Sent(line["source"], read_callback(line["query"]), line["sent"])
        else:
            sent[line["n"]].answered, sent[line["n"]].status = line["answered"], line["status"]
    return list(sent.values())


def _read_faults(path: Path) -> list[Fault]:
    rows: dict[int, dict[str, Any]] = {}
    for line in _lines(path):
        rows.setdefault(line["n"], {}).update(line)
    return [
        Fault(row["kind"], row["target"], row["begin"], row.get("end", row["begin"]), row.get("recovered"))
        for row in rows.values()
    ]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):  # else it is still being written
                    yield orjson.loads(line)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
