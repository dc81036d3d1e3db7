"""What each subscriber must have received: every event at least once, each with its bytes, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from tests.chaos.audit.evidence import Evidence, Published, Received

ORDERED = "ordered"
"""Ends the name of a subscriber for which a call's revisions are in order."""


def check_subscribers(evidence: Evidence) -> Iterator[str]:
    """Yield a sentence for each event that a subscriber lacks, or received with other bytes, and for each of no publication."""
    published = {one.event["id"]: _checksum(one) for one in evidence.published}
    for name, received in evidence.received.items():
        bodies: dict[str, set[str]] = {}
        for one in received:
            bodies.setdefault(one.id, set()).add(one.sha256)
        for event_id in published.keys() - bodies.keys():
            yield f"{name} has not received {event_id}"
        for event_id, checksums in bodies.items():
            if event_id not in published:
                yield f"{name} received {event_id}, which was not published"
            elif checksums != {published[event_id]}:
                yield f"{name} received {event_id} with other bytes than were published"
        if name.endswith(ORDERED):
            yield from _check_order(name, received)


def _check_order(name: str, received: Iterable[Received]) -> Iterator[str]:
    """Check the first delivery of each revision: a repeat of an earlier one may follow."""
    latest: dict[str, int] = {}
    seen: set[str] = set()
    for one in received:
        if one.revision is not None and one.id not in seen:
            seen.add(one.id)
            if one.revision < latest.get(one.call, 0):
                yield f"{name} received {one.id} after revision {latest[one.call]}"
            latest[one.call] = max(one.revision, latest.get(one.call, 0))


def _checksum(one: Published) -> str:
    return hashlib.sha256(one.body.encode()).hexdigest()
