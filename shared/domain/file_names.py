"""Names of a leg's files: its GUID, its CallID if it has no GUID, or both if the GUID belongs to another leg.

Two legs of a call can have one GUID, and one of them can be late. The GUID belongs to the leg that was first published with it.
So no later revision moves a file, and no event id refers to another recording.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

Owners = Mapping[str, str]
"""Map from a GUID to the CallID of the leg that it belongs to."""


class LegIds(NamedTuple):
    """The ids that can name the files of a leg."""

    guid: str | None
    call_id: str


def guid_owners(legs: Iterable[LegIds], before: Owners) -> dict[str, str]:
    """Decide which leg each GUID belongs to: as in earlier revisions, else to the first of these legs."""
    owners = dict(before)
    for leg in legs:
        if leg.guid is not None:
            owners.setdefault(leg.guid, leg.call_id)
    return owners


def file_names(legs: Sequence[LegIds], owners: Owners) -> list[str]:
    """Return the name of each leg's files."""
    names: list[str] = []
    for leg in legs:
        if leg.guid is None:
            names.append(f"call-{leg.call_id}")
        elif owners[leg.guid] == leg.call_id and leg.guid not in names:
            names.append(leg.guid)
        else:
            names.append(f"{leg.guid}.{leg.call_id}")
    return names
