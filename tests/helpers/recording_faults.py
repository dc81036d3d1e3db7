"""What can go wrong with a recording, each with the one way in which it must end; docs/recordings.md has the same table."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from simulator.recordings import Fault

ALWAYS = 10**9


class Place(StrEnum):
    """Where a trouble can be met: with every archive, or with one kind only."""

    ANY = "any"
    DISK = "disk"
    S3 = "s3"


@dataclass(frozen=True, slots=True)
class Trouble:
    """A fault and its end.

    Attributes:
        what: it in words.
        state: what the recording ends as, in so many `tries`; with a fault that passes, a worker that dies may take one along.
        reason: of the end.
        fault: what the PBX does, for so many requests.
        place: the archive that has it.
    """

    what: str
    state: str
    reason: str | None
    tries: int
    fault: Fault = Fault.NONE
    times: int = ALWAYS
    place: Place = Place.ANY

    @property
    def row(self) -> str:
        """Write it as a row of the documentation."""
        return f"| {self.what} | {self.state} | {f'`{self.reason}`' if self.reason else ''} | {self.tries} |"


KILLED = Trouble("worker killed with `kill -9` in the middle; resumed", "stored", None, 1, Fault.HELD)
FULL = Trouble("archive on disk: full", "failed", "archive_unavailable", 3, place=Place.DISK)
UNWRITABLE = Trouble("archive on disk: unwritable", "failed", "archive_unavailable", 3, place=Place.DISK)
ERROR_ONCE = Trouble("S3 answers 500, once", "stored", None, 1, place=Place.S3)
SLOW_DOWN_ONCE = Trouble("S3 answers SlowDown, once", "stored", None, 1, place=Place.S3)
ERRORS = Trouble("S3 answers 500, always", "failed", "archive_unavailable", 3, place=Place.S3)
SLOW_DOWNS = Trouble("S3 answers SlowDown, always", "failed", "archive_unavailable", 3, place=Place.S3)
TROUBLES = (
    Trouble("404, twice", "stored", None, 3, Fault.NOT_FOUND, 2),
    Trouble("503, twice", "stored", None, 3, Fault.NOT_READY, 2),
    Trouble("still being written for two attempts", "stored", None, 3, Fault.GROWING, 2),
    Trouble("served a few bytes at a time", "stored", None, 1, Fault.DRIP),
    Trouble("reset in the middle, twice; resumed", "stored", None, 1, Fault.RESET, 2),
    KILLED,
    Trouble("wrong Content-Range; started over", "stored", None, 1, Fault.WRONG_CONTENT_RANGE, 1),
    Trouble("Range ignored; started over", "stored", None, 1, Fault.IGNORES_RANGE, 1),
    Trouble("other content after the break (other ETag); the new one is stored", "stored", None, 1, Fault.CHANGED, 1),
    Trouble("compressed with gzip unasked; decompressed", "stored", None, 1, Fault.GZIP),
    Trouble("always incomplete", "failed", "truncated", 3, Fault.TRUNCATED),
    Trouble("a log-in page as `audio/wav` with status 200", "failed", "login_page", 3, Fault.LOGIN_PAGE),
    Trouble("an endless body", "failed", "too_large", 1, Fault.ENDLESS),
    Trouble("a redirect to 169.254.169.254", "failed", "origin_not_allowed", 1, Fault.REDIRECT),
    Trouble("an empty body", "absent", "empty", 3, Fault.EMPTY),
    FULL,
    UNWRITABLE,
    ERROR_ONCE,
    SLOW_DOWN_ONCE,
    ERRORS,
    SLOW_DOWNS,
)


def dealt(count: int, place: Place, seed: int) -> dict[str, Trouble]:
    """Deal the troubles of a place out among so many recordings: each as often as any other, in a seeded order."""
    mine = [trouble for trouble in TROUBLES if trouble.place in {Place.ANY, place}]
    deck = [mine[number % len(mine)] for number in range(count)]
    random.Random(seed).shuffle(deck)  # noqa: S311 - repeatable on purpose
    return {str(70000 + number * 2): trouble for number, trouble in enumerate(deck)}


def of(troubles: dict[str, Trouble], *wanted: Trouble) -> list[str]:
    """List the recordings that have one of these."""
    return [call_id for call_id, trouble in troubles.items() if trouble in wanted]


def not_of(troubles: dict[str, Trouble], unwanted: Sequence[Trouble]) -> list[str]:
    """List the recordings that have none of these."""
    return [call_id for call_id, trouble in troubles.items() if trouble not in unwanted]
