"""How the files of a leg are named: by its GUID, by its CallID where it has none, by both where another leg has the GUID.

Two legs of a call can say that they have one GUID, one of them late. The first that was published with a GUID has it to
itself, so that no later revision moves a file, and no event id comes to stand for another recording.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

Owners = Mapping[str, str]
"""GUID -> CallID of the leg whose files it names."""


class LegIds(NamedTuple):
    """What a leg can be named by."""

    guid: str | None
    call_id: str


def settled(legs: Iterable[LegIds], before: Owners) -> dict[str, str]:
    """Settle which leg each GUID names: as earlier revisions did, else the first of these."""
    owners = dict(before)
    for leg in legs:
        if leg.guid is not None:
            owners.setdefault(leg.guid, leg.call_id)
    return owners


def file_names(legs: Sequence[LegIds], owners: Owners) -> list[str]:
    """Name the files of each leg of a call."""
    names: list[str] = []
    for leg in legs:
        if leg.guid is None:
            names.append(f"call-{leg.call_id}")
        elif owners[leg.guid] == leg.call_id and leg.guid not in names:
            names.append(leg.guid)
        else:
            names.append(f"{leg.guid}.{leg.call_id}")
    return names
